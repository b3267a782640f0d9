"""Components that a test needs and a machine may lack."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from serving.engines.engine import Engine
from serving.runtimes.process import own_program

# component -> (what proves it there, how to get it)
COMPONENTS = {
    "prometheus": ("prometheus", "apt-get install prometheus"),
    "promtool": ("promtool", "apt-get install prometheus"),
    "alertmanager": ("prometheus-alertmanager", "apt-get install prometheus-alertmanager"),
    "amtool": ("amtool", "apt-get install prometheus-alertmanager"),
    "chromium": ("chromium", "apt-get install chromium"),
    "chromedriver": ("chromedriver", "apt-get install chromium-driver"),
    "pdftotext": ("pdftotext", "apt-get install poppler-utils"),
    "wrk": ("wrk", "apt-get install wrk"),
    "curl": ("curl", "apt-get install curl"),
    "g++": ("g++", "apt-get install g++"),
    "nginx": ("nginx", "apt-get install nginx-light"),
    "tinyproxy": ("tinyproxy", "apt-get install tinyproxy-bin"),
    "docker-registry": ("docker-registry", "apt-get install docker-registry"),
    "docker-compose": ("docker-compose", "apt-get install docker-compose"),
    "mlserver": (str(Path(__file__).resolve().parents[1] / ".venv-mlserver" / "bin" / "mlserver"), "make ci-tools"),
}
ENGINE = Path(__file__).resolve().parent / "docker" / "engine"


def require(*names: str) -> None:
    """Skip the calling test where a component is missing; fail it where TANDEM_REQUIRE_ALL=1."""
    for name in names:
        command, fix = COMPONENTS[name]
        if shutil.which(command):
            continue
        missing(f"{name} is not installed ({fix}, or make ci-tools)")


def require_docker_engine() -> None:
    """Point DOCKER_HOST at the tests' own engine where it runs; else take the machine's; else skip or fail."""
    require("docker-compose")
    own = subprocess.run([ENGINE, "host"], capture_output=True, text=True, check=True).stdout.strip()
    if "DOCKER_HOST" not in os.environ and Path(own.removeprefix("unix://")).exists():
        os.environ["DOCKER_HOST"] = own
    if not shutil.which("docker"):
        missing("docker is not installed (apt-get install docker.io, or make ci-tools)")
    done = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False)
    if done.returncode:
        missing("no Docker engine answers (make ci-tools starts one for the tests)")


def require_program(engine: Engine) -> None:
    """Skip the calling test where the program of an engine that has a wheel is not in the cache; fail it where
    TANDEM_REQUIRE_ALL=1."""
    if own_program.find(engine) is None:
        missing(f"{engine.title} is not in the cache (make ci-tools)")


def missing(reason: str) -> NoReturn:
    """Skip the calling test for this reason; fail it where TANDEM_REQUIRE_ALL=1."""
    if os.environ.get("TANDEM_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
