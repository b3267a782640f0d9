"""What the Compose files promise, seen without an engine; and that old and new Compose read them alike."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from serving.runtimes.containers import base_images, published, servers
from tests.components import require
from tests.docker.files import DOCKER, SERVERS, compose, instruction, stages

PORTS = {one.variable: one for one in published.known()}
SERVICES = compose()["services"]
GPU = compose("compose.gpu.yaml")["services"]
each_service = pytest.mark.parametrize("name", SERVICES)
NEWEST = Path(sys.executable).parent / "docker-compose"


def environment() -> dict[str, str]:
    profiles = {"COMPOSE_PROFILES": "embedded,triton,loadtest,gpu", "TANDEM_CONFIG": "/config"}
    return {**os.environ, **base_images.variables(), **profiles}


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]], ids=["cpu", "gpu"])
def test_old_and_new_compose_read_the_files_alike(files):
    require("docker-compose")
    old = shutil.which("docker-compose", path=os.environ["PATH"].replace(str(NEWEST.parent), ""))
    read = {}
    for program in (old, NEWEST):
        command = [str(program), "-p", "tandem", *(word for file in files for word in ("-f", str(DOCKER / file)))]
        done = subprocess.run([*command, "config"], capture_output=True, text=True, env=environment(), check=False)
        assert done.returncode == 0, done.stderr
        read[program] = yaml.safe_load(done.stdout)["services"]
    one, other = read.values()
    assert set(one) == set(other)
    for service in one:
        for key in ("image", "user", "cpuset", "read_only", "cap_drop", "restart", "command", "profiles"):
            assert one[service].get(key) == other[service].get(key), (service, key)


@each_service
def test_every_container_is_limited_locked_down_restarted_and_rotates_its_log(name):
    service = SERVICES[name]
    assert {"cpus", "cpuset", "mem_limit", "pids_limit"} <= service.keys()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == ("no" if name == "loadtest" else "unless-stopped")
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    user, _, group = service["user"].partition(":")
    assert int(user) > 0
    assert group


@each_service
def test_every_container_has_a_health_check(name):
    dockerfile = DOCKER / f"{name}.Dockerfile"
    if dockerfile.exists():
        assert instruction(stages(dockerfile)[-1], "HEALTHCHECK")
    else:
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_everything_waits_for_what_it_needs_to_be_healthy():
    for service in SERVICES.values():
        for condition in service.get("depends_on", {}).values():
            assert condition == {"condition": "service_healthy"}
    assert set(SERVICES["grafana"]["depends_on"]) == {"prometheus"}
    assert set(SERVICES["prometheus"]["depends_on"]) == {"alertmanager"}


def test_the_servers_get_the_same():
    keys = ("cpus", "cpuset", "mem_limit", "memswap_limit", "pids_limit", "tmpfs", "user", "stop_grace_period")
    limits = [{key: SERVICES[name][key] for key in keys} for name in SERVERS]
    assert all(limit == limits[0] for limit in limits)


def test_nothing_shares_a_core_with_the_servers():
    servers = {SERVICES[name]["cpuset"] for name in SERVERS}
    others = {service["cpuset"] for name, service in SERVICES.items() if name not in SERVERS}
    others.add(GPU["dcgm-exporter"]["cpuset"])
    assert len(servers) == len(others) == 1
    assert not servers & others


@each_service
def test_ports_are_on_loopback_and_management_is_not_published(name):
    for port in SERVICES[name].get("ports", []):
        match = re.fullmatch(r"127\.0\.0\.1:\$\{(TANDEM_\w+_PORT):-(\d+)\}:(\d+)", port)
        assert match, port
        assert PORTS[match[1]].default == int(match[2]) == int(match[3])
        assert name in PORTS[match[1]].services
        management = servers.named("torchserve").ports
        assert int(match[3]) not in (management.management, management.grpc_management)


def test_every_published_port_is_checked_before_the_stack_starts():
    published = {re.search(r"TANDEM_\w+_PORT", port)[0] for one in SERVICES.values() for port in one.get("ports", [])}  # type: ignore[index]
    assert published == set(PORTS)


def test_profiles_volumes_and_devices():
    assert SERVICES["embedded-tfserving"]["profiles"] == ["embedded"]
    assert SERVICES["triton"]["profiles"] == ["triton"]
    assert SERVICES["loadtest"]["profiles"] == ["loadtest"]
    assert GPU["dcgm-exporter"]["profiles"] == ["gpu"]
    assert set(compose()["volumes"]) == {"prometheus", "grafana"}
    for name in ("torchserve", "tensorflow-serving", "triton", "dcgm-exporter"):
        (device,) = GPU[name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_grafana_is_provisioned_from_the_repositorys_files():
    for volume in SERVICES["grafana"]["volumes"]:
        source = volume.split(":")[0]
        assert source == "grafana" or (DOCKER / source).is_dir()
