import ast
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.components import missing

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parents[3]
# In a process of its own: a test runner must not keep real-time priority.
WATCH = """
import os, sys
import psutil
from loadtest.generator.punctuality import punctual
with punctual([int(core) for core in sys.argv[1:]]) as how:
    keepers = [(os.sched_getscheduler(child.pid), *child.cpu_affinity()) for child in psutil.Process().children()]
    own = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    print([how, own, sorted(os.sched_getaffinity(0)), keepers])
print([child.pid for child in psutil.Process().children()])
"""


def watch(*cores: int) -> list[list[object]]:
    command = [sys.executable, "-c", WATCH, *map(str, cores)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    return [ast.literal_eval(line) for line in done.stdout.splitlines()]


def test_cores_of_its_own_are_kept_awake_for_a_real_time_generator():
    core = max(os.sched_getaffinity(0))
    (how, own, cores, keepers), left = watch(core)
    if how != "real-time priority, cores kept awake":
        missing("this user may not have real-time priority (run as root, or with CAP_SYS_NICE)")
    assert own == os.SCHED_FIFO
    assert cores == [core]
    assert keepers == [(os.SCHED_IDLE, core)]
    assert left == []


def test_without_cores_of_its_own_it_stays_an_ordinary_process_beside_the_server():
    (how, own, cores, keepers), _ = watch()
    assert how in ("high priority", "ordinary priority")
    assert own == os.SCHED_OTHER
    assert cores == sorted(os.sched_getaffinity(0))
    assert keepers == []


def test_a_core_that_does_not_exist_is_a_problem():
    command = [sys.executable, "-c", WATCH, "4095"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert "cores = [4095]: cannot stay on them" in done.stderr


@pytest.mark.skipif(not hasattr(psutil.cpu_times(), "steal"), reason="no steal time here")
def test_the_share_that_the_host_took_is_between_nothing_and_everything():
    source = """
from loadtest.generator.punctuality import stolen_share, wake_ups_ms
before, first = stolen_share()
wake_ups_ms(100)
print(first, stolen_share(before)[1])
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT, check=True)
    first, second = map(float, done.stdout.split())
    assert first == 0
    assert 0 <= second <= 1
