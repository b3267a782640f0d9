"""A capacity search: the runner's own decisions, with workers whose server and time are simulated."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.experiment import events, records, staircase
from loadtest.experiment.early_stopping import LONGEST_S, lasting_s
from loadtest.experiment.events import PhaseEnded, PhaseStarted, Spoiled, Tried
from loadtest.experiment.phases import OpenLoopPhase, Plan, SearchPhase, TrialPhase
from loadtest.experiment.records import SearchRecord, SentLate, TooSlow
from loadtest.experiment.scenarios import Capacity
from loadtest.experiment.staircase import Try
from loadtest.generator import phase_runner
from models.problem import Problem
from tests.loadtest.generator.simulated_workers import SimulatedWorkers, rate_of, takes
from tests.serving.targets import target

ASKED = Capacity()
TARGET = target("pytorch")


def phase(folder: Path, centre: float = 500.0, **values: float) -> SearchPhase:
    trial = OpenLoopPhase(
        id="s",
        folder=folder / "trials" / "s",
        protocol="rest",
        seed=1,
        scenario="capacity",
        rate=centre,
        duration_s=1.25,
        lead_in_s=0.25,
        limit_ms=50.0,
        repetition=3,
        warm_up="w-r3",
    )
    asked = {"most": ASKED.trials, "precision": ASKED.precision, **values}
    return SearchPhase(
        id="s",
        folder=folder / "searches" / "s",
        trials=folder / "trials",
        trial=trial,
        p99_ms=50.0,
        error_ratio=0.001,
        most=int(asked["most"]),
        precision=asked["precision"],
    )


def search(
    folder: Path, workers: SimulatedWorkers, centre: float = 500.0, **values: float
) -> tuple[SearchRecord, list[events.Event]]:
    """The search's record, and what it said."""
    searched, out = phase(folder, centre, **values), io.StringIO()
    plan = Plan(target=TARGET, reference=folder / "reference.npz", phases=(searched,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phase_runner, "clock", lambda: workers.now)
        phase_runner.Generator(plan, workers, out).run()
    said = [events.decode(line) for line in out.getvalue().splitlines()]
    return records.read_search(folder / "searches" / "s" / "search.json"), said


@pytest.mark.parametrize("capacity", [70.0, 200.0, 333.0, 500.0, 512.0, 1700.0, 6000.0])
def test_it_finds_the_capacity_wherever_it_is(tmp_path, capacity):
    workers = SimulatedWorkers(takes(capacity))
    found, _ = search(tmp_path, workers)
    assert found.rate is not None
    assert found.sd is not None
    assert abs(math.log(found.rate / capacity)) < min(0.1, 2 * found.sd)
    assert found.sd <= ASKED.precision or len(found.tries) == ASKED.trials
    assert (found.centre, found.repetition, found.target, found.protocol) == (500.0, 3, "pytorch", "rest")
    assert found.seconds == pytest.approx(workers.now, abs=0.1)


@settings(max_examples=15, deadline=None)
@given(st.floats(40, 3000), st.floats(200, 1000), st.integers(1, 12), st.floats(0.02, 0.5), st.integers(0, 8))
def test_it_ends_at_its_precision_or_after_so_many_trials_and_says_what_its_trials_say(
    tmp_path_factory, capacity, centre, most, precision, lapse
):
    folder = tmp_path_factory.mktemp("search")
    found, _ = search(
        folder, SimulatedWorkers(takes(capacity, frozenset({lapse}))), centre, most=most, precision=precision
    )
    shutil.rmtree(folder)
    sds = [staircase.believe(found.tries[:count], centre).sd for count in range(1, len(found.tries) + 1)]
    assert len(sds) == most or (len(sds) < most and sds[-1] <= precision)
    assert all(sd > precision for sd in sds[:-1])
    for number, one in enumerate(found.tries):
        assert one.rate == staircase.following(found.tries[:number], centre)
        assert one.met == (one.rate <= capacity and number + 1 != lapse)
    belief = staircase.believe(found.tries, centre)
    assert (found.rate, found.sd) == (round(belief.rate, 2), round(belief.sd, 4))


def test_every_trial_is_kept_as_one_of_the_search_s_start(tmp_path):
    found, said = search(tmp_path, SimulatedWorkers(takes(700.0)))
    assert [one.trial for one in found.steps] == [f"s-{number}" for number in range(1, len(found.steps) + 1)]
    seeds = set()
    for step in found.steps:
        trial = records.read_trial(tmp_path / "trials" / step.trial / "trial.json")
        assert (trial.scenario, trial.repetition, trial.warm_up) == ("capacity", 3, "w-r3")
        assert (trial.offered_rate, trial.latency_ms.p99) == (step.rate, step.p99_ms)
        assert step.met == (step.rate <= 700.0)
        assert isinstance(step.why_not, TooSlow) != step.met
        seeds.add(trial.seed)
    assert len(seeds) == len(found.steps)  # each has other arrivals
    assert found.tries == tuple(Try(one.rate, one.met) for one in found.steps)
    assert [type(one) for one in said] == [PhaseStarted, *[Tried] * len(found.steps), PhaseEnded]
    tried = [(one.trial, one.rate, one.met, one.why_not) for one in said if isinstance(one, Tried)]
    assert tried == [(one.trial, one.rate, one.met, one.why_not) for one in found.steps]


def test_two_servers_of_a_block_are_tried_at_the_same_rates_with_the_same_arrivals_as_long_as_they_answer_alike(
    tmp_path,
):
    loads = []
    for name, capacity in (("one", 700.0), ("other", 720.0)):
        workers = SimulatedWorkers(takes(capacity))
        search(tmp_path / name, workers)
        loads.append([(rate_of(one), one.seed) for one in workers.loads])
    alike = sum(one == other for one, other in zip(*loads, strict=False))
    assert alike >= 3
    assert loads[0][:alike] == loads[1][:alike]


def test_a_slow_server_s_trials_are_long_enough_to_prove_the_percentile_and_no_longer(tmp_path):
    workers = SimulatedWorkers(takes(90.0))
    found, _ = search(tmp_path, workers, centre=100.0)
    assert [one.duration_s for one in workers.loads] == [lasting_s(rate_of(one), 1.25) for one in workers.loads]
    assert all(1.25 < one.duration_s <= LONGEST_S for one in workers.loads)
    assert any(one.met for one in found.steps)
    quick = SimulatedWorkers(takes(5000.0))
    search(tmp_path / "quick", quick, centre=5000.0)
    assert {one.duration_s for one in quick.loads} == {1.25}


def test_a_trial_that_the_generator_spoiled_says_nothing_and_its_rate_is_tried_again(tmp_path):
    clean, _ = search(tmp_path / "clean", SimulatedWorkers(takes(700.0)))
    spoiled, said = search(tmp_path / "spoiled", SimulatedWorkers(takes(700.0), late=frozenset({2})))
    assert spoiled.tries == clean.tries
    assert (spoiled.rate, spoiled.sd) == (clean.rate, clean.sd)
    first, second, third = spoiled.steps[:3]
    assert (first.spoiled, second.spoiled, third.spoiled) == (False, True, False)
    assert (second.rate, second.met) == (third.rate, False)
    assert isinstance(second.why_not, SentLate)
    assert len(spoiled.steps) == len(clean.steps) + 1
    assert not [one for one in said if isinstance(one, Spoiled)]  # retries are the trial's own


@pytest.mark.parametrize("good", [0, 1, 3])
def test_a_generator_that_sends_late_at_one_rate_again_ends_the_search_with_what_is_known(tmp_path, good):
    late = frozenset(range(good + 1, 99))
    found, _ = search(tmp_path, SimulatedWorkers(takes(700.0), late=late))
    assert [one.spoiled for one in found.steps] == [False] * good + [True, True]
    assert len(found.tries) == good
    if good:
        belief = staircase.believe(found.tries, 500.0)
        assert (found.rate, found.sd) == (round(belief.rate, 2), round(belief.sd, 4))
    else:
        assert (found.rate, found.sd) == (None, None)


class Killed(Exception):
    """As if the generator were killed."""


@pytest.mark.parametrize("after", [0, 1, 2, 4])
def test_a_search_that_was_cut_off_goes_on_from_its_trials(tmp_path, after):
    whole, _ = search(tmp_path / "whole", SimulatedWorkers(takes(700.0)))

    def dies(one: TrialPhase) -> float:
        if len(killed.loads) > after:
            raise Killed
        return takes(700.0)(one)

    killed = SimulatedWorkers(dies)
    with pytest.raises(Killed):
        search(tmp_path / "cut", killed)
    assert not (tmp_path / "cut" / "searches" / "s").exists()
    again = SimulatedWorkers(takes(700.0))
    found, said = search(tmp_path / "cut", again)
    assert (found.tries, found.steps, found.rate, found.sd) == (whole.tries, whole.steps, whole.rate, whole.sd)
    assert len(again.loads) == len(whole.steps) - after
    assert len([one for one in said if isinstance(one, Tried)]) == len(whole.steps)


def test_a_spoiled_trial_on_disk_counts_as_spoiled_when_the_search_goes_on(tmp_path):
    found, _ = search(tmp_path, SimulatedWorkers(takes(700.0), late=frozenset({1})))
    shutil.rmtree(tmp_path / "searches")
    again = SimulatedWorkers(takes(700.0))
    assert search(tmp_path, again)[0].steps == found.steps
    assert again.loads == []


def test_a_search_that_has_ended_is_not_made_again(tmp_path):
    search(tmp_path, SimulatedWorkers(takes(700.0)))
    with pytest.raises(Problem, match="exists already"):
        search(tmp_path, SimulatedWorkers(takes(700.0)))


def test_its_file_is_what_other_programs_read(tmp_path):
    search(tmp_path, SimulatedWorkers(takes(700.0)))
    values = json.loads((tmp_path / "searches" / "s" / "search.json").read_text())
    assert set(values) == {
        *("id", "target", "protocol", "repetition", "centre", "rate", "sd", "seconds", "steps", "tries"),
    }
    assert set(values["tries"][0]) == {"rate", "met"}
