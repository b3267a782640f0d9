"""The run loop, from the probe to decisions.json, with simulated servers (see `simulated_run`)."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadtest.experiment import decision, plan, records, standing, starts, steps
from loadtest.experiment.events import Event, Stopped
from loadtest.experiment.file import Experiment
from loadtest.experiment.load_job import JobLost, LoadJob
from loadtest.experiment.questions import Family, Metric, Question
from loadtest.experiment.records import (
    BusyMachine,
    ClockSet,
    CpuQuota,
    Environment,
    FewFiles,
    GeneratorReplaced,
    OtherProcess,
    ServerReplaced,
    TrialRecord,
)
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.scenarios import Capacity, Ladder, SingleStream
from loadtest.experiment.settings import Decision
from loadtest.experiment.target_specs import TargetSpec
from loadtest.experiment.wall_clock import WallClock
from loadtest.report import warning_words
from models.problem import Problem
from serving.replaced import Replaced, Successor
from tests.loadtest.experiment.simulated_run import Killed, Ran, Server, Servers, run

BOTH = ("pytorch", "tensorflow")
FAST = Server({"grpc": 2400.0, "rest": 1500.0})
SLOW = Server({"grpc": 800.0, "rest": 500.0}, p99_ms=20.0)
CAPACITIES = [("grpc", 0.0), ("rest", 0.0)]


def questions(ran: Ran, family: Family) -> list[tuple[str, float, int, bool]]:
    """(protocol, rate, starts, decided) of a family's."""
    return [
        (one.protocol, one.rate, one.starts, one.decided) for one in ran.decisions.questions if one.family is family
    ]


def figures(ran: Ran) -> starts.Figures:
    unsteady = {one.id for one in ran.folder.warm_ups() if not one.steady}
    return starts.figures(ran.trials, ran.folder.searches(), ran.folder.experiment().slo, unsteady)


def ratio(ran: Ran, protocol: str, metric: Metric = Metric.CAPACITY, rate: float = 0.0) -> float:
    family = Family.CAPACITY if metric is Metric.CAPACITY else Family.LATENCY
    found = starts.comparison(Question(family, metric, protocol, BOTH, rate), figures(ran))
    assert found is not None
    return found.ratio


def seconds(trials: list[TrialRecord]) -> float:
    return sum(one.lead_in_s + one.duration_s for one in trials if one.scenario in ("capacity", "ladder"))


@pytest.fixture(scope="module")
def threefold(tmp_path_factory) -> Ran:
    """The default experiment, where one server is three times as good."""
    return run(tmp_path_factory.mktemp("threefold"), Experiment(), {"pytorch": SLOW, "tensorflow": FAST})


def test_what_the_machine_keeps_from_a_run_is_told_at_once_and_written_down(tmp_path):
    ladder = Ladder(rates={"rest": (200.0,)}, overload=0.0, repetitions=1)
    asked = Experiment(protocols=("rest",), scenarios=("ladder",), ladder=ladder)
    by = (OtherProcess(name="cc1", pid=42, cpus=0.8),)
    machine = Environment(cpus=(0, 1), cpu_quota=0.6, busy_at_start=0.4, busy_by=by, open_files=1024)
    ran = run(tmp_path / "busy", asked, {"pytorch": SLOW, "tensorflow": FAST}, machine=machine)
    expected = (
        BusyMachine(share=0.4, allowed=0.1, by=by),
        CpuQuota(cpus=0.6, of=2),
        FewFiles(allowed=1024, needed=4608),  # max_in_flight connections, and the server's own files
    )
    kinds = BusyMachine | CpuQuota | FewFiles
    assert tuple(note for note in ran.folder.environment().warnings if isinstance(note, kinds)) == expected
    told = [step.note for step in ran.told.steps if isinstance(step, steps.Noted)]
    assert tuple(note for note in told if isinstance(note, kinds)) == expected
    assert told == [
        step.note for step in ran.told.steps[: len(told)] if isinstance(step, steps.Noted)
    ]  # before any load
    # Over gRPC a few connections carry all requests.
    free = Environment(cpus=(0, 1), cpu_quota=2.0, busy_at_start=0.1, open_files=1024)
    over_grpc = replace(asked, protocols=("grpc",), ladder=replace(ladder, rates={"grpc": (200.0,)}))
    ran = run(tmp_path / "free", over_grpc, {"pytorch": SLOW, "tensorflow": FAST}, machine=free)
    assert not [note for note in ran.folder.environment().warnings if isinstance(note, kinds)]


def test_a_threefold_difference_is_decided_in_three_blocks(threefold):
    assert questions(threefold, Family.CAPACITY) == [("grpc", 0.0, 3, True), ("rest", 0.0, 3, True)]
    assert all(one.p_adjusted < 0.05 for one in threefold.decisions.questions if one.decided)
    assert ratio(threefold, "grpc") == pytest.approx(1 / 3, rel=0.15)
    assert ratio(threefold, "rest") == pytest.approx(1 / 3, rel=0.15)
    main = threefold.folder.experiment().ladder.main_rates
    assert questions(threefold, Family.LATENCY) == [(name, main[name], 3, True) for name in ("grpc", "rest")]
    for protocol, rate in main.items():
        # The probe finds 1.2 of the capacity, so 20 ms / (1 - 0.72/2) against 10 ms / (1 - 0.24/2).
        assert ratio(threefold, protocol, Metric.P99, rate) == pytest.approx(2 * 0.88 / 0.64, rel=0.15)
    # Both are measured on every start from the first on.
    assert Counter(one.repetition for one in threefold.folder.searches()) == {1: 4, 2: 4, 3: 4}
    assert {one.repetition for one in threefold.trials if one.scenario == "ladder"} == {1, 2, 3}
    assert seconds(threefold.trials) < Experiment().decision.budget_s
    assert threefold.decisions.over


def test_every_block_starts_each_server_once_and_a_server_s_environment_is_never_the_same(threefold):
    names = [name for name, _ in threefold.servers.used]
    assert names[:2] == list(BOTH)  # the probes
    blocks = list(zip(names[2::2], names[3::2], strict=True))
    assert len(blocks) == 3
    assert all(sorted(block) == sorted(BOTH) for block in blocks)
    assert blocks[1] == blocks[0][::-1]
    assert list(threefold.folder.environment().order) == names
    offsets = [offset for _, offset in threefold.servers.used[2:]]
    assert len(set(offsets)) == len(offsets) == 6


def test_both_servers_are_searched_from_one_centre_with_the_same_first_arrivals(threefold):
    probed = threefold.folder.read("probe.json")
    for protocol in ("grpc", "rest"):
        middle = plan.rounded(math.sqrt(probed["pytorch"][protocol] * probed["tensorflow"][protocol]))
        assert threefold.folder.experiment().capacity.rates[protocol] == (middle,)
        centres: dict[int, set[float]] = {}
        for one in threefold.folder.searches():
            if one.protocol == protocol:
                centres.setdefault(one.repetition, set()).add(one.centre)
        assert all(len(found) == 1 for found in centres.values())
        assert len({found.copy().pop() for found in centres.values()}) == 3
        assert all(abs(math.log(one / middle)) < 0.151 for found in centres.values() for one in found)
    first = {one.id: (one.offered_rate, one.seed) for one in threefold.trials if one.id.endswith("-1")}
    for number in (1, 2, 3):
        for protocol in ("grpc", "rest"):
            assert (
                first[f"pytorch-{protocol}-capacity-r{number}-1"]
                == first[f"tensorflow-{protocol}-capacity-r{number}-1"]
            )


def test_latencies_are_compared_at_shares_of_what_the_slower_target_s_probe_found(threefold):
    ladder = threefold.folder.experiment().ladder
    probed = threefold.folder.read("probe.json")
    for protocol in ("grpc", "rest"):
        slower = probed["pytorch"][protocol]
        assert slower == pytest.approx(1.2 * SLOW.capacity[protocol])
        assert slower < probed["tensorflow"][protocol]
        assert ladder.rates[protocol] == tuple(plan.rounded(share * slower) for share in (0.3, 0.6, 0.85))
        assert ladder.overload_rates[protocol] == plan.rounded(1.2 * slower)
    assert [one.rates for one in threefold.told.steps if isinstance(one, steps.RatesChosen)] == [ladder.rates]
    told = [type(one) for one in threefold.told.steps]
    assert told.index(steps.RatesChosen) < min(told.index(steps.SearchEnded), told.index(steps.TrialEnded))
    # Each once on every start of a ladder, and overload once for each target.
    measured = Counter(
        (one.target, one.protocol, one.offered_rate) for one in threefold.trials if one.scenario == "ladder"
    )
    for name in BOTH:
        for protocol in ("grpc", "rest"):
            assert [measured[name, protocol, rate] for rate in ladder.rates[protocol]] == [3, 3, 3]
            assert measured[name, protocol, ladder.overload_rates[protocol]] == 1
    above = [one for one in threefold.trials if one.offered_rate == ladder.overload_rates[one.protocol]]
    assert {one.repetition for one in above if one.scenario == "ladder"} == {1}
    assert {one.rate for one in threefold.decisions.questions} == {0.0, *ladder.rates["grpc"], *ladder.rates["rest"]}


def test_the_terminal_hears_of_every_look_that_decided_something_and_of_the_end(threefold):
    looked = [one for one in threefold.told.steps if isinstance(one, steps.Looked)]
    assert (looked[0].starts, looked[0].decided, looked[0].asked, looked[0].over) == (3, 7, 8, False)
    assert (looked[-1].starts, looked[-1].asked, looked[-1].over) == (3, 8, True)
    assert looked[-1].decided == sum(one.decided for one in threefold.decisions.questions)
    assert [one.over for one in looked].count(True) == 1
    ended = [one for one in threefold.told.steps if isinstance(one, steps.SearchEnded | steps.TrialEnded)]
    assert len(ended) == 12 + sum(one.scenario == "ladder" for one in threefold.trials)
    assert threefold.told.planned_s > seconds(threefold.trials)


def test_a_run_that_has_ended_is_not_gone_on_with(threefold):
    results = threefold.folder.path.parent
    assert RunFolder.open(results, Experiment(), "digest").path != threefold.folder.path


def test_its_end_follows_from_its_files_alone(threefold):
    asked = threefold.folder.experiment()
    planned = standing.looks(asked)
    stand = standing.stand(plan.questions(asked), figures(threefold), planned, over=True)
    assert threefold.decisions.looks == planned
    assert [(one.starts, one.decision.decided, one.decision.p_adjusted) for one in stand] == [
        (one.starts, one.decided, one.p_adjusted) for one in threefold.decisions.questions
    ]
    assert standing.following(asked, 4, stand, threefold.trials) == []


BUDGET_S = 100.0
SMALL = Experiment(protocols=("grpc",), capacity=Capacity(trials=3), decision=Decision(budget_s=BUDGET_S))
CLOSE = {"pytorch": SLOW, "tensorflow": replace(SLOW, capacity={"grpc": 1100.0, "rest": 600.0})}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Ran:
    return run(tmp_path_factory.mktemp("whole"), SMALL, CLOSE)


def content(ran: Ran) -> list[Any]:
    """Trials but for when they were made, and after which warm-up."""
    return [msgspec.structs.replace(one, started_at=0.0, ended_at=0.0, warm_up=None) for one in ran.trials]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 80), min_size=1, max_size=2))
def test_a_run_that_is_killed_anywhere_and_run_again_makes_the_same_trials_and_decides_the_same(
    tmp_path_factory, whole, cuts
):
    folder: Path = tmp_path_factory.mktemp("killed")
    left = len(whole.trials)
    for cut in cuts:
        if cut < left:
            with pytest.raises(Killed):
                run(folder, SMALL, CLOSE, trials=cut)
            left -= cut
    ran = run(folder, SMALL, CLOSE)
    assert len(ran.servers.made) == left
    assert len(list((folder / "results").glob("*-default"))) == 1
    assert content(ran) == content(whole)
    assert ran.decisions == whole.decisions
    assert ran.folder.experiment() == whole.folder.experiment()
    searches = [
        [(one.id, one.centre, one.rate, one.sd, one.steps) for one in x.folder.searches()] for x in (ran, whole)
    ]
    assert searches[0] == searches[1]


class Gone(Servers):
    """Servers of a cluster whose namespace has been removed."""

    def use(self, name: str, now: Callable[[str], None], offset: int = 0) -> None:
        raise Problem(f"{name}: gone from the cluster while it rolled out", ["event FailedMount: no such volume"])

    def stop(self) -> None:
        raise Problem("the servers' replicas could not be put back")


def test_what_went_wrong_first_is_told_where_stopping_fails_too(tmp_path):
    with pytest.raises(
        Problem, match="gone from the cluster while it rolled out; and then the servers' repl"
    ) as caught:
        run(tmp_path, SMALL, CLOSE, kind=Gone)
    assert caught.value.details == ("event FailedMount: no such volume",)


def test_what_is_measured_is_not_measured_again(tmp_path, whole):
    with pytest.raises(Killed):
        run(tmp_path, SMALL, CLOSE, trials=11)
    again = run(tmp_path, SMALL, CLOSE)
    assert len(again.servers.made) == len(whole.trials) - 11
    (told,) = [one for one in again.told.steps if isinstance(one, steps.Resumed)]
    assert told.measured == 11
    # Servers whose trials were all there were not started again; the probes neither.
    assert len(again.servers.used) < len(whole.servers.used) - 2
    assert again.servers.used[-3:] == whole.servers.used[-3:]


def test_equal_servers_end_undecided_when_the_budget_is_spent(tmp_path):
    ran = run(tmp_path, SMALL, {"pytorch": SLOW, "tensorflow": SLOW})
    assert not any(one.decided for one in ran.decisions.questions)
    last = max(one.repetition for one in ran.trials)
    assert last > 3
    experiment = ran.folder.experiment()
    made = {one.scenario for one in ran.trials if one.repetition == last}
    asked = [one for one in plan.questions(experiment) if one.metric is Metric.CAPACITY or "ladder" in made]
    before = standing.spent(experiment, [one for one in ran.trials if one.repetition < last])
    assert before + standing.cost(experiment, plan.block(experiment, last, asked)) <= BUDGET_S  # one more fitted
    capacities = [one for one in asked if one.metric is Metric.CAPACITY]
    spent = standing.spent(experiment, ran.trials)
    assert spent + standing.cost(experiment, plan.block(experiment, last + 1, capacities)) > BUDGET_S
    assert spent < 1.1 * BUDGET_S
    assert ran.decisions.over
    # The last look came before it was planned, and had the last look's share of the error.
    (capacity,) = [one for one in ran.decisions.questions if one.family is Family.CAPACITY]
    assert capacity.starts == last


def test_a_fixed_number_of_starts_is_what_is_made_and_there_is_one_look(tmp_path):
    fixed = replace(SMALL, capacity=Capacity(trials=3, repetitions=5), ladder=Ladder(repetitions=5))
    ran = run(tmp_path, fixed, {"pytorch": SLOW, "tensorflow": FAST})
    assert ran.decisions.looks == (5,)
    assert Counter((one.target, one.protocol) for one in ran.folder.searches()) == {(name, "grpc"): 5 for name in BOTH}
    assert {one.starts for one in ran.decisions.questions} == {5}
    assert {one.repetition for one in ran.trials if one.scenario == "ladder"} == {1, 2, 3, 4, 5}
    assert [one.decided for one in ran.decisions.questions if one.family is Family.CAPACITY] == [True]
    looked = [one for one in ran.told.steps if isinstance(one, steps.Looked)]
    assert looked[0].starts == 5
    probes = 2
    assert len(ran.servers.used) == probes + 2 * 5


def test_the_ladder_alone_asks_at_the_rates_that_are_given(tmp_path):
    given_rates = Ladder(rates={"grpc": (100.0, 300.0)}, rate=300.0)
    ran = run(tmp_path, replace(SMALL, scenarios=("ladder",), ladder=given_rates), CLOSE)
    assert not (ran.folder.path / "probe.json").exists()
    assert [(one.rate, one.family) for one in ran.decisions.questions] == [
        (100.0, Family.REST),
        (300.0, Family.LATENCY),
    ]
    assert {one.offered_rate for one in ran.trials} == {100.0, 300.0}
    assert min(Counter(one.repetition for one in ran.trials)) == 1


def test_a_ladder_whose_rates_are_to_be_found_is_probed_for_though_the_searches_centres_are_given(tmp_path):
    centred = replace(SMALL, capacity=Capacity(trials=3, rates={"grpc": (900.0,)}))
    ran = run(tmp_path, centred, CLOSE)
    assert ran.folder.read("probe.json")["pytorch"]["grpc"] == pytest.approx(960.0)
    resolved = ran.folder.experiment()
    assert resolved.capacity.rates == {"grpc": (900.0,)}
    assert resolved.ladder.rates == {"grpc": (290.0, 580.0, 820.0)}  # shares of 960


def test_three_targets_are_compared_two_by_two_and_one_alone_is_measured(tmp_path):
    third = replace(SMALL, targets=(*SMALL.targets, TargetSpec("unbatched", "torchserve")), decision=Decision(200.0))
    ran = run(tmp_path / "three", third, {"pytorch": SLOW, "tensorflow": FAST, "unbatched": SLOW})
    capacities = {one.compared: one for one in ran.decisions.questions if one.family is Family.CAPACITY}
    assert len(capacities) == 3
    assert capacities["pytorch", "tensorflow"].decided
    assert capacities["tensorflow", "unbatched"].decided
    assert not capacities["pytorch", "unbatched"].decided
    counts = Counter(one.target for one in ran.folder.searches())
    assert counts["tensorflow"] < counts["pytorch"] == counts["unbatched"]
    alone = run(tmp_path / "one", replace(SMALL, targets=SMALL.targets[:1]), {"pytorch": SLOW})
    assert alone.decisions.questions == ()
    assert Counter(one.repetition for one in alone.folder.searches()) == {1: 1, 2: 1, 3: 1}
    assert alone.folder.experiment().ladder.rates["grpc"]


def test_a_start_whose_warm_up_was_not_steady_is_not_counted(tmp_path):
    restless = replace(FAST, unsteady=frozenset({2}))
    ran = run(tmp_path, SMALL, {"pytorch": SLOW, "tensorflow": restless})
    found = figures(ran)[starts.Subject(Metric.CAPACITY, "tensorflow", "grpc")]
    assert 2 not in found
    (capacity,) = [one for one in ran.decisions.questions if one.family is Family.CAPACITY]
    assert capacity.decided
    assert capacity.starts >= 3
    assert max(found) >= 4  # another start took its place
    (noted,) = [one for one in ran.told.steps if isinstance(one, steps.WarmUpNotSteady)]
    assert (noted.target, noted.protocol) == ("tensorflow", "grpc")


def test_scenarios_that_decide_nothing_are_run_as_often_as_they_ask_whatever_the_budget(tmp_path):
    single = SingleStream(repetitions=7, duration_s=1.0)
    asked = replace(SMALL, scenarios=("capacity", "ladder", "single-stream"), single_stream=single)
    ran = run(tmp_path, replace(asked, decision=Decision(1.0)), CLOSE)
    counts = Counter((one.target, one.scenario) for one in ran.trials if one.scenario == "single-stream")
    assert counts == {(name, "single-stream"): 7 for name in BOTH}
    # Three starts are made of what decides, however small its budget is.
    assert {one.repetition for one in ran.trials if one.scenario == "capacity"} == {1, 2, 3}
    assert {one.repetition for one in ran.trials if one.scenario == "ladder"} == {1, 2, 3}


def test_a_winner_s_error_is_that_of_all_looks_and_questions(threefold):
    asked = threefold.folder.experiment()
    found = figures(threefold)
    values = {}
    for question in plan.questions(asked):
        compared = starts.comparison(question, found, 3)
        values[question] = [compared.p_value if compared else None]
    decided = decision.decide(values, len(threefold.decisions.looks))
    assert {question for question, one in decided.items() if one.decided} == {
        Question(one.family, one.metric, one.protocol, one.compared, one.rate)
        for one in threefold.decisions.questions
        if one.decided and one.starts == 3
    }


def test_a_clock_that_is_set_back_while_a_run_goes_on_is_noted_once(tmp_path, monkeypatch):
    looks = iter([0.0, -3600.0])  # during the second start's load
    monkeypatch.setattr(WallClock, "step_s", lambda _: next(looks, 0.0))
    trials = SingleStream(repetitions=1, duration_s=1.0, lead_in_s=0.1)
    asked = Experiment(name="set-back", protocols=("rest",), scenarios=("single-stream",), single_stream=trials)
    ran = run(tmp_path, asked, {name: Server({"rest": 300.0}) for name in asked.target_names})
    (note,) = [one for one in ran.folder.environment().warnings if isinstance(one, ClockSet)]
    assert note.step_s == -3600.0
    assert "was set 3,600 s back" in warning_words.warning(note)
    assert steps.Noted(note) in ran.told.steps


def test_a_server_that_failed_too_often_is_quoted_where_its_load_stops(tmp_path, monkeypatch):
    def refused(_: Servers, job: LoadJob, *, on_event: Callable[[Event], None], **__: Any) -> None:
        kinds = {"http_503": 28, "timeout": 2}
        on_event(Stopped(id=job.phases[0].id, failed=30, of=50, kinds=kinds, said="try again later"))

    monkeypatch.setattr(Servers, "run_phases", refused)
    trials = SingleStream(repetitions=1, duration_s=1.0, lead_in_s=0.1)
    asked = Experiment(name="refused", protocols=("rest",), scenarios=("single-stream",), single_stream=trials)
    asked = replace(asked, targets=asked.targets[:1])
    with pytest.raises(Problem) as caught:
        run(tmp_path, asked, {name: Server({"rest": 300.0}) for name in asked.target_names})
    assert str(caught.value) == (
        "target.pytorch: 30 of the latest 50 requests failed (28 × http_503, 2 × timeout): stopped, since "
        "generator.stop_error_ratio = 0.5; what was measured before is kept; the first said: try again later"
    )


def test_the_generator_gets_paths_that_hold_in_its_own_folder(tmp_path, monkeypatch):
    jobs = []
    real = Servers.run_phases

    def kept(servers: Servers, job: LoadJob, **callbacks: Any) -> None:
        jobs.append(job)
        real(servers, job, **callbacks)

    monkeypatch.setattr(Servers, "run_phases", kept)
    monkeypatch.chdir(tmp_path)
    trials = SingleStream(repetitions=1, duration_s=1.0, lead_in_s=0.1)
    asked = Experiment(name="relative", protocols=("rest",), scenarios=("single-stream",), single_stream=trials)
    ran = run(Path("below"), asked, {name: Server({"rest": 300.0}) for name in asked.target_names})
    assert ran.folder.path.parent == tmp_path / "below" / "results"
    paths = [path for job in jobs for path in (job.folder, job.reference, *(phase.folder for phase in job.phases))]
    assert paths
    assert all(path.is_absolute() for path in paths)


def test_a_clock_that_was_set_back_between_two_halves_of_a_run_is_noted(tmp_path):
    trials = SingleStream(repetitions=2, duration_s=1.0, lead_in_s=0.1)
    asked = Experiment(name="halves", protocols=("rest",), scenarios=("single-stream",), single_stream=trials)
    servers = {name: Server({"rest": 300.0}) for name in asked.target_names}
    with pytest.raises(Killed):
        run(tmp_path, asked, servers, trials=2)
    (path,) = tmp_path.glob("results/*-halves/trials/pytorch-*/trial.json")
    saved = records.read_trial(path)
    path.write_text(records.encode(msgspec.structs.replace(saved, ended_at=time.time() + 3600)))
    ran = run(tmp_path, asked, servers)
    (note,) = [one for one in ran.folder.environment().warnings if isinstance(one, ClockSet)]
    assert note.step_s == pytest.approx(-3600, abs=60)
    assert steps.Noted(note) in ran.told.steps


TWO_RATES = replace(SMALL, scenarios=("ladder",), ladder=Ladder(rates={"grpc": (100.0, 300.0)}, repetitions=2))


class Happens:
    """Something that happens so often while a trial of that name is made."""

    def __init__(self, trial: str, what: Problem, times: int) -> None:
        self.trial, self.what, self.left = trial, what, times

    def __call__(self, trial: str) -> None:
        if trial == self.trial and self.left:
            self.left -= 1
            raise self.what


OOM = Replaced(Successor.CONTAINER, "its container died", ["last words"], reason="OOMKilled", exit_status=137)


def test_a_start_whose_server_was_replaced_is_repeated_from_its_beginning_and_says_so(tmp_path):
    whole = run(tmp_path / "whole", TWO_RATES, CLOSE)
    block = [one.id for one in whole.trials if (one.target, one.repetition) == ("tensorflow", 2)]
    last = whole.servers.made[max(whole.servers.made.index(one) for one in block)]
    happens = Happens(last, OOM, times=1)
    ran = run(tmp_path / "replaced", TWO_RATES, CLOSE, meanwhile=happens)
    (note,) = [one for one in ran.folder.environment().warnings if isinstance(one, ServerReplaced)]
    assert (note.target, note.start, note.what, note.reason) == ("tensorflow", 2, Successor.CONTAINER, "OOMKilled")
    assert steps.Noted(note) in ran.told.steps
    said = warning_words.warning(note)
    assert "the server was replaced" in said
    assert "(OOMKilled, exit status 137); start 2 was repeated from its beginning" in said
    # What it had measured by then is beside the results, and was measured again on a server of its own.
    aside = sorted(path.name for path in (ran.folder.path / "replaced").iterdir())
    first = next(one for one in block if one != last)
    assert [name for name in aside if name.startswith(first)] == [f"{first}-1"]
    assert len(aside) == 2  # and the warm-up
    assert Counter(ran.servers.made)[first] == 2
    assert len(ran.servers.used) == len(whole.servers.used) + 1
    assert content(ran) == content(whole)
    assert {path.parent.name for path in ran.folder.path.glob("warm-ups/*/warm-up.json")} >= {
        one.warm_up for one in ran.trials
    }


def test_a_server_that_is_replaced_again_and_again_ends_the_run_and_keeps_what_was_measured_before(tmp_path):
    whole = run(tmp_path / "whole", TWO_RATES, CLOSE)
    last = whole.servers.made[-1]
    with pytest.raises(Problem) as caught:
        run(tmp_path / "replaced", TWO_RATES, CLOSE, meanwhile=Happens(last, OOM, times=9))
    assert "the server was replaced under this load, 3 times in a row" in str(caught.value)
    assert "its container died; the same command goes on from there" in str(caught.value)
    assert caught.value.details == ("last words",)
    ran = run(tmp_path / "replaced", TWO_RATES, CLOSE)
    assert content(ran) == content(whole)
    assert len(ran.servers.made) == len([one for one in whole.trials if one.repetition == 2]) / 2  # the last start


def test_where_the_load_generator_was_replaced_what_came_home_is_kept(tmp_path):
    whole = run(tmp_path / "whole", TWO_RATES, CLOSE)
    last = whole.servers.made[-1]
    ran = run(tmp_path / "lost", TWO_RATES, CLOSE, meanwhile=Happens(last, JobLost("another pod"), times=1))
    (note,) = [one for one in ran.folder.environment().warnings if isinstance(one, GeneratorReplaced)]
    assert note.start == 2
    assert "the load generator was replaced" in warning_words.warning(note)
    assert Counter(ran.servers.made) == Counter(whole.servers.made)  # none was made twice
    assert not (ran.folder.path / "replaced").exists()
    assert content(ran) == content(whole)
