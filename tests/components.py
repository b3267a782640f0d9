"""Components that a test needs and a machine may lack."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

# component -> (what proves it there, how to get it)
COMPONENTS = {
    "prometheus": ("prometheus", "apt-get install prometheus"),
    "promtool": ("promtool", "apt-get install prometheus"),
    "alertmanager": ("prometheus-alertmanager", "apt-get install prometheus-alertmanager"),
    "amtool": ("amtool", "apt-get install prometheus-alertmanager"),
    "chromium": ("chromium", "apt-get install chromium"),
    "chromedriver": ("chromedriver", "apt-get install chromium-driver"),
    "wrk": ("wrk", "apt-get install wrk"),
    "curl": ("curl", "apt-get install curl"),
}


def require(*names: str) -> None:
    """Skip the calling test where a component is missing; fail it where TANDEM_REQUIRE_ALL=1."""
    for name in names:
        command, fix = COMPONENTS[name]
        if shutil.which(command):
            continue
        missing(f"{name} is not installed ({fix}, or make ci-tools)")


def missing(reason: str) -> NoReturn:
    """Skip the calling test for this reason; fail it where TANDEM_REQUIRE_ALL=1."""
    if os.environ.get("TANDEM_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
