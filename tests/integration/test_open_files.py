"""A run from a shell that may have 1,024 files open (the usual soft limit) beyond that many connections: the limit is
raised for the servers and for the generator, to what the user may have."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.experiment import own_errors, records

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
SOFT, CONNECTIONS = 1024, 1500
SETTINGS = (
    'protocols=["rest"]',  # a connection for each request in flight
    'scenarios=["offline"]',
    f"offline.concurrency={CONNECTIONS}",
    "offline.repetitions=1",
    "offline.duration_s=3.0",
    "offline.lead_in_s=0.5",
    f"profile.queue_capacity={4 * CONNECTIONS}",
    "warm_up.min_s=0.5",
    "warm_up.tolerance=1.0",
    "generator.timeout_s=30.0",
)


def test_both_servers_answer_on_more_connections_than_the_shell_may_have_files(artifacts, tmp_path):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 3 * CONNECTIONS:
        pytest.skip("this user may not have so many files open (ulimit -Hn)")
    arguments = ["compare", "--experiment", "smoke", "--artifacts", str(artifacts), "--results", str(tmp_path)]
    arguments += [word for setting in SETTINGS for word in ("--set", setting)]
    limited = ["sh", "-c", f'ulimit -Sn {SOFT}; exec "$@"', "sh", sys.executable, "-m", "loadtest", *arguments]
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "latest"
    trials = [records.read_trial(path) for path in run.glob("trials/*/trial.json")]
    assert sorted(one.target for one in trials) == ["pytorch", "tensorflow"]
    for trial in trials:
        assert trial.concurrency == CONNECTIONS
        assert trial.requests.ok > 0
        assert not {*own_errors.KINDS, "connection"} & trial.errors.keys(), (trial.target, trial.errors)
    for log in [*run.glob("servers/*/server.log"), *run.glob("generator/*/locust.log")]:
        assert os.strerror(errno.EMFILE) not in log.read_text(errors="replace"), log
