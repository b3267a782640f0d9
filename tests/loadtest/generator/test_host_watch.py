"""What is seen of the machine during a trial, with real programs on its cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.experiment import cpu_time
from loadtest.experiment.slip import OTHERS_ALLOWED
from loadtest.generator.host_watch import HostWatch
from serving.this_machine import boot_id
from tests.serving.targets import target

pytestmark = pytest.mark.alone

CORE = min(os.sched_getaffinity(0))
SPIN = f"import os; os.sched_setaffinity(0, [{CORE}])\nwhile True: pass"


@pytest.fixture
def stranger() -> Iterator[int]:
    """A busy program on one core that nobody here has started: its parent is gone."""
    command = f"{sys.executable} -c '{SPIN}' >/dev/null 2>&1 & echo $!"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    pid = int(done.stdout)
    yield pid
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def server() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", SPIN])
    yield process
    process.kill()
    process.wait()


def until_used(pid: int, seconds: float = 0.3) -> None:
    """Wait until a process has used so much CPU time."""
    deadline = time.monotonic() + 60
    while (process := cpu_time.snapshot().processes.get(pid)) is None or process.used_s < seconds:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_another_program_on_the_servers_core_is_seen_and_named(stranger):
    server = replace(target("pytorch"), machine=boot_id(), process=os.getpid(), cores=(CORE,))
    watch = HostWatch(server, cores=())
    until_used(stranger)
    found = watch.seen().others
    assert found is not None
    assert (found.server or 0) > OTHERS_ALLOWED
    assert found.generator is None
    assert "python" in " ".join(one.name for one in found.by)


def test_what_the_server_uses_itself_is_not_anothers(server):
    before = cpu_time.snapshot()
    until_used(server.pid)
    after = cpu_time.snapshot()
    used, own = cpu_time.used_s(before, after, [CORE]), cpu_time.spent_s(before, after, [server.pid])
    assert own >= 0.1
    assert used is not None
    assert used >= own - 0.05  # the kernel's tick
    assert server.pid not in {one.pid for one in cpu_time.others(before, after, [os.getpid()])}


def test_nothing_is_said_of_a_server_on_another_machine(server):
    elsewhere = replace(target("pytorch"), machine="another", process=server.pid, cores=(CORE,))
    seen = HostWatch(elsewhere, cores=()).seen()
    assert (seen.others, seen.server_throttled, seen.server_no_files) == (None, None, 0)


def test_a_server_that_is_refused_file_descriptors_is_known_by_its_log(tmp_path):
    log = tmp_path / "server.log"
    log.write_text("accept: Too many open files\n")  # before the trial
    server = replace(target("pytorch"), machine=boot_id(), process=os.getpid(), log=str(log))
    watch = HostWatch(server, cores=())
    with log.open("a") as lines:
        lines.write("ok\naccept4: Too many open files\njava.io.IOException: Too many open files\n")
    assert watch.seen().server_no_files == 2


def test_a_name_with_brackets_and_a_process_that_ended_are_read(tmp_path):
    def process(pid: int, stat: str) -> None:
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(stat)

    tick = os.sysconf("SC_CLK_TCK")
    process(8, f"8 (a) (b) S 3 8 8 0 -1 0 0 0 0 0 {tick} {tick} {2 * tick} 0 20 0 1 0 5")
    (tmp_path / "9").mkdir()  # gone between the listing and the reading
    (tmp_path / "stat").write_text(f"cpu  1 1 1 1 1 1 1\ncpu4 1 1 1 {tick} {tick} {tick} {tick} 7 0 0\nintr 1\n")
    found = cpu_time.snapshot(Path(tmp_path))
    assert found.processes == {8: cpu_time.Process(parent=3, name="a) (b", used_s=4.0, own_s=2.0)}
    assert found.unused_s == {4: 4.0}
