from loadtest import plan
from loadtest.experiment import Experiment

FIXED = Experiment(scenarios=("ladder",)).with_rates({"grpc": (100.0, 200.0, 300.0), "rest": (50.0, 75.0)})


def test_targets_alternate_a_b_b_a():
    assert [block.stack for block in plan.blocks(FIXED)] == ["pytorch", "tensorflow", "tensorflow", "pytorch"]


def test_the_last_probed_server_is_the_first_measured():
    assert plan.probes(FIXED)[-1].stack == plan.blocks(FIXED)[0].stack


def test_every_rate_is_measured_once_per_repetition_on_every_target():
    trials = [trial for block in plan.blocks(FIXED) for trial in block.trials]
    assert len(trials) == len({trial.id for trial in trials}) == 2 * 2 * 5
    assert sorted(t.rate for t in trials if (t.stack, t.protocol, t.repetition) == ("pytorch", "grpc", 2)) == [
        100,
        200,
        300,
    ]


def test_both_targets_see_the_same_arrivals_and_repetitions_see_others():
    seeds = {(t.stack, t.protocol, t.rate, t.repetition): t.seed for block in plan.blocks(FIXED) for t in block.trials}
    assert seeds["pytorch", "grpc", 100.0, 1] == seeds["tensorflow", "grpc", 100.0, 1]
    assert seeds["pytorch", "grpc", 100.0, 1] != seeds["pytorch", "grpc", 100.0, 2]
    assert len(set(seeds.values())) == len(seeds) / 2


def test_the_plan_depends_on_the_seed_alone():
    assert plan.blocks(FIXED) == plan.blocks(FIXED)


def test_ladder_is_set_by_the_slower_target_and_rounded_for_people():
    throughput = {"pytorch": {"grpc": 2345.0, "rest": 800.0}, "tensorflow": {"grpc": 1987.0, "rest": 1200.0}}
    assert plan.rates_of(throughput, ("grpc", "rest"), (0.25, 0.5)) == {
        "grpc": (500.0, 990.0),
        "rest": (200.0, 400.0),
    }


def test_a_very_slow_target_still_gets_a_rate():
    assert plan.rates_of({"pytorch": {"grpc": 0.5}}, ("grpc",), (0.2, 0.4)) == {"grpc": (1.0,)}
