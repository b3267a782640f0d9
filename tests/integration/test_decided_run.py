"""Two real servers whose capacities are known, from the probe to the report: a default run, but short, which finds
them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from loadtest.analysis import summary
from loadtest.bench import decisions, known_capacity
from loadtest.experiment import plan, records
from loadtest.experiment.file import Experiment
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.scenarios import Capacity, Ladder
from loadtest.report.rebuild import rebuild
from tests.components import require

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

RATIO = 3
NAMES = (known_capacity.QUICK, known_capacity.SLOW)


@dataclass(frozen=True)
class Run:
    """Its folder, the exit status of `make bench-decisions ARGS=--real`, and the verdict that this wrote."""

    folder: RunFolder
    status: int
    verdict: dict[str, Any]


@pytest.fixture(scope="module")
def run(bundle, tmp_path_factory) -> Run:
    require("prometheus")
    whole = known_capacity.experiment

    def short(budget_s: float, seed: int) -> Experiment:
        """With a ladder beside the search, and less of everything."""
        chosen = whole(budget_s, seed)
        return replace(
            chosen,
            scenarios=("ladder", "capacity"),
            ladder=Ladder(duration_s=1.0),
            capacity=Capacity(trials=6),
            warm_up=replace(chosen.warm_up, window_s=0.25, min_s=1.0, max_s=6.0, tolerance=0.3, min_requests=500),
        )

    results = tmp_path_factory.mktemp("results")
    out = results / "verdict.json"
    arguments = ["--real", "--ratio", str(RATIO), "--bundle", str(bundle.folder), "--json", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_capacity, "experiment", short)
        # So small a budget is three starts, and no more.
        status = decisions.VERB.main([*arguments, "--budget", "1", "--results", str(results / "runs")])
    (path,) = (one for one in (results / "runs").iterdir() if not one.is_symlink())
    rebuild(path)
    return Run(RunFolder(path), status, json.loads(out.read_text()))


@pytest.mark.timeout(600)
def test_a_server_that_takes_three_times_as_long_is_found(run):
    assert run.status == 0
    assert run.verdict["winner"] == "quick"
    assert run.verdict["starts"] == 3


def test_every_start_gives_a_capacity_and_latencies_at_shares_of_what_the_slower_probe_found(run):
    folder = run.folder
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


def test_each_start_has_an_environment_of_its_own(run):
    order = run.folder.environment().order
    assert order[:2] == NAMES  # the probes
    assert sorted(order[2:4]) == sorted(order[4:6]) == sorted(order[6:]) == sorted(NAMES)
    assert order[4:6] == order[2:4][::-1]
    assert len(list(Path(run.folder.path, "servers").iterdir())) == 8


def test_the_report_and_the_run_s_decisions_are_of_the_same_starts(run):
    path = run.folder.path
    decided = records.read_decisions(path / "decisions.json")
    assert decided is not None
    assert decided.over
    found = summary.read(path)
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
        assert all(target in (path / name).read_text() for target in NAMES)
