"""How a run stands after any of its blocks, and which block follows: pure functions of what its trials say."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.experiment import decision, phase_plan, plan, standing, starts
from loadtest.experiment.decision import Comparison, Figure
from loadtest.experiment.file import Experiment
from loadtest.experiment.plan import FEWEST, Start
from loadtest.experiment.questions import Family, Metric, Question
from loadtest.experiment.records import Latency, Requests, SearchRecord, Slip, TrialRecord
from loadtest.experiment.scenarios import Capacity, Ladder, SingleStream, Soak
from loadtest.experiment.settings import Decision
from loadtest.experiment.standing import Standing
from loadtest.experiment.target_specs import TargetSpec

BOTH = ("pytorch", "tensorflow")
# The default as it is once its rates are known.
OPEN = (
    Experiment()
    .with_rates({"grpc": (1000.0,), "rest": (1000.0,)}, "capacity")
    .with_rates({"grpc": (300.0, 600.0, 850.0), "rest": (300.0, 600.0, 850.0)})
    .with_overload({"grpc": 1200.0, "rest": 1200.0})
)
THREE = replace(OPEN, targets=(*OPEN.targets, TargetSpec("unbatched", OPEN.targets[0].engine)))


# Where a search tries, beside the capacity, on a log scale.
TRIED = (0.4, -0.4, 0.15, -0.15, 0.06, -0.06, 0.1, -0.1)


@dataclass(frozen=True)
class World:
    """What servers a run meets: how far apart they lie (the logarithm of the ratio from one target to the next, by
    protocol), how far one's starts do, and how often a trial or a warm-up says nothing."""

    seed: int
    apart: tuple[float, float]
    start_sd: float
    spoiled: float = 0.0

    def trials(self, experiment: Experiment, start: Start) -> list[TrialRecord]:
        made = []
        for protocol, apart in zip(experiment.protocols, self.apart, strict=False):
            drawn = random.Random(repr((self.seed, start.target, protocol, start.repetition)))
            place = experiment.target_names.index(start.target)
            log = math.log(1000.0) + place * apart + drawn.gauss(0, self.start_sd)
            warm_up = f"cold-{protocol}" if drawn.random() < self.spoiled else "warm"
            for trial in start.trials:
                if trial.protocol != protocol:
                    continue
                ladder = trial.scenario == "ladder"
                rates = [trial.rate] if ladder else [math.exp(log + one) for one in TRIED]
                seconds = phase_plan.expected_s(experiment, trial) / len(rates)  # as planned
                for number, rate in enumerate(rates):
                    p99 = 20.0 * math.exp(-place * apart / 2 + drawn.gauss(0, self.start_sd))
                    made.append(
                        TrialRecord(
                            id=trial.id if ladder else f"{trial.id}-{number}",
                            target=start.target,
                            protocol=protocol,
                            scenario=trial.scenario,
                            offered_rate=rate,
                            repetition=start.repetition,
                            duration_s=seconds - 0.25,
                            lead_in_s=0.25,
                            requests=Requests(sent=900, ok=900),
                            latency_ms=Latency(p50=5.0, p99=p99 if ladder else 20.0 if math.log(rate) < log else 90.0),
                            schedule_slip_ms=Slip(p99=9.0 if drawn.random() < self.spoiled else 0.1),
                            warm_up=warm_up,
                        )
                    )
        return made


COLD = {"cold-grpc", "cold-rest"}


def stand(experiment: Experiment, trials: Sequence[TrialRecord], *, over: bool = False) -> list[Standing]:
    """As the run does it: see `run._Measuring`."""
    searches = [
        SearchRecord(target=one.target, protocol=one.protocol, repetition=one.repetition, centre=1000.0)
        for one in trials
    ]
    found = starts.figures(trials, searches, experiment.slo, COLD)
    return standing.stand(plan.questions(experiment), found, standing.looks(experiment), over=over)


@dataclass(frozen=True)
class Block:
    """A block as it was chosen: by how the questions stood before it, after `spent` seconds of the budget."""

    starts: list[Start]
    before: list[Standing]
    spent: float

    def measured(self, question: Question) -> set[str]:
        """On which of a question's targets it is measured."""
        scenario = "capacity" if question.metric is Metric.CAPACITY else "ladder"
        return {
            start.target
            for start in self.starts
            if start.target in question.compared
            for one in start.trials
            if (one.scenario, one.protocol) == (scenario, question.protocol) and question.rate in (0.0, one.rate)
        }


def drive(experiment: Experiment, world: World, most: int = 300) -> tuple[list[Block], list[TrialRecord]]:
    """A whole run."""
    trials: list[TrialRecord] = []
    blocks: list[Block] = []
    while len(blocks) < most:
        before = stand(experiment, trials)
        chosen = standing.following(experiment, len(blocks) + 1, before, trials)
        if not chosen:
            return blocks, trials
        blocks.append(Block(chosen, before, standing.spent(experiment, trials)))
        for start in chosen:
            trials += world.trials(experiment, start)
    raise AssertionError("the run does not end")


def scenarios(blocks: Sequence[Sequence[Start]]) -> set[str]:
    return {one.scenario for block in blocks for start in block for one in start.trials}


worlds = st.builds(
    World,
    seed=st.integers(0, 10**6),
    apart=st.tuples(*[st.sampled_from([0.0, 0.1, -0.3, 0.7])] * 2),
    start_sd=st.sampled_from([0.03, 0.1, 0.3]),
    spoiled=st.sampled_from([0.0, 0.0, 0.1]),
)
experiments = st.builds(
    lambda one, budget, seed: replace(one, decision=Decision(budget), seed=seed),
    st.sampled_from([OPEN, THREE, replace(OPEN, scenarios=("capacity",)), replace(OPEN, scenarios=("ladder",))]),
    st.sampled_from([1.0, 200.0, 500.0]),
    st.integers(0, 50),
)


@settings(max_examples=25, deadline=None)
@given(experiments, worlds, st.randoms(use_true_random=False))
def test_the_same_trials_give_the_same_block_in_whatever_order_they_are_read(experiment, world, shuffled):
    blocks, trials = drive(experiment, world)
    for number, block in enumerate(blocks, start=1):
        before = [one for one in trials if one.repetition < number]
        shuffled.shuffle(before)
        assert standing.following(experiment, number, stand(experiment, before), before) == block.starts
    assert standing.following(experiment, len(blocks) + 1, stand(experiment, trials), trials) == []


@settings(max_examples=25, deadline=None)
@given(experiments, worlds)
def test_what_is_decided_gets_no_more_trials_and_what_is_open_goes_on_within_the_budget(experiment, world):
    blocks, _ = drive(experiment, world)
    last = standing.looks(experiment)[-1]
    budget = experiment.decision.budget_s
    for number, block in enumerate(blocks, start=1):
        open_now = {one.question for one in block.before if not one.decision.decided and one.starts < last}
        if number > FEWEST:
            assert block.spent + standing.cost(experiment, block.starts) <= budget + 1e-6
            if "capacity" in experiment.scenarios and "capacity" not in scenarios([block.starts]):
                assert block.spent <= standing.ALONE * budget
        for one in block.before:
            question = one.question
            asked = {
                name
                for other in open_now
                for name in other.compared
                if (other.metric, other.protocol, other.rate) == (question.metric, question.protocol, question.rate)
            }
            measured = block.measured(question)
            if number <= FEWEST:
                assert measured == set(question.compared)
            else:
                assert measured <= asked & set(question.compared)
                if question.family is Family.CAPACITY and question in open_now:
                    assert measured == set(question.compared)  # the first to get what is left
                if question.family is Family.REST:
                    assert measured == set()
    # Capacities are searched for on three starts at least.
    searched = Counter(start.target for block in blocks for start in block.starts)
    assert min(searched.values()) >= FEWEST


@settings(max_examples=25, deadline=None)
@given(experiments, worlds)
def test_a_run_never_makes_more_starts_than_its_last_look_is_after(experiment, world):
    blocks, _ = drive(experiment, replace(world, spoiled=0.0))
    last = standing.looks(experiment)[-1]
    made = Counter(
        (start.target, one.protocol, one.scenario, one.rate if one.scenario == "ladder" else 0.0)
        for block in blocks
        for start in block.starts
        for one in start.trials
    )
    assert max(made.values()) <= last
    assert {count for (*_, rate), count in made.items() if rate == 1200.0} <= {1}  # overload
    for start in (start for block in blocks for start in block.starts):
        assert len({one.id for one in start.trials}) == len(start.trials)


@settings(max_examples=25, deadline=None)
@given(experiments, worlds, st.booleans())
def test_what_was_decided_stays_so(experiment, world, over):
    blocks, trials = drive(experiment, world)
    decided: set[Question] = set()
    for number in range(1, len(blocks) + 2):
        before = [one for one in trials if one.repetition < number]
        now = {one.question for one in stand(experiment, before, over=False) if one.decision.decided}
        assert decided <= now
        decided = now
    assert decided <= {one.question for one in stand(experiment, trials, over=over) if one.decision.decided}


def test_a_twofold_difference_is_decided_on_three_starts_and_the_run_ends_with_them():
    world = World(5, (math.log(2), math.log(2)), 0.03)
    blocks, trials = drive(OPEN, world)
    assert len(blocks) == 3
    capacities = [one for one in stand(OPEN, trials, over=True) if one.question.family is Family.CAPACITY]
    assert [(one.starts, one.decision.decided) for one in capacities] == [(3, True), (3, True)]
    assert all(one.decision.p_adjusted < 0.05 for one in capacities)
    latencies = [one for one in stand(OPEN, trials, over=True) if one.question.family is Family.LATENCY]
    assert [(one.starts, one.decision.decided) for one in latencies] == [(3, True), (3, True)]


def test_protocols_that_disagree_are_each_decided():
    blocks, trials = drive(OPEN, World(4, (math.log(2), -math.log(2)), 0.03))
    found = starts.figures(trials, [], OPEN.slo, COLD)
    for protocol, ratio in (("grpc", 1 / 2), ("rest", 2.0)):
        question = Question(Family.CAPACITY, Metric.CAPACITY, protocol, BOTH)
        compared = starts.comparison(question, found)
        assert compared is not None
        assert compared.ratio == pytest.approx(ratio, rel=0.1)
        assert next(one for one in stand(OPEN, trials) if one.question == question).decision.decided
    assert len(blocks) == 3


def test_once_one_protocol_is_decided_the_other_alone_goes_on():
    blocks, _ = drive(replace(OPEN, scenarios=("capacity",)), World(5, (math.log(2), 0.0), 0.05))
    assert len(blocks) > 4
    for block in blocks[3:]:
        assert {one.protocol for start in block.starts for one in start.trials} == {"rest"}


def test_three_targets_and_one():
    blocks, trials = drive(replace(THREE, scenarios=("capacity",)), World(6, (math.log(2), math.log(2)), 0.03))
    stood = stand(replace(THREE, scenarios=("capacity",)), trials, over=True)
    assert [one.decision.decided for one in stood] == [True] * 6  # three pairs over two protocols
    assert all(len(block.starts) == 3 for block in blocks[:3])
    alone = replace(OPEN, targets=OPEN.targets[:1])
    blocks, _ = drive(alone, World(7, (0.0, 0.0), 0.1))
    assert [len(block.starts) for block in blocks] == [1, 1, 1]
    assert stand(alone, []) == []


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_a_fixed_design_has_exactly_its_starts_and_one_look_whatever_it_costs(count):
    fixed = replace(
        OPEN,
        decision=Decision(1.0),
        capacity=replace(OPEN.capacity, repetitions=count),
        ladder=replace(OPEN.ladder, repetitions=count),
    )
    assert standing.looks(fixed) == (count,)
    for apart in (0.0, 2.0):
        blocks, trials = drive(fixed, World(1, (apart, apart), 0.03))
        assert [len(block.starts) for block in blocks] == [2] * count
        made = Counter(
            (one.target, one.protocol, one.scenario, one.rate) for b in blocks for s in b.starts for one in s.trials
        )
        ladder = {key[3]: number for key, number in made.items() if key[2] == "ladder"}
        assert ladder == {300.0: count, 600.0: count, 850.0: count, 1200.0: 1}
        searched = Counter(
            (one.target, one.protocol) for one in trials if one.scenario == "capacity" and one.id.endswith("-0")
        )
        assert set(searched.values()) == {count}
        assert not any(one.decision.decided for block in blocks[:count] for one in block.before)
        assert all(one.starts == count for one in stand(fixed, trials))
    assert any(one.decision.decided for one in stand(fixed, trials)) == (count >= 2)


def test_a_scenario_that_is_not_run_makes_no_design_fixed():
    one = replace(OPEN, scenarios=("capacity",), ladder=replace(OPEN.ladder, repetitions=2))
    assert standing.looks(one) == standing.looks(replace(OPEN, scenarios=("capacity",)))
    assert len(standing.looks(one)) > 1


def test_with_one_part_fixed_the_other_goes_on_until_it_is_decided():
    mixed = replace(OPEN, capacity=replace(OPEN.capacity, repetitions=2))
    blocks, trials = drive(mixed, World(8, (0.0, 0.0), 0.05))
    assert {one.repetition for one in trials if one.scenario == "capacity"} == {1, 2}
    assert max(one.repetition for one in trials if one.scenario == "ladder") > 4
    asked = [one for one in trials if one.scenario == "ladder" and one.offered_rate in mixed.ladder.rates[one.protocol]]
    spent = sum(one.lead_in_s + one.duration_s for one in asked)
    # A fixed part costs nothing, nor do the starts, nor what overload does, which decides nothing.
    assert standing.spent(mixed, trials) == pytest.approx(spent)
    step = standing.cost(mixed, blocks[-1].starts)
    last = [one.starts for one in stand(mixed, trials) if one.question.family is Family.LATENCY]
    assert spent + step > mixed.decision.budget_s or set(last) == {standing.looks(mixed)[-1]}


def test_looks_follow_from_the_budget_and_what_a_start_costs():
    search = phase_plan.expected_s(OPEN, plan.Trial("", "grpc", 1000.0, 1, 0, "capacity"))
    start = 2 * (search + 2.25)  # both protocols, each with a trial at the main rate
    for budget in (1.0, 300.0, 900.0, 1800.0):
        one = replace(OPEN, decision=Decision(budget))
        most = max(3, round(budget / (2 * start)))
        assert standing.most_starts(one) == most
        assert standing.looks(one) == (*[look for look in (3, 4, 6, 8, 12, 16, 24, 32) if look <= most - 2], most)
    assert standing.looks(replace(OPEN, decision=Decision(1.0))) == (3,)
    assert standing.most_starts(THREE) < standing.most_starts(OPEN)
    # Rates that are still to be found change nothing: a resumed run looks when the first one did.
    unknown = replace(OPEN, ladder=Ladder())
    assert standing.looks(unknown) == standing.looks(OPEN)


def figures(differences: Sequence[float], question: Question) -> starts.Figures:
    """Starts of two targets, from the second on each so far apart from the first one."""
    sides = [(one / 2, -one / 2) for one in differences]
    return {
        starts.Subject(question.metric, name, question.protocol, question.rate): {
            block: Figure(math.log(100.0) + side[place]) for block, side in enumerate(sides, start=1)
        }
        for place, name in enumerate(question.compared)
    }


CAPACITY = Question(Family.CAPACITY, Metric.CAPACITY, "grpc", BOTH)
PLANNED = (3, 4, 6, 8)


@cache
def compared(count: int) -> Comparison:
    found = starts.comparison(CAPACITY, figures(APART, CAPACITY), count)
    assert found is not None
    return found


# p = 0.0035 after three starts, 0.00012 after four, 0.000007 after five.
APART = (0.2, 0.45, 0.30, 0.35, 0.25)


def test_a_run_that_ends_early_gives_its_last_look_the_last_look_s_share():
    shares = decision.split(len(PLANNED))
    assert shares == pytest.approx((0.25, 0.075, 0.075, 0.6))
    found = figures(APART, CAPACITY)
    (before,) = standing.stand([CAPACITY], found, PLANNED)
    (after,) = standing.stand([CAPACITY], found, PLANNED, over=True)
    assert (before.starts, after.starts) == (5, 5)
    looked = min(compared(3).p_value / shares[0], compared(4).p_value / shares[1])
    assert before.decision.p_adjusted == pytest.approx(looked, rel=2e-3)
    assert after.decision.p_adjusted == pytest.approx(min(looked, compared(5).p_value / shares[3]), rel=2e-3)
    assert after.decision.p_adjusted < before.decision.p_adjusted


def test_a_start_between_two_looks_decides_nothing_before_the_end():
    flat = (0.1, -0.1, 0.02, 0.0)
    found = figures((*flat, 3.0), CAPACITY)
    (four,) = standing.stand([CAPACITY], figures(flat, CAPACITY), PLANNED)
    (five,) = standing.stand([CAPACITY], found, PLANNED)
    assert (four.starts, five.starts) == (4, 5)
    assert four.decision == five.decision


def test_a_question_without_figures_is_open():
    (one,) = standing.stand([CAPACITY], {}, PLANNED)
    assert (one.starts, one.decision.decided, one.decision.p_adjusted) == (0, False, 1.0)
    assert standing.stand([CAPACITY], {}, PLANNED, over=True)[0].decision == one.decision


def test_the_capacity_gets_what_is_left_where_latencies_no_longer_fit():
    stood = stand(OPEN, drive(OPEN, World(9, (0.0, 0.0), 0.1))[1][:0])
    full = standing.cost(OPEN, plan.block(OPEN, 6, plan.questions(OPEN)))
    capacities = [one for one in plan.questions(OPEN) if one.family is Family.CAPACITY]
    searches = standing.cost(OPEN, plan.block(OPEN, 6, capacities))
    assert searches < full

    def made(left: float) -> set[str]:
        spent = TrialRecord(
            target="pytorch",
            protocol="grpc",
            scenario="capacity",
            offered_rate=1.0,
            duration_s=300.0 - left,
            requests=Requests(),
        )
        return scenarios([standing.following(OPEN, 6, stood, [spent])])

    assert made(full + 0.1) == {"capacity", "ladder"}
    assert made(full - 0.1) == made(searches + 0.1) == {"capacity"}
    assert made(searches - 0.1) == set()


def alone_block(experiment: Experiment, *protocols: str, number: int = 5) -> list[Start]:
    """One in which only the latencies over these protocols are open."""
    latencies = [one for one in plan.questions(experiment) if one.family is Family.LATENCY]
    return plan.block(experiment, number, [one for one in latencies if one.protocol in protocols])


WARM_UP_S = phase_plan.warm_up(OPEN, Path(), "grpc").expected_s + phase_plan.GENERATOR_START_S


@pytest.mark.parametrize("protocols", [("grpc",), ("grpc", "rest")], ids=len)
def test_a_block_for_latency_alone_costs_its_starts_and_warm_ups_too(protocols):
    trials_s = len(protocols) * (OPEN.ladder.lead_in_s + OPEN.ladder.duration_s)
    one_start_s = phase_plan.START_S + len(protocols) * WARM_UP_S + trials_s
    block = alone_block(OPEN, *protocols)
    assert [len(start.trials) for start in block] == [len(protocols)] * 2
    assert standing.cost(OPEN, block) == pytest.approx(2 * one_start_s)
    # Beside a search, where the starts are made anyhow, and where there is none, a trial costs what it takes.
    capacities = [one for one in plan.questions(OPEN) if one.family is Family.CAPACITY]
    latencies = [one for one in plan.questions(OPEN) if one.family is Family.LATENCY and one.protocol in protocols]
    both, searches = (standing.cost(OPEN, plan.block(OPEN, 5, left)) for left in (capacities + latencies, capacities))
    assert both - searches == pytest.approx(2 * trials_s)
    for free in (
        replace(OPEN, scenarios=("ladder",)),
        replace(OPEN, capacity=replace(OPEN.capacity, repetitions=2)),
    ):
        assert standing.cost(free, alone_block(free, *protocols)) == pytest.approx(2 * trials_s)


def test_what_decides_nothing_adds_nothing_to_a_block_for_latency_alone():
    beside = replace(OPEN, scenarios=(*OPEN.scenarios, "single-stream"), single_stream=SingleStream(repetitions=9))
    block = alone_block(beside, "grpc")
    assert {one.protocol for start in block for one in start.trials} == {"grpc", "rest"}
    assert standing.cost(beside, block) == standing.cost(OPEN, alone_block(OPEN, "grpc"))
    made = [one for start in block for one in World(1, (0.0, 0.0), 0.1).trials(beside, start)]
    assert standing.spent(beside, made) == pytest.approx(standing.cost(beside, block))


def test_a_ladder_of_fixed_length_is_made_whatever_is_spent_and_costs_nothing():
    fixed = replace(OPEN, ladder=replace(OPEN.ladder, repetitions=9))
    block = plan.block(fixed, 5, [])
    assert scenarios([block]) == {"ladder"}
    assert standing.cost(fixed, block) == 0.0
    assert standing.affordable(fixed, block, fixed.decision.budget_s)
    made = [one for start in block for one in World(1, (0.0, 0.0), 0.1).trials(fixed, start)]
    assert standing.spent(fixed, made) == 0.0


@pytest.mark.parametrize("budget", [300.0, 3000.0])
def test_no_block_is_made_for_latency_alone_after_two_thirds_of_the_budget(budget):
    one = replace(OPEN, decision=Decision(budget))
    alone, both = alone_block(one, "grpc", "rest"), plan.block(one, 5, plan.questions(one))
    assert standing.ALONE == 2 / 3
    assert standing.affordable(one, alone, 2 / 3 * budget)
    assert not standing.affordable(one, alone, 2 / 3 * budget + 0.01)
    # Others as long as they fit.
    for fitting in (both, alone_block(replace(one, scenarios=("ladder",)), "grpc")):
        asked = one if fitting is both else replace(one, scenarios=("ladder",))
        left = budget - standing.cost(asked, fitting)
        assert left > 2 / 3 * budget
        assert standing.affordable(asked, fitting, left - 0.01)
        assert not standing.affordable(asked, fitting, left + 0.01)
    # One that does not fit is not made earlier, either.
    tight = replace(one, decision=Decision(standing.cost(one, alone)))
    assert standing.affordable(tight, alone, 0.0)
    assert not standing.affordable(tight, alone, 0.01)


def test_a_run_whose_capacities_are_decided_ends_at_two_thirds_of_its_budget_with_latencies_open():
    latencies = [one for one in plan.questions(OPEN) if one.family is Family.LATENCY]
    stood = [
        Standing(one, 4, decision.Decision(decided=one not in latencies, p_adjusted=0.5, error=0.05))
        for one in plan.questions(OPEN)
    ]

    def made(used: float) -> set[str]:
        trial = TrialRecord(
            target="pytorch",
            protocol="grpc",
            scenario="capacity",
            offered_rate=1.0,
            duration_s=used,
            requests=Requests(),
        )
        return scenarios([standing.following(OPEN, 5, stood, [trial])])

    assert made(199.9) == {"ladder"}
    assert made(200.1) == set()


@pytest.mark.parametrize("protocols", [("grpc",), ("grpc", "rest")], ids=len)
@pytest.mark.parametrize("one", [OPEN, THREE], ids=["two", "three"])
def test_a_resumed_run_has_spent_what_its_blocks_for_latency_alone_were_planned_to_cost(one, protocols):
    world, trials, planned = World(3, (0.0, 0.0), 0.1), list[TrialRecord](), 0.0
    for number in (1, 2, 3, 4, 5):
        block = plan.block(one, number, []) if number <= FEWEST else alone_block(one, *protocols, number=number)
        trials += [made for start in block for made in world.trials(one, start)]
        planned += standing.cost(one, block)
        assert standing.spent(one, trials) == pytest.approx(planned)
    (last,) = {trial.repetition for trial in trials[-len(protocols) :]}
    alone = [trial for trial in trials if trial.repetition == last]
    assert standing.spent(one, alone) == pytest.approx(standing.cost(one, alone_block(one, *protocols)))
    assert standing.spent(one, alone) > sum(trial.lead_in_s + trial.duration_s for trial in alone)
    assert standing.spent(one, []) == 0.0


def test_what_decides_nothing_is_made_whatever_is_spent_and_costs_no_budget():
    asked = replace(
        OPEN,
        scenarios=("capacity", "ladder", "single-stream", "soak"),
        single_stream=SingleStream(repetitions=6),
        soak=Soak(rates={"grpc": (100.0,), "rest": (100.0,)}),
        decision=Decision(1.0),
    )
    blocks, trials = drive(asked, World(2, (0.0, 0.0), 0.1))
    planned = [{one.scenario for start in block.starts for one in start.trials} for block in blocks]
    assert planned == [
        {"capacity", "ladder", "single-stream", "soak"},
        {"capacity", "ladder", "single-stream"},
        {"capacity", "ladder", "single-stream"},
        *[{"single-stream"}] * 3,
    ]
    assert standing.cost(asked, blocks[-1].starts) == 0.0
    rich = replace(asked, decision=Decision(standing.cost(asked, blocks[0].starts) * 9))
    long = [one for one in trials if one.scenario == "soak"]
    assert standing.following(rich, 4, stand(rich, []), [replace_duration(one, 1e6) for one in long])


def replace_duration(trial: TrialRecord, seconds: float) -> TrialRecord:
    return TrialRecord(
        target=trial.target,
        protocol=trial.protocol,
        scenario=trial.scenario,
        offered_rate=trial.offered_rate,
        duration_s=seconds,
        requests=trial.requests,
    )


def test_the_longest_run_is_what_an_undecided_one_makes():
    for experiment in (OPEN, THREE, replace(OPEN, decision=Decision(900.0)), replace(OPEN, scenarios=("capacity",))):
        longest = standing.longest(experiment)
        spent = sum(standing.cost(experiment, block) for block in longest)
        assert len(longest) >= FEWEST
        assert spent <= experiment.decision.budget_s or len(longest) == FEWEST
    ladder = {
        one.rate for block in standing.longest(OPEN) for s in block for one in s.trials if one.scenario == "ladder"
    }
    assert ladder == {300.0, 600.0, 850.0, 1200.0}
    fixed = replace(OPEN, capacity=Capacity(rates=OPEN.capacity.rates, repetitions=4), scenarios=("capacity",))
    assert [len(block) for block in standing.longest(fixed)] == [2, 2, 2, 2]
