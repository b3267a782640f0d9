import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.experiment import phase_plan, phases, plan
from loadtest.experiment.file import Experiment
from loadtest.experiment.phases import ClosedLoopPhase, OpenLoopPhase, Phase, Plan, SearchPhase
from loadtest.experiment.plan import Trial
from loadtest.experiment.scenarios import SCENARIOS, Capacity, Spike
from loadtest.experiment.target_specs import TargetSpec
from tests.loadtest.generator.small_servers import target

FIXED = Experiment(scenarios=("ladder",)).with_rates({"grpc": (100.0, 200.0, 300.0), "rest": (50.0, 75.0)})


def test_targets_alternate_a_b_b_a():
    assert [block.target for block in plan.blocks(FIXED)] == ["pytorch", "tensorflow", "tensorflow", "pytorch"]


def test_three_targets_alternate_a_b_c_c_b_a():
    three = replace(FIXED, targets=(*FIXED.targets, TargetSpec("unbatched", FIXED.targets[0].engine)))
    a, b, c = three.target_names
    assert [block.target for block in plan.blocks(three)] == [a, b, c, c, b, a]
    assert plan.probes(three)[-1].target == a


def test_the_last_probed_server_is_the_first_measured():
    assert plan.probes(FIXED)[-1].target == plan.blocks(FIXED)[0].target


def test_every_rate_is_measured_once_per_repetition_on_every_target():
    trials = [trial for block in plan.blocks(FIXED) for trial in block.trials]
    assert len(trials) == len({trial.id for trial in trials}) == 2 * 2 * 5
    assert sorted(t.rate for t in trials if (t.target, t.protocol, t.repetition) == ("pytorch", "grpc", 2)) == [
        100,
        200,
        300,
    ]


def test_both_targets_see_the_same_arrivals_and_repetitions_see_others():
    seeds = {(t.target, t.protocol, t.rate, t.repetition): t.seed for block in plan.blocks(FIXED) for t in block.trials}
    assert seeds["pytorch", "grpc", 100.0, 1] == seeds["tensorflow", "grpc", 100.0, 1]
    assert seeds["pytorch", "grpc", 100.0, 1] != seeds["pytorch", "grpc", 100.0, 2]
    assert len(set(seeds.values())) == len(seeds) / 2


def test_the_saved_experiment_repeats_order_and_arrivals_in_any_process(tmp_path):
    file = tmp_path / "experiment.toml"
    file.write_text(FIXED.to_toml())
    code = "import sys; from loadtest.experiment import file, plan; print(plan.blocks(file.load(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(plan.blocks(FIXED))


def test_another_seed_gives_another_order_and_other_arrivals_of_the_same_trials():
    one, other = plan.blocks(FIXED), plan.blocks(replace(FIXED, seed=FIXED.seed + 1))
    orders = [[trial.id for block in blocks for trial in block.trials] for blocks in (one, other)]
    assert orders[0] != orders[1]
    assert set(orders[0]) == set(orders[1])
    seeds = [{trial.seed for block in blocks for trial in block.trials} for blocks in (one, other)]
    assert not seeds[0] & seeds[1]


def test_ladder_is_set_by_the_slower_target_and_rounded_for_people():
    throughput = {"pytorch": {"grpc": 2345.0, "rest": 800.0}, "tensorflow": {"grpc": 1987.0, "rest": 1200.0}}
    assert plan.rates_of(throughput, ("grpc", "rest"), (0.25, 0.5)) == {
        "grpc": (500.0, 990.0),
        "rest": (200.0, 400.0),
    }


def test_a_very_slow_target_still_gets_a_rate():
    assert plan.rates_of({"pytorch": {"grpc": 0.5}}, ("grpc",), (0.2, 0.4)) == {"grpc": (1.0,)}


ALL = Experiment(scenarios=tuple(SCENARIOS))
PROBED = {"pytorch": {"grpc": 1000.0, "rest": 500.0}, "tensorflow": {"grpc": 2000.0, "rest": 400.0}}


def test_every_scenario_is_planned_as_often_as_it_asks_and_overload_comes_last():
    resolved = plan.resolve(ALL, PROBED)
    assert not resolved.unrated
    first, *_ = plan.blocks(resolved)
    grpc = [trial for trial in first.trials if trial.protocol == "grpc"]
    counts = {name: sum(trial.scenario == name for trial in grpc) for name in SCENARIOS}
    assert counts == {**dict.fromkeys(SCENARIOS, 1), "ladder": len(resolved.ladder.rates["grpc"])}
    assert [trial.scenario for trial in grpc[-4:]] == ["capacity", "offline", "soak", "spike"]
    assert {trial.scenario for trial in grpc[:-4]} == {"ladder", "server", "single-stream"}
    second = plan.blocks(resolved)[-1]
    assert not [trial for trial in second.trials if trial.scenario == "soak"]  # one repetition
    ids = [trial.id for block in plan.blocks(resolved) for trial in block.trials]
    assert len(ids) == len(set(ids))


def test_scenarios_that_are_not_named_are_not_planned():
    assert {trial.scenario for block in plan.blocks(FIXED) for trial in block.trials} == {"ladder"}


def test_a_scenario_s_rates_are_shares_of_the_slower_target():
    resolved = plan.resolve(ALL, PROBED)
    assert resolved.server.rates == {"grpc": (500.0,), "rest": (200.0,)}
    given = replace(ALL, spike=Spike(rates={"grpc": (70.0,), "rest": (30.0,)}))
    assert plan.resolve(given, PROBED).spike.rates == {"grpc": (70.0,), "rest": (30.0,)}


def test_each_capacity_search_starts_near_what_its_own_target_can_do():
    resolved = plan.resolve(ALL, PROBED)
    assert resolved.capacity.rates == {
        protocol: tuple(round(0.9 * PROBED[stack][protocol]) for stack in ALL.target_names)
        for protocol in ALL.protocols
    }
    starts = {(trial.target, trial.protocol): trial.rate for trial in searches(resolved)}
    assert starts == {
        (stack, protocol): 0.9 * PROBED[stack][protocol] for stack in PROBED for protocol in ALL.protocols
    }
    given = replace(ALL, capacity=Capacity(rates={"grpc": (70.0,), "rest": (30.0, 40.0)}))
    starts = {(trial.target, trial.protocol): trial.rate for trial in searches(plan.resolve(given, PROBED))}
    assert {starts[stack, "grpc"] for stack in ALL.target_names} == {70.0}
    assert [starts[stack, "rest"] for stack in ALL.target_names] == [30.0, 40.0]


def searches(resolved: Experiment) -> list[Trial]:
    return [trial for block in plan.blocks(resolved) for trial in block.trials if trial.scenario == "capacity"]


def phase(scenario: str, repetition: int = 1) -> Phase:
    trial = Trial("pytorch", "grpc", 200.0, repetition, 7, scenario)
    return phase_plan.trial(plan.resolve(ALL, PROBED), trial, Path("trials"), Path("searches"), "w")


def test_a_spike_is_three_times_the_rate_between_quiet_times():
    opened = phase("spike")
    assert isinstance(opened, OpenLoopPhase)
    assert (opened.rate, opened.arrival, opened.duration_s) == (200.0, "spike", 25.0)
    shape = opened.arrivals
    assert (shape.spike_factor, shape.spike_start_s, shape.spike_s) == (3.0, 5.0, 5.0)


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


def test_only_the_last_repetition_of_a_search_repeats_the_boundaries():
    found = [phase("capacity", repetition) for repetition in (1, 2)]
    assert [one.repeats for one in found if isinstance(one, SearchPhase)] == [1, 2]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_generator_understands_every_phase(scenario, tmp_path):
    built = phase(scenario)
    written = Plan(target=target("127.0.0.1:1"), reference=Path("reference.npz"), phases=(built,))
    written.write(tmp_path / "plan.json")
    assert phases.load(tmp_path / "plan.json") == written
    assert built.protocol == "grpc"
    assert 0 < built.expected_s < built.longest_s
