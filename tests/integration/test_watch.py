"""`make watch` on a real Prometheus that scrapes a real server under load."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serving.client import Client
from serving.profile import ServingProfile
from serving.runtimes.process import launch, prometheus
from tests.components import require

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CLOCK = r"\d\d:\d\d:\d\d"
ALL = re.compile(rf"{CLOCK} embedded-tfserving all: rate [\d.,]+/s, errors 0.00%, batch [\d.]+\n")
FIGURES = re.compile(rf"{CLOCK} embedded-tfserving (grpc|rest): rate [\d.,]+/s(, p50 [\d.]+ ms, p99 [\d.]+ ms)?\n")
SHOW_CURSOR, HIDE_CURSOR, ERASE_LINE = b"\x1b[?25h", b"\x1b[?25l", b"\x1b[2K"


@pytest.fixture(scope="module")
def results(bundle, tmp_path_factory):
    """A folder of results in which `latest` is a run with a server under load and its Prometheus."""
    require("prometheus")
    folder = tmp_path_factory.mktemp("results")
    with contextlib.ExitStack() as running:
        server = running.enter_context(launch.start("tensorflow", bundle, ServingProfile(), folder / "servers"))
        scraper = prometheus.start(folder / "latest" / "prometheus", ())
        assert scraper is not None
        running.callback(scraper.stop)
        scraper.watch_servers([(server.target, server.process.pid)])
        running.enter_context(_load(server.target))
        yield folder


@contextlib.contextmanager
def _load(target):
    over = threading.Event()

    def call():
        image = np.zeros((1, *target.input_shape), np.uint8)
        with Client(target, timeout_s=10) as client:
            while not over.wait(0.01):
                client.predict("grpc", image)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def command(results: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "monitoring.watch", "--results", str(results), *more]


def await_figures(results: Path) -> None:
    """Wait until Prometheus has two samples of an answered request."""
    deadline = time.monotonic() + 30
    while not (FIGURES.search(shown := once(results)) and ALL.search(shown)):
        assert time.monotonic() < deadline, shown


def once(results: Path) -> str:
    done = subprocess.run(command(results, "--once"), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_log_gets_plain_lines_each_second(results):
    await_figures(results)
    with subprocess.Popen(command(results), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        seen = [watch.stdout.readline().decode() for _ in range(9)]
        watch.send_signal(signal.SIGINT)
        _, error = watch.communicate(timeout=20)
    assert (watch.returncode, error) == (0, b"")
    # REST is among them for some seconds after the start: that is how the start proves that it answers.
    assert all(ALL.fullmatch(line) or FIGURES.fullmatch(line) for line in seen), seen
    clocks = {line[:8] for line in seen if " grpc: " in line}
    assert len(clocks) >= 2, "figures of another second"


def test_a_terminal_is_redrawn_and_left_clean(results):
    await_figures(results)
    output, status = in_terminal(command(results), lambda shown: shown.count(b"embedded-tfserving") >= 3)
    assert status == 0
    assert b"Traceback" not in output
    assert HIDE_CURSOR in output
    ending = output[output.rindex(b"embedded-tfserving") :]
    height = output[: output.index(b"embedded-tfserving")].count(b"\n")
    assert ending.count(ERASE_LINE) >= height, "the table is wiped"
    assert SHOW_CURSOR in ending


def in_terminal(line: list[str], seen: Callable[[bytes], bool]) -> tuple[bytes, int]:
    """Run a command in a terminal of its own until `seen`, then press Ctrl-C; what it wrote, and its exit status."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.environ.update(TERM="xterm", COLUMNS="120", LINES="40")
        os.execv(line[0], line)
    output, pressed, deadline = b"", False, time.monotonic() + 60
    try:
        while select.select([terminal], [], [], deadline - time.monotonic())[0]:
            with contextlib.suppress(OSError):  # EIO: the program has ended
                piece = os.read(terminal, 65536)
            if not piece:
                break
            output += piece
            piece = b""
            if not pressed and seen(output):
                os.write(terminal, b"\x03")
                pressed = True
    finally:
        os.close(terminal)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL if not pressed else 0)
    _, status = os.waitpid(child, 0)
    assert pressed, output
    return output, os.waitstatus_to_exitcode(status)


def test_it_ends_when_the_run_does(results, bundle, tmp_path):
    scraper = prometheus.start(tmp_path / "serve" / "prometheus", ())
    assert scraper is not None
    with subprocess.Popen(command(tmp_path), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline().endswith(b"no figures yet\n")
        scraper.stop()
        rest, error = watch.communicate(timeout=20)
    assert (watch.returncode, error) == (0, b"")
    assert rest.splitlines()[-1] == b"the run has ended"


def test_nothing_to_watch_is_one_line_with_the_way_out(tmp_path):
    done = subprocess.run(command(tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: .*(make compare|apt-get install prometheus).*\n", done.stderr)


def test_an_address_without_prometheus_is_named(tmp_path):
    line = command(tmp_path, "--prometheus", "http://127.0.0.1:9")
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "http://127.0.0.1:9" in done.stderr
