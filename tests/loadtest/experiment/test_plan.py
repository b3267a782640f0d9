import math
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from loadtest.experiment import file as experiments
from loadtest.experiment import phase_plan, phases, plan
from loadtest.experiment.arrival_shape import Shape
from loadtest.experiment.file import Experiment
from loadtest.experiment.phases import ClosedLoopPhase, OpenLoopPhase, Phase, Plan, SearchPhase
from loadtest.experiment.plan import Start, Trial
from loadtest.experiment.questions import Family, Metric, Question
from loadtest.experiment.scenarios import SCENARIOS, Capacity, Ladder, Spike
from loadtest.experiment.target_specs import TargetSpec
from tests.loadtest.generator.small_servers import target

RATES = {"grpc": (100.0, 200.0, 300.0), "rest": (50.0, 75.0)}
# Two starts of each target, and nothing to be found out before.
FIXED = Experiment(scenarios=("ladder",), ladder=Ladder(rates=RATES, repetitions=2))
# The default, once its rates are known.
CENTRES = {"grpc": (1000.0,), "rest": (400.0,)}
OPEN = Experiment().with_rates(CENTRES, "capacity").with_rates({"grpc": (300.0, 600.0, 850.0), "rest": (90.0, 200.0)})
BOTH = ("pytorch", "tensorflow")


def blocks(experiment: Experiment, count: int, undecided: Collection[Question] | None = None) -> list[list[Start]]:
    """The first blocks; with everything open, if nothing is said."""
    left = plan.questions(experiment) if undecided is None else undecided
    return [plan.block(experiment, number, left) for number in range(1, count + 1)]


def trials_of(planned: Collection[Collection[Start]]) -> list[Trial]:
    return [trial for block in planned for start in block for trial in start.trials]


def order(experiment: Experiment, count: int) -> list[str]:
    return [start.target for block in blocks(experiment, count) for start in block]


def three() -> Experiment:
    return replace(OPEN, targets=(*OPEN.targets, TargetSpec("unbatched", OPEN.targets[0].engine)))


def test_every_target_is_started_once_in_a_block_and_the_order_turns_round():
    assert order(OPEN, 2) in (["pytorch", "tensorflow", *reversed(BOTH)], [*reversed(BOTH), "pytorch", "tensorflow"])
    for seed in range(20):
        for one in (OPEN, three()):
            for first, second in zip(*[iter(blocks(replace(one, seed=seed), 6))] * 2, strict=True):
                assert sorted(start.target for start in first) == sorted(one.target_names)
                assert [start.target for start in second] == [start.target for start in reversed(first)]


def test_which_target_is_first_is_drawn_for_each_two_blocks_from_the_seed():
    firsts = [order(replace(OPEN, seed=seed), 9)[::4] for seed in range(200)]
    assert all(80 < Counter(of_seed[pair] for of_seed in firsts)["pytorch"] < 120 for pair in range(4))
    assert len({tuple(one) for one in firsts}) > 12  # of the 16 that four pairs allow


def test_a_probe_starts_every_target_once_and_only_where_rates_are_to_be_found():
    assert [(start.target, start.repetition, start.trials) for start in plan.probes(OPEN)] == [
        ("pytorch", 0, ()),
        ("tensorflow", 0, ()),
    ]
    assert set(Experiment().unrated) == {"capacity", "ladder"}
    assert set(Experiment().with_rates(CENTRES, "capacity").unrated) == {"ladder"}  # it is shares of what is probed
    assert not OPEN.unrated
    assert not FIXED.unrated
    assert set(Experiment(scenarios=("ladder",)).unrated) == {"ladder"}
    assert set(Experiment(scenarios=("capacity", "soak")).with_rates(CENTRES, "capacity").unrated) == {"soak"}


def test_a_fixed_number_of_starts_measures_every_rate_on_each_of_them():
    planned = blocks(FIXED, 3, ())
    assert [len(block) for block in planned] == [2, 2, 0]
    trials = trials_of(planned)
    assert len(trials) == len({trial.id for trial in trials}) == 2 * 2 * 5
    for name in BOTH:
        for number in (1, 2):
            own = [t.rate for t in trials if (t.target, t.protocol, t.repetition) == (name, "grpc", number)]
            assert sorted(own) == [100, 200, 300]


def test_all_targets_of_a_block_see_the_same_arrivals_and_other_blocks_see_others():
    many = blocks(three(), 4)
    seeds: dict[tuple[str, str, float, int], set[int]] = {}
    for one in trials_of(many):
        seeds.setdefault((one.protocol, one.scenario, one.rate, one.repetition), set()).add(one.seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len(set.union(*seeds.values())) == len(seeds)
    shared = Counter((t.protocol, t.scenario, t.rate, t.repetition) for t in trials_of(many))
    assert set(shared.values()) == {3}


def test_all_searches_of_a_block_start_at_one_rate_near_the_centre_and_those_of_others_beside_it():
    found: dict[tuple[str, int], set[float]] = {}
    for one in trials_of(blocks(three(), 8)):
        if one.scenario == "capacity":
            found.setdefault((one.protocol, one.repetition), set()).add(one.rate)
    assert all(len(rates) == 1 for rates in found.values())
    for protocol, (centre,) in CENTRES.items():
        rates = [found[protocol, number].copy().pop() for number in range(1, 9)]
        assert len(set(rates)) == 8
        assert all(abs(math.log(rate / centre)) <= plan.JITTER + 1e-3 for rate in rates)
        assert max(rates) / min(rates) > 1.1  # as far apart as a staircase rounds, and more
    assert found["grpc", 1].pop() / 1000 != pytest.approx(found["rest", 1].pop() / 400, abs=1e-3)


def test_every_start_has_an_environment_of_another_size():
    sizes = [start.offset for block in blocks(three(), 10) for start in block]
    assert len(set(sizes)) > 0.9 * len(sizes)
    assert all(0 <= size < plan.LONGEST_OFFSET for size in sizes)
    assert max(sizes) - min(sizes) > plan.LONGEST_OFFSET / 2


def test_the_saved_experiment_repeats_order_arrivals_and_environments_in_any_process(tmp_path):
    for one in (FIXED, OPEN):
        file = tmp_path / "experiment.toml"
        file.write_text(one.to_toml())
        code = (
            "import sys; from loadtest.experiment import file, plan; one = file.load(sys.argv[1]);"
            "print([plan.block(one, number, plan.questions(one)) for number in (1, 2, 3)])"
        )
        done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == repr(blocks(one, 3))


def test_another_seed_gives_another_order_and_other_arrivals_of_the_same_trials():
    one, other = (blocks(replace(FIXED, seed=seed), 2) for seed in (0, 1))
    orders = [[trial.id for trial in trials_of(planned)] for planned in (one, other)]
    assert orders[0] != orders[1]
    assert set(orders[0]) == set(orders[1])
    seeds = [{trial.seed for trial in trials_of(planned)} for planned in (one, other)]
    assert not seeds[0] & seeds[1]


THROUGHPUT = {"pytorch": {"grpc": 2345.0, "rest": 800.0}, "tensorflow": {"grpc": 1987.0, "rest": 1200.0}}


def test_all_searches_are_centred_between_what_the_probes_found():
    resolved = plan.resolve(Experiment(), THROUGHPUT)
    # sqrt(2345 × 1987) = 2158.6, sqrt(800 × 1200) = 979.8; to two digits
    assert resolved.capacity.rates == {"grpc": (2200.0,), "rest": (980.0,)}
    given = Experiment(capacity=Capacity(rates={"grpc": (70.0,), "rest": (30.0,)}))
    assert plan.resolve(given, THROUGHPUT).capacity.rates == given.capacity.rates


def test_the_ladder_is_shares_of_what_the_slower_target_s_probe_found_whether_capacities_are_searched_for_or_not():
    for searched in (Experiment(), Experiment().with_rates(CENTRES, "capacity")):
        resolved = plan.resolve(searched, THROUGHPUT)
        assert not resolved.unrated
        assert resolved.ladder.rates == {"grpc": (600.0, 1200.0, 1700.0), "rest": (240.0, 480.0, 680.0)}
        assert resolved.ladder.overload_rates == {"grpc": 2400.0, "rest": 960.0}
    given = plan.resolve(Experiment(ladder=Ladder(rates=RATES)), THROUGHPUT).ladder
    assert (given.rates, given.overload_rates) == (RATES, {})
    alone = Experiment(scenarios=("ladder",), ladder=Ladder(fractions=(0.25, 0.5), overload=1.3))
    resolved = plan.resolve(alone, THROUGHPUT)
    assert resolved.ladder.rates == {"grpc": (500.0, 990.0), "rest": (200.0, 400.0)}
    assert resolved.ladder.overload_rates == {"grpc": 2600.0, "rest": 1000.0}


def test_the_ladder_s_rates_are_rounded_for_people_and_the_middle_one_is_the_main():
    found = plan.with_ladder(OPEN, {"grpc": 1987.0, "rest": 800.0}).ladder
    assert found.rates == {"grpc": (600.0, 1200.0, 1700.0), "rest": (240.0, 480.0, 680.0)}
    assert found.main_rates == {"grpc": 1200.0, "rest": 480.0}
    assert found.overload_rates == {"grpc": 2400.0, "rest": 960.0}


def test_an_own_rate_is_measured_beside_the_others_and_is_the_main_one():
    own = Experiment(ladder=Ladder(rate=333.0)).with_rates(CENTRES, "capacity")
    found = plan.with_ladder(own, {"grpc": 1987.0, "rest": 800.0})
    assert found.ladder.rates == {"grpc": (333.0, 600.0, 1200.0, 1700.0), "rest": (240.0, 333.0, 480.0, 680.0)}
    assert found.ladder.main_rates == {"grpc": 333.0, "rest": 333.0}
    main = [one.rate for one in plan.questions(found) if one.family is Family.LATENCY]
    assert main == [333.0, 333.0]


def test_without_overload_none_is_tried():
    quiet = Experiment(ladder=Ladder(overload=0.0)).with_rates(CENTRES, "capacity")
    found = plan.with_ladder(quiet, {"grpc": 1987.0, "rest": 800.0})
    assert found.ladder.overload_rates == {}
    for block in blocks(found, 3):
        assert len([t for t in trials_of([block]) if t.scenario == "ladder"]) == 2 * 2 * 3


def test_a_very_slow_target_still_gets_a_rate():
    slow = plan.with_ladder(OPEN, {"grpc": 0.5, "rest": 3.0}).ladder
    assert slow.rates == {"grpc": (1.0,), "rest": (1.0, 1.8, 2.5)}
    resolved = plan.resolve(Experiment(), {"pytorch": {"grpc": 0.2, "rest": 1.0}})
    assert resolved.capacity.rates == {"grpc": (1.0,), "rest": (1.0,)}


def test_every_two_targets_are_asked_about_over_each_protocol():
    asked = plan.questions(three())
    assert len(asked) == len(set(asked)) == 3 * (2 + 3 + 2)  # pairs × (capacities, rates of gRPC, rates of REST)
    assert {one.compared for one in asked} == {BOTH, ("pytorch", "unbatched"), ("tensorflow", "unbatched")}
    main = {one.protocol: one.rate for one in asked if one.family is Family.LATENCY}
    assert main == {"grpc": 600.0, "rest": 200.0}
    assert plan.questions(replace(OPEN, targets=OPEN.targets[:1])) == []
    assert {one.metric for one in plan.questions(Experiment().with_rates(CENTRES, "capacity"))} == {Metric.CAPACITY}
    assert {one.metric for one in plan.questions(FIXED)} == {Metric.P99}
    assert plan.questions(Experiment(scenarios=("single-stream",), ladder=FIXED.ladder)) == []


WITH_OVERLOAD = OPEN.with_overload({"grpc": 1200.0, "rest": 480.0})


def test_latencies_are_measured_from_the_first_block_on_and_overload_once_for_each_target_after_all_else():
    planned = blocks(WITH_OVERLOAD, 4)
    for block in planned[:3]:
        rates = Counter((t.protocol, t.rate) for t in trials_of([block]) if t.scenario == "ladder")
        for protocol, asked in OPEN.ladder.rates.items():
            assert [rates[protocol, rate] for rate in asked] == [2] * len(asked)
    above = [t for t in trials_of(planned) if t.scenario == "ladder" and t.rate in (1200.0, 480.0)]
    assert sorted((t.target, t.protocol, t.rate, t.repetition) for t in above) == [
        ("pytorch", "grpc", 1200.0, 1),
        ("pytorch", "rest", 480.0, 1),
        ("tensorflow", "grpc", 1200.0, 1),
        ("tensorflow", "rest", 480.0, 1),
    ]
    for start in planned[0]:
        for protocol in OPEN.protocols:
            own = [trial for trial in start.trials if trial.protocol == protocol]
            assert own[-1].rate == {"grpc": 1200.0, "rest": 480.0}[protocol]
            assert own[-2].scenario == "capacity"
    alone = replace(WITH_OVERLOAD, scenarios=("ladder",))
    assert {t.repetition for t in trials_of(blocks(alone, 3)) if t.rate in (1200.0, 480.0)} == {1}


def test_a_rate_that_is_overload_and_asked_for_is_measured_once():
    own = replace(OPEN, ladder=Ladder(fractions=(0.5, 1.2), rate=480.0)).with_rates(CENTRES, "capacity")
    found = plan.with_ladder(own, {"grpc": 1000.0, "rest": 400.0})
    assert (found.ladder.rates["rest"], found.ladder.overload_rates["rest"]) == ((200.0, 480.0), 480.0)
    ids = [trial.id for trial in trials_of(blocks(found, 4))]
    assert len(ids) == len(set(ids))
    assert ids.count("pytorch-rest-480-r1") == 1


def test_the_first_starts_measure_everything_whatever_is_decided():
    planned = blocks(OPEN, 5, ())
    capacities = Counter((t.target, t.protocol) for t in trials_of(planned) if t.scenario == "capacity")
    assert capacities == dict.fromkeys([(name, one) for name in BOTH for one in OPEN.protocols], 3)
    ladder = Counter((t.target, t.rate) for t in trials_of(planned) if t.scenario == "ladder")
    assert ladder == {(name, rate): 3 for name in BOTH for rates in OPEN.ladder.rates.values() for rate in rates}
    assert planned[3:] == [[], []]


def questions(*families: Family, protocol: str | None = None) -> list[Question]:
    return [one for one in plan.questions(OPEN) if one.family in families and protocol in (None, one.protocol)]


def measured(undecided: Collection[Question], number: int = 5) -> set[tuple[str, str, float]]:
    """What is measured in a later block; a search without its rate."""
    trials = trials_of([plan.block(OPEN, number, undecided)])
    return {(t.protocol, t.scenario, t.rate if t.scenario == "ladder" else 0.0) for t in trials}


def test_later_only_open_capacities_and_main_rates_are_measured():
    capacities, main, rest = questions(Family.CAPACITY), questions(Family.LATENCY), questions(Family.REST)
    searches = {("grpc", "capacity", 0.0), ("rest", "capacity", 0.0)}
    at_main = {("grpc", "ladder", 600.0), ("rest", "ladder", 200.0)}
    others = {("grpc", "ladder", 300.0), ("grpc", "ladder", 850.0), ("rest", "ladder", 90.0)}
    assert measured([*capacities, *main, *rest]) == searches | at_main
    assert measured([*capacities, *rest]) == searches
    assert measured([*main, *rest]) == at_main
    assert measured(questions(Family.CAPACITY, Family.REST, protocol="rest")) == {("rest", "capacity", 0.0)}
    assert measured(questions(Family.LATENCY, protocol="grpc")) == {("grpc", "ladder", 600.0)}
    # The other rates are for the curves, and no reason for another start.
    assert measured(rest) == measured([]) == set()
    # The third start still has all of it, whatever is decided, and the fourth no more.
    for decided in (capacities, main, []):
        assert measured(decided, 3) == searches | at_main | others
    assert measured([*capacities, *main, *rest], 4) == searches | at_main
    assert measured(capacities, 4) == searches
    assert measured([], 4) == set()


def test_of_three_targets_only_those_of_an_open_question_go_on():
    left = [one for one in plan.questions(three()) if one.compared == ("pytorch", "unbatched")]
    block = plan.block(three(), 6, [one for one in left if one.family is Family.CAPACITY])
    assert sorted(start.target for start in block) == ["pytorch", "unbatched"]
    names = [start.target for start in plan.block(three(), 6, plan.questions(three()))]
    assert [start.target for start in block] == [name for name in names if name != "tensorflow"]


def test_one_target_alone_is_measured_on_the_first_starts():
    alone = replace(WITH_OVERLOAD, targets=WITH_OVERLOAD.targets[:1])
    planned = blocks(alone, 6)
    assert [len(block) for block in planned] == [1, 1, 1, 0, 0, 0]
    trials = trials_of(planned)
    assert Counter(t.scenario for t in trials) == {"capacity": 2 * 3, "ladder": 5 * 3 + 2}


ALL = Experiment(scenarios=tuple(SCENARIOS), ladder=Ladder(repetitions=2), capacity=Capacity(repetitions=2))
PROBED = {"pytorch": {"grpc": 1000.0, "rest": 500.0}, "tensorflow": {"grpc": 2000.0, "rest": 400.0}}
RESOLVED = plan.resolve(ALL, PROBED)


def test_every_scenario_is_planned_as_often_as_it_asks_and_overload_comes_last():
    assert not RESOLVED.unrated
    planned = blocks(RESOLVED, 5, ())
    grpc = [[t for t in block[0].trials if t.protocol == "grpc"] for block in planned[:2]]
    counts = [{name: sum(trial.scenario == name for trial in own) for name in SCENARIOS} for own in grpc]
    assert counts[0] == {**dict.fromkeys(SCENARIOS, 1), "ladder": 3 + 1}  # overload
    assert counts[1] == {**dict.fromkeys(SCENARIOS, 1), "ladder": 3, "soak": 0}  # one soak
    assert planned[2:] == [[], [], []]
    assert [trial.scenario for trial in grpc[0][-5:]] == ["capacity", "offline", "soak", "spike", "ladder"]
    assert grpc[0][-1].rate == 1200.0
    assert [trial.scenario for trial in grpc[1][-3:]] == ["capacity", "offline", "spike"]
    for own in (grpc[0][:-5], grpc[1][:-3]):
        assert {trial.scenario for trial in own} == {"ladder", "server", "single-stream"}
    ids = [trial.id for trial in trials_of(planned)]
    assert len(ids) == len(set(ids))


def test_what_is_mild_comes_in_another_order_on_each_start_and_the_same_for_all_targets():
    orders: dict[int, set[tuple[float, ...]]] = {}
    for start in [start for block in blocks(OPEN, 3) for start in block]:
        own = tuple(t.rate for t in start.trials if t.protocol == "grpc" and t.scenario == "ladder")
        orders.setdefault(start.repetition, set()).add(own)
    assert all(len(found) == 1 for found in orders.values())
    many = replace(FIXED, ladder=replace(FIXED.ladder, repetitions=12))
    rates = [tuple(t.rate for t in block[0].trials if t.protocol == "grpc") for block in blocks(many, 12, ())]
    assert len(set(rates)) >= 4  # of the six that three rates allow
    assert any(one != other for one, other in pairwise(rates))


def test_scenarios_that_are_not_named_are_not_planned():
    assert {trial.scenario for trial in trials_of(blocks(FIXED, 2))} == {"ladder"}
    only = replace(OPEN, scenarios=("capacity",))
    assert {trial.scenario for trial in trials_of(blocks(only, 4))} == {"capacity"}


def test_a_scenario_s_rates_are_shares_of_the_slower_target():
    resolved = plan.resolve(ALL, PROBED)
    assert resolved.server.rates == {"grpc": (500.0,), "rest": (200.0,)}
    given = replace(ALL, spike=Spike(rates={"grpc": (70.0,), "rest": (30.0,)}))
    assert plan.resolve(given, PROBED).spike.rates == {"grpc": (70.0,), "rest": (30.0,)}


def phase(scenario: str) -> Phase:
    trial = Trial("pytorch", "grpc", 200.0, 1, 7, scenario)
    return phase_plan.trial(RESOLVED, trial, Path("trials"), Path("searches"), "w")


def test_a_search_has_the_scenario_s_bounds_and_the_slo():
    searched = phase("capacity")
    assert isinstance(searched, SearchPhase)
    asked = RESOLVED.capacity
    assert (searched.most, searched.precision) == (asked.trials, asked.precision)
    assert (searched.p99_ms, searched.error_ratio) == (50.0, 0.001)
    assert (searched.trial.rate, searched.trial.duration_s, searched.trial.warm_up) == (200.0, asked.duration_s, "w")
    assert (searched.trials, searched.folder) == (Path("trials"), Path("searches/pytorch-grpc-capacity-r1"))


def test_a_spike_is_three_times_the_rate_between_quiet_times():
    opened = phase("spike")
    assert isinstance(opened, OpenLoopPhase)
    assert (opened.rate, opened.arrival, opened.duration_s) == (200.0, "spike", 25.0)
    shape = opened.arrivals
    assert (shape.spike_factor, shape.spike_start_s, shape.spike_s) == (3.0, 5.0, 5.0)


def test_a_trace_is_named_as_any_folder_sees_it():
    traced = replace(RESOLVED, ladder=replace(RESOLVED.ladder, arrival="trace"), arrivals=Shape(trace="mine.csv"))
    opened = phase_plan.trial(traced, Trial("pytorch", "grpc", 200.0, 1, 7, "ladder"), Path(), Path(), "w")
    assert isinstance(opened, OpenLoopPhase)
    assert opened.arrivals.trace == str(Path.cwd() / "mine.csv")
    assert isinstance(again := phase("ladder"), OpenLoopPhase)
    assert again.arrivals.trace == ""


def test_late_answers_are_counted_at_the_slo_s_latency_in_every_open_loop():
    opened, searched = phase("spike"), phase("capacity")
    assert isinstance(opened, OpenLoopPhase)
    assert isinstance(searched, SearchPhase)
    assert (opened.limit_ms, searched.trial.limit_ms) == (ALL.slo.p99_ms, ALL.slo.p99_ms)


def test_single_stream_has_one_request_in_flight_and_offline_keeps_batches_full():
    single, offline = phase("single-stream"), phase("offline")
    assert isinstance(single, ClosedLoopPhase)
    assert isinstance(offline, ClosedLoopPhase)
    assert (single.concurrency, offline.concurrency) == (1, 4 * ALL.profile.max_batch_size)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_generator_understands_every_phase(scenario, tmp_path):
    built = phase(scenario)
    written = Plan(target=target("127.0.0.1:1"), reference=Path("reference.npz"), phases=(built,))
    written.write(tmp_path / "plan.json")
    assert phases.load(tmp_path / "plan.json") == written
    assert built.protocol == "grpc"
    assert 0 < built.expected_s < built.longest_s


def test_given_rates_are_lowered_to_what_a_slow_model_can_do_and_stay_so():
    smoke = experiments.load("smoke")
    assert plan.lowered(smoke, [0.2, 0.4]) is smoke
    assert plan.lowered(smoke, []) is smoke
    slow = plan.lowered(smoke, [20.0, 40.0])
    assert slow.ladder.rates == {"grpc": (7.5,), "rest": (7.5,)}  # 0.3 of the slower target's 25/s
    assert plan.lowered(slow, [20.0, 80.0]) is slow  # the resolved experiment repeats the run
    own = replace(smoke, ladder=replace(smoke.ladder, rates={"grpc": (5.0, 60.0, 80.0), "rest": (60.0,)}, rate=60.0))
    assert plan.lowered(own, [40.0]).ladder.rates == {"grpc": (5.0, 7.5, 60.0), "rest": (60.0,)}
