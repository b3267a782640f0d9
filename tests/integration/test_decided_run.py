"""Two real servers asked for their capacities and latencies, from the probe to the report: a default run, but short."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from loadtest.analysis import summary
from loadtest.experiment import file as experiment
from loadtest.experiment import plan, records
from loadtest.experiment.progress import RunProgress
from loadtest.experiment.run import run as run_experiment
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes.process import LocalTargets
from loadtest.report.rebuild import rebuild
from serving.cores import split_cores

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

EXPERIMENT = """
name = "decided"
dataset = "digits"
targets = ["tensorflow", "unbatched"]
protocols = ["grpc"]
decision = { budget_s = 1.0 } # three starts, and no more
ladder = { duration_s = 1.0 }
capacity = { trials = 3, duration_s = 1.0 }

[[target]]
name = "unbatched"
engine = "tensorflow-serving"
profile = { max_batch_size = 1 }

[warm_up]
window_s = 0.25
min_s = 1.0
max_s = 4.0
settle_s = 0.0
min_requests = 0
tolerance = 0.5
"""
NAMES = ("tensorflow", "unbatched")


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory) -> RunFolder:
    asked = experiment.parse(EXPERIMENT)
    folder = RunFolder.open(tmp_path_factory.mktemp("results"), asked, bundle.digest, fresh=True)
    folder.write("model-time.json", {name: {"problem": "left out, to be quick"} for name in NAMES})
    servers = LocalTargets(folder, [bundle], asked, split_cores(sorted(os.sched_getaffinity(0))), programs={})
    with RunProgress() as progress:
        run_experiment(asked, [bundle], servers, folder, progress)
    rebuild(folder.path)
    return folder


@pytest.mark.timeout(500)
def test_every_start_gives_a_capacity_and_latencies_at_shares_of_what_the_slower_probe_found(folder):
    resolved = folder.experiment()
    searches = folder.searches()
    assert Counter((one.target, one.repetition) for one in searches) == {(n, b): 1 for n in NAMES for b in (1, 2, 3)}
    centres = {number: {one.centre for one in searches if one.repetition == number} for number in (1, 2, 3)}
    assert all(len(one) == 1 for one in centres.values())
    assert all(one.sd for one in searches if one.tries)
    ladder = resolved.ladder
    slower = min(found["grpc"] for found in folder.read("probe.json").values())
    assert ladder.rates["grpc"] == tuple(plan.rounded(share * slower) for share in (0.3, 0.6, 0.85))
    assert ladder.overload_rates["grpc"] == plan.rounded(1.2 * slower)
    trials = [records.read_trial(path / "trial.json") for path in folder.trials()]
    at = Counter((one.target, one.offered_rate) for one in trials if one.scenario == "ladder")
    for name in NAMES:
        assert [at[name, rate] for rate in ladder.rates["grpc"]] == [3, 3, 3]
        assert at[name, ladder.overload_rates["grpc"]] == 1
    for one in trials:
        assert one.requests.ok > 0
        assert (folder.trial(one.id) / "server.json").exists() or not folder.environment().prometheus


def test_each_start_has_an_environment_of_its_own(folder):
    order = folder.environment().order
    assert order[:2] == NAMES  # the probes
    assert sorted(order[2:4]) == sorted(order[4:6]) == sorted(order[6:]) == sorted(NAMES)
    assert order[4:6] == order[2:4][::-1]
    assert len(list(Path(folder.path, "servers").iterdir())) == 8


def test_the_report_and_the_run_s_decisions_are_of_the_same_starts(folder):
    decided = records.read_decisions(folder.path / "decisions.json")
    assert decided is not None
    assert decided.over
    found = summary.read(folder.path)
    verdicts = {(one.family, one.protocol, one.offered_rate or 0.0): one for one in found.verdicts}
    assert len(decided.questions) == 1 + 3
    for one in decided.questions:
        assert one.starts <= 3
        assert (one.family, one.protocol, one.rate) in verdicts
        verdict = verdicts[one.family, one.protocol, one.rate]
        assert verdict.compared == one.compared
        if verdict.winner:
            assert one.decided
    assert {one.target for one in found.capacity} == set(NAMES)
    for name in ("report.html", "report.md"):
        assert "unbatched" in (folder.path / name).read_text()
