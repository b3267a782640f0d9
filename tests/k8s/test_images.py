"""Publishing images: what a registry or a machine without kind answers, in a user's words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.problem import Problem
from serving.profile import ServingProfile
from serving.runtimes.containers import images as containers
from serving.runtimes.containers import registry, wheels
from serving.runtimes.kubernetes import images, plan
from serving.runtimes.kubernetes.settings import Settings
from tests.k8s.rendered import ROOT


def settings(**changes) -> Settings:
    values = {
        "overlay": "cpu",
        "components": (),
        "registry": "registry.example.com/team",
        "model": "convnet",
        "version": 4,
        "input_shape": (32, 32, 3),
        "classes": 10,
        "profile": ServingProfile(),
    }
    return Settings(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "name", "reference"),
    [
        ({}, "torchserve", "registry.example.com/team/tandem/torchserve:4"),
        ({"registry": "registry.example.com/team/"}, "torchserve", "registry.example.com/team/tandem/torchserve:4"),
        ({"registry": ""}, "torchserve", "tandem/torchserve:4"),
        ({"overlay": "gpu", "registry": ""}, "tensorflow-serving", "tandem/tensorflow-serving:4-gpu"),
        ({"overlay": "gpu", "registry": ""}, "loadtest", "tandem/loadtest:4"),
        ({"embedded": True, "registry": ""}, "tensorflow-serving", "tandem/embedded-tfserving:4"),
    ],
)
def test_images_are_called_as_they_are_built(changes, name, reference):
    assert plan.image(settings(**changes), name) == reference


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """A docker whose push fails as other registries make it fail; tests/docker/test_registry.py has a real one."""

    def says(text: str) -> None:
        program = tmp_path / "docker"
        inspect = 'if [ "$1" = image ]; then echo 1; exit; fi'
        program.write_text(f"#!/bin/sh\n{inspect}\ncat >&2 <<'END'\n{text}\nEND\nexit 1\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    (tmp_path / "cat").symlink_to("/bin/cat")
    return says


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("denied: requested access to the resource is denied", "registry.example.com refuses"),
        ("unauthorized: authentication required", "docker login registry.example.com"),
        ("dial tcp: lookup registry.example.com: no such host", "registry.example.com cannot be reached"),
        ("http: server gave HTTP response to HTTPS client", "is REGISTRY=registry.example.com/... right"),
    ],
)
def test_a_registry_that_refuses(docker, output, message):
    docker(output)
    with pytest.raises(Problem, match=message) as raised:
        registry.push("registry.example.com/team/tandem/torchserve:4")
    assert raised.value.details == (output,)


def test_a_deploy_whose_push_is_refused_says_so_and_pushes_nothing(bundle, tmp_path, monkeypatch):
    program = tmp_path / "docker"
    build = "version) echo amd64 ;; build) cat >/dev/null ;; image) echo 1 ;;"
    program.write_text(f'#!/bin/sh\ncase "$1" in {build} push) echo "denied: not yours" >&2; exit 1 ;; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(wheels, "fetch", lambda *_: None)
    monkeypatch.setattr(containers, "_context", lambda *_: {})
    said: list[str] = []
    with pytest.raises(Problem, match=r"registry\.example\.com refuses registry\.example\.com/team/tandem/torchserve"):
        images.publish("prod", settings(version=bundle.version), bundle, tmp_path, said.append)
    assert said == [f"images   building for {bundle.model} version {bundle.version}"]


def test_a_cluster_whose_nodes_cannot_be_given_images(monkeypatch):
    with pytest.raises(Problem, match="prod is neither kind nor minikube: give REGISTRY="):
        images.require_loadable("prod")
    monkeypatch.setenv("PATH", str(Path(__file__).parent))
    with pytest.raises(Problem, match="kind is not on the PATH"):
        images.require_loadable("kind-tandem")


@pytest.mark.parametrize("module", ["loadtest.generator.agent", "loadtest.generator.worker"])
def test_the_load_generators_image_has_every_package_that_its_pods_import(module):
    """Of third-party packages those of its lock file, of ours those that it copies."""
    lock = (ROOT / "docker/requirements/loadtest.lock").read_text()
    locked = {line.split("==")[0].strip().lower().replace("_", "-") for line in lock.splitlines() if "==" in line}
    code = (
        f"import {module}, sys, json; from importlib.metadata import packages_distributions as known; tops = "
        "{name.partition('.')[0] for name in sys.modules}; found = known(); "
        "print(json.dumps([sorted(one for top in tops for one in found.get(top, [])), sorted(tops)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    distributions, tops = json.loads(done.stdout.splitlines()[-1])
    used = {name.lower().replace("_", "-") for name in distributions} - {"setuptools", "pip"}
    assert used <= locked
    assert {"models", "serving", "loadtest", "monitoring"} & set(tops) == {"models", "serving", "loadtest"}
