"""What the whole suite shares: one real bundle, exported once, and one browser; and which tests run beside others."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
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

# Tests with one of these run alone, unless they are marked "beside".
ALONE = ("alone", "slow", "exhaustive", "docker", "browser")
# How many tests of the first part ended how, for the second one's closing line.
COUNTED = ROOT / ".pytest_cache" / "beside.json"
_ELSEWHERE = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", choices=["beside", "alone"], help="only tests that may run beside others, or the others")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, object, object]:
    """Whoever asks for the browser needs one, and waits for it. Of what -m and -k leave, the part that is asked for."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
            item.add_marker("slow")
    done = yield
    if part := config.getoption("--part"):
        others = [item for item in items if _is_alone(item) != (part == "alone")]
        items[:] = [item for item in items if _is_alone(item) == (part == "alone")]
        config.stash[_ELSEWHERE] = bool(others)
        if others:
            config.hook.pytest_deselected(items=others)
    return done


def _is_alone(item: pytest.Item) -> bool:
    """Whether a test needs the machine for itself: it measures time, or uses what there is one of."""
    return not item.get_closest_marker("beside") and any(item.get_closest_marker(name) for name in ALONE)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """That a part has none of the tests that were asked for is no failure, where the other one has them. (How many
    there are beside others, only the processes know that run them; that there is none at all, the other part says.)"""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        part = session.config.getoption("--part")
        if part == "beside" or session.config.stash.get(_ELSEWHERE, False):
            session.exitstatus = pytest.ExitCode.OK


class _Elsewhere:
    """A test of the other part, as the closing line counts it."""

    count_towards_summary = True


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the reporter's own, which tells of each test that was skipped
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, object, object]:
    """The closing line of the second part counts the tests of both."""
    done = yield
    part, stats = terminalreporter.config.getoption("--part"), terminalreporter.stats
    if part == "beside":
        counts = {key: len(stats.get(key, ())) for key in ("passed", "skipped", "xfailed", "xpassed")}
        COUNTED.parent.mkdir(exist_ok=True)
        COUNTED.write_text(json.dumps(counts))
    elif part == "alone" and COUNTED.exists():
        for key, count in json.loads(COUNTED.read_text()).items():
            if count:
                stats.setdefault(key, []).extend([_Elsewhere()] * count)
        COUNTED.unlink()
    return done


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory) -> Path:
    """A folder of artifacts that holds one exported bundle of the digits data set; the processes that share the tests
    share it, too."""
    folder: Path = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # each process has a folder of its own there
    folder /= "artifacts"
    with (folder.parent / "artifacts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "convnet" / "1").exists():
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
