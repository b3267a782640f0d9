"""What control groups allow: read from trees of files as both versions have them, and from a real group where one can
be made."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtest.experiment import cgroups
from loadtest.experiment.records import Throttling


def write(root: Path, **files: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)


def of_process(tmp_path: Path, lines: str) -> tuple[Path, ...]:
    write(tmp_path / "proc" / "7", cgroup=lines)
    return cgroups.folders(7, tmp_path / "proc", tmp_path / "cgroup")


def test_version_2_has_the_tightest_quota_of_all_levels_and_what_each_stopped(tmp_path):
    root = tmp_path / "cgroup"
    write(root, cgroup__procs="", cpu__stat="usage_usec 5\n")
    write(
        root / "user", cpu__max="60000 100000\n", cpu__stat="nr_periods 40\nnr_throttled 29\nthrottled_usec 1500000\n"
    )
    write(root / "user" / "job", cpu__max="max 100000\n", cpu__stat="nr_throttled 1\nthrottled_usec 20000\n")
    found = of_process(tmp_path, "0::/user/job\n")
    assert found == (root / "user" / "job", root / "user", root)
    assert cgroups.quota(found) == 0.6
    assert cgroups.throttled(found) == Throttling(periods=30, seconds=1.52)


def test_version_1_has_the_same_under_other_names(tmp_path):
    root = tmp_path / "cgroup" / "cpu,cpuacct"
    write(root, cpu__stat="nr_throttled 0\nthrottled_time 0\n", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    stat = "nr_periods 9\nnr_throttled 3\nthrottled_time 250000000\n"
    write(root / "job", cpu__cfs_quota_us="150000\n", cpu__cfs_period_us="100000\n", cpu__stat=stat)
    found = of_process(tmp_path, "4:memory:/job\n3:cpu,cpuacct:/job\n")
    assert found == (root / "job", root)
    assert cgroups.quota(found) == 1.5
    assert cgroups.throttled(found) == Throttling(periods=3, seconds=0.25)


def test_a_container_that_sees_its_own_group_as_the_outermost_is_read_there(tmp_path):
    root = tmp_path / "cgroup"
    write(root, cgroup__procs="", cpu__max="200000 100000\n")
    assert cgroups.quota(of_process(tmp_path, "0::/docker/abc\n")) == 2.0
    assert cgroups.quota(of_process(tmp_path, "0::/../../elsewhere\n")) == 2.0


@pytest.mark.parametrize("text", ["", "0::/\n", "nonsense\n"])
def test_nothing_is_known_where_there_is_no_group(tmp_path, text):
    found = of_process(tmp_path, text)
    assert cgroups.quota(found) is None
    assert cgroups.throttled(found) == Throttling(periods=0, seconds=0.0)


def test_only_what_was_added_counts():
    before, now = Throttling(periods=3, seconds=0.25), Throttling(periods=5, seconds=0.75)
    assert cgroups.since(before, now) == Throttling(periods=2, seconds=0.5)
    assert cgroups.since(now, now) is None


def test_a_real_group_says_that_it_stops_a_busy_program():
    made = group()
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        (made / "cgroup.procs").write_text(str(spinning.pid))
        groups = cgroups.folders(spinning.pid)
        assert groups[0] == made
        assert cgroups.quota(groups) == 0.1
        before, deadline = cgroups.throttled(groups), time.monotonic() + 30
        while (found := cgroups.since(before, cgroups.throttled(groups))) is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert found.periods > 0
    finally:
        spinning.kill()
        spinning.wait()
        deadline = time.monotonic() + 10
        while made.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # busy until the kernel has let go of the process
                made.rmdir()


def group() -> Path:
    """A new group that may use a tenth of a CPU."""
    for parent, files in (
        (Path("/sys/fs/cgroup/cpu"), {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "10000"}),
        (Path("/sys/fs/cgroup"), {"cpu.max": "10000 100000"}),
    ):
        made = parent / "tandem-test"
        try:
            made.mkdir()
            for name, text in files.items():
                (made / name).write_text(text)
            return made
        except OSError:
            with contextlib.suppress(OSError):
                made.rmdir()
    pytest.skip("this user cannot make a control group")
