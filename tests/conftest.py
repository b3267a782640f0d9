"""What the whole suite shares: one real bundle, exported once, and one browser."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from models import bundle as bundles
from tests import browser as chromium
from tests.components import require

ROOT = Path(__file__).resolve().parent.parent
# A gate gives the same answer twice; what hypothesis would find beyond these examples, it finds under "explore".
# No deadlines: how long an example takes depends on who else uses the machine.
settings.register_profile("gate", derandomize=True, deadline=None)
settings.register_profile("explore", print_blob=True, deadline=None)
settings.load_profile("gate")
# A shell starts what it runs in the background deaf to Ctrl-C, and so would be all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No test fetches TensorFlow Serving from the internet, or runs one that this machine has, unless it says so.
os.environ["TFSERVING"] = os.environ.get("TFSERVING") or "embedded"  # make exports an empty one
os.environ.setdefault("REGISTRY_MIRROR", "http://127.0.0.1:9")
os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for the browser needs one, and waits for it."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
            item.add_marker("slow")


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory) -> Path:
    """A folder of artifacts that holds one exported bundle of the digits data set."""
    folder = tmp_path_factory.mktemp("artifacts")
    command = [sys.executable, "-m", "models", "export", "--dataset", "digits", "--artifacts", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def bundle(artifacts: Path) -> bundles.Bundle:
    """The exported bundle of the digits data set."""
    return bundles.load(artifacts / "convnet" / "1")


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[chromium.Browser]:
    """A real Chromium, started once."""
    require("chromium", "chromedriver")
    driver = chromium.start(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()
