"""summary.json against runs whose latencies, errors and faults the test itself wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from loadtest.analysis import summary
from models.problem import Problem
from tests.loadtest.runs.build import EMBEDDED, SAME, TF_SERVING, TORCHSERVE, Server, write_run, write_trial

RATES = {"grpc": [200.0, 600.0], "rest": [150.0]}


def build(folder: Path, servers: dict[str, Server], **options) -> dict:
    return summary.build(write_run(folder / "run", servers, **{"rates": RATES, "duration_s": 4, **options}))


def verdict(figures: dict, protocol: str, metric: str) -> dict:
    return next(item for item in figures["verdicts"] if (item["protocol"], item["metric"]) == (protocol, metric))


def measurement(figures: dict, target: str, protocol: str, rate: float) -> dict:
    return next(
        item
        for item in figures["measurements"]
        if (item["target"], item["protocol"], item["offered_rate"]) == (target, protocol, rate)
    )


@pytest.fixture(scope="module")
def winner(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "winner"
    return write_run(folder, {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}, rates=RATES, duration_s=4)


def test_figures_are_exactly_those_of_the_merged_repetitions(tmp_path):
    run = write_run(tmp_path / "run", {}, rates={"grpc": [100.0]}, asked=["pytorch"])
    rng = np.random.default_rng(3)
    repetitions = [[np.round(rng.lognormal(3.3, 0.6, 100), 3) for _ in range(4)] for _ in range(2)]
    for number, seconds in enumerate(repetitions, start=1):
        record = {"target": "pytorch", "protocol": "grpc", "offered_rate": 100.0, "repetition": number, "warm_up": None}
        record["errors"] = {"timeout": 2, "status 503": number}
        record["schedule_slip_ms"] = {"p50": 0.1, "p99": 0.4 * number, "max": 2.0 * number}
        write_trial(run / "trials" / f"t{number}", record, seconds)
    figures = summary.build(run)
    (item,) = figures["measurements"]
    every = np.sort(np.concatenate([values for seconds in repetitions for values in seconds]))
    for name, share in {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}.items():
        exact = every[max(1, int(share * len(every) + 0.5)) - 1]
        assert item["latency_ms"][name] == pytest.approx(exact, rel=2e-3), name
        low, high = item["ci95"][name]
        assert low <= item["latency_ms"][name] <= high
    assert item["latency_ms"]["max"] == pytest.approx(every[-1], rel=2e-3)
    assert item["ci95"]["max"] is None
    assert item["goodput"] == pytest.approx((every <= 50).sum() / 8)
    assert item["requests"] == {"scheduled": 807, "sent": 807, "completed": 807, "ok": 800, "dropped": 0}
    assert item["errors"] == {"timeout": 4, "status 503": 3}
    assert item["error_ratio"] == pytest.approx(7 / 807)
    assert item["schedule_slip_ms"] == {"p99": 0.8, "max": 4.0}
    assert item["repetitions"] == 2
    assert item["few_samples"] == ["p99", "p999"]


def test_one_targets_uneven_starts_do_not_widen_the_others_intervals(tmp_path):
    rates = [100.0, 200.0, 300.0, 400.0]
    run = write_run(tmp_path / "run", {}, rates={"grpc": rates}, asked=["pytorch", "tensorflow"])
    rng = np.random.default_rng(5)
    for target in ("pytorch", "tensorflow"):
        for rate in rates:
            for repetition in (1, 2):
                uneven = target == "pytorch" and rate == 300.0 and repetition == 2
                seconds = [rng.lognormal(0, 0.4, round(rate)) * (60 if uneven else 3) for _ in range(5)]
                record = {"target": target, "protocol": "grpc", "offered_rate": rate, "repetition": repetition}
                write_trial(run / "trials" / f"{target}-{rate:g}-{repetition}", {**record, "warm_up": None}, seconds)
    figures = summary.build(run)
    for rate in rates:
        wide, narrow = (
            high / low
            for low, high in (
                measurement(figures, target, "grpc", rate)["ci95"]["p99"] for target in ("pytorch", "tensorflow")
            )
        )
        assert narrow < 1.6
        assert wide > 4


def test_a_rate_at_which_a_target_falls_behind_does_not_widen_the_intervals_of_the_others(tmp_path):
    rates = [100.0, 200.0, 300.0, 400.0]
    run = write_run(tmp_path / "run", {}, rates={"grpc": rates}, asked=["pytorch"])
    rng = np.random.default_rng(6)
    for rate in rates:
        for repetition in (1, 2):
            backlog_ms = 400 if rate == 400.0 and repetition == 2 else 0  # more with every second
            seconds = [rng.lognormal(1, 0.3, round(rate)) + backlog_ms * second for second in range(5)]
            record = {"target": "pytorch", "protocol": "grpc", "offered_rate": rate, "repetition": repetition}
            write_trial(run / "trials" / f"{rate:g}-{repetition}", {**record, "warm_up": None}, seconds)
    figures = summary.build(run)
    for rate in rates[:3]:
        low, high = measurement(figures, "pytorch", "grpc", rate)["ci95"]["p50"]
        assert high / low < 1.3
    low, high = measurement(figures, "pytorch", "grpc", 400.0)["ci95"]["p50"]
    assert high / low > 3


def test_the_summary_holds_the_stable_keys_and_is_plain_json(winner):
    figures = json.loads(json.dumps(summary.build(winner), allow_nan=False))
    contract = {"experiment", "environment", "parity", "targets", "measurements", "capacity", "verdicts"}
    assert contract <= figures.keys()
    assert {"name", "engine", "engine_version", "runtime"} <= figures["targets"][0].keys()
    keys = {"target", "protocol", "scenario", "offered_rate", "achieved_rate", "goodput", "latency_ms", "ci95"}
    keys |= {"requests", "errors", "schedule_slip_ms", "valid", "why_not_valid"}
    assert all(keys <= item.keys() for item in figures["measurements"])
    assert {"target", "protocol", "slo", "max_rate", "ci95"} <= figures["capacity"][0].keys()
    assert all({"question", "winner", "ratio", "ci95", "why"} <= item.keys() for item in figures["verdicts"])
    assert len(figures["measurements"]) == 2 * 3
    assert figures == json.loads(json.dumps(summary.build(winner)))


def test_a_faster_server_wins_with_a_ratio_that_excludes_one(winner):
    found = verdict(summary.build(winner), "grpc", "p99")
    assert found["winner"] == "tensorflow"
    assert found["question"] == "Lower p99 at 600/s over gRPC?"
    low, high = found["ci95"]
    assert 1 < low < found["ratio"] < high
    assert "highest common rate at which both are valid and keep up" in found["why"]


def test_equal_servers_show_no_difference(tmp_path):
    figures = build(tmp_path, {"pytorch": TORCHSERVE, "tensorflow": SAME}, seed=4)
    for found in figures["verdicts"]:
        assert found["winner"] is None
        low, high = found["ci95"]
        assert low <= 1 <= (high or 1)
        assert found["why"].startswith("No difference shown.")


def test_beyond_its_capacity_a_server_falls_behind_and_the_bracket_says_where(tmp_path):
    figures = build(
        tmp_path,
        {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING},
        rates={"grpc": [400.0, 700.0, 1200.0]},
        duration_s=5,
    )
    slow = measurement(figures, "pytorch", "grpc", 1200.0)
    assert slow["achieved_rate"] == pytest.approx(900, rel=0.06)  # its capacity
    assert slow["goodput"] < 100
    capacity = {item["target"]: item for item in figures["capacity"]}
    assert capacity["pytorch"]["bracket"] == [700.0, 1200.0]
    assert capacity["pytorch"]["ci95"] == [700.0, 1200.0]
    assert capacity["tensorflow"]["max_rate"] == 1200.0
    assert capacity["tensorflow"]["ci95"] == [1200.0, None]
    latency, goodput = (verdict(figures, "grpc", metric) for metric in ("p99", "goodput"))
    assert latency["offered_rate"] == 700.0  # the highest at which both keep up
    assert (goodput["offered_rate"], goodput["winner"]) == (1200.0, "tensorflow")
    assert goodput["ratio"] < 0.2


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ({"schedule_slip_ms": {"p50": 0.2, "p99": 1.2, "max": 9.0}}, "sent late: schedule slip p99 was 1.20 ms"),
        (
            {"schedule_slip_ms": {"p50": 0.2, "p99": 1.2, "max": 9.0}, "cpu_stolen": 0.213},
            "allowed are 1 ms (its host gave 21 % of this machine's CPU time to others meanwhile)",
        ),
        ({"schedule_slip_ms": {}}, "did not record its schedule slip"),
        ({"dropped": 1}, "1 arrivals were dropped because 1,024 requests were already in flight"),
        ({"wrong": 2}, "checked answers were wrong"),
        ({"notes": ["the server died after 2 s"]}, "the server died after 2 s"),
    ],
)
def test_a_broken_rule_makes_a_measurement_invalid_and_never_a_winner(tmp_path, override, reason):
    def spoil(target: str, protocol: str, rate: float, repetition: int) -> dict:
        return override if (target, rate, repetition) == ("tensorflow", 600.0, 2) else {}

    servers = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}
    figures = build(tmp_path, servers, rates={"grpc": [600.0]}, duration_s=2, spoil=spoil)
    item = measurement(figures, "tensorflow", "grpc", 600.0)
    assert not item["valid"]
    assert reason in item["why_not_valid"][0]
    assert item["why_not_valid"][0].startswith("repetition 2: ")
    assert measurement(figures, "pytorch", "grpc", 600.0)["valid"]
    assert [found["winner"] for found in figures["verdicts"]] == [None, None]
    assert next(item for item in figures["capacity"] if item["target"] == "tensorflow")["max_rate"] is None


def test_a_trial_that_ends_within_a_second_has_the_rate_of_its_true_length(tmp_path):
    run = write_run(tmp_path / "run", {}, rates={"grpc": [100.0]}, asked=["pytorch"])
    record = {"target": "pytorch", "protocol": "grpc", "offered_rate": 100.0, "duration_s": 2.5}
    write_trial(run / "trials" / "t1", record, [np.full(count, 5.0) for count in (100, 100, 50)])
    (item,) = summary.build(run)["measurements"]
    assert item["achieved_rate"] == pytest.approx(100.0)
    assert item["goodput"] == pytest.approx(100.0)


def test_slip_may_grow_with_latency_up_to_a_twentieth_of_p50(tmp_path):
    run = write_run(tmp_path / "run", {}, rates={"grpc": [50.0]}, asked=["pytorch"])
    for number, slip in ((1, 4.9), (2, 5.2)):
        record = {"target": "pytorch", "protocol": "grpc", "offered_rate": 50.0, "repetition": number}
        record["schedule_slip_ms"] = {"p50": 1.0, "p99": slip, "max": slip}
        write_trial(run / "trials" / f"t{number}", record, [np.full(50, 100.0)] * 3)
    (item,) = summary.build(run)["measurements"]
    assert len(item["why_not_valid"]) == 1
    assert item["why_not_valid"][0].startswith("repetition 2: the generator sent late")


def test_an_unsteady_warm_up_makes_a_measurement_invalid_and_never_a_winner(tmp_path):
    servers = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}
    run = write_run(tmp_path / "run", servers, rates={"grpc": [600.0]}, duration_s=4)
    assert {found["winner"] for found in summary.build(run)["verdicts"]} == {"tensorflow", None}
    for path in (run / "warm-ups").glob("tensorflow-*-r2/warm-up.json"):
        path.write_text(
            json.dumps({**json.loads(path.read_text()), "steady": False, "reached_cap": True, "seconds": 15})
        )
    figures = summary.build(run)
    item = measurement(figures, "tensorflow", "grpc", 600.0)
    assert item["why_not_valid"] == [
        "repetition 2: the warm-up was not steady when it reached its cap of 15.0 s, so a warming server was measured"
    ]
    assert measurement(figures, "pytorch", "grpc", 600.0)["valid"]
    assert {found["winner"] for found in figures["verdicts"]} == {None}
    assert next(one for one in figures["capacity"] if one["target"] == "tensorflow")["max_rate"] is None


def test_a_trial_that_was_repeated_counts_once_and_says_so(tmp_path):
    aside = {"folder": "001-1", "schedule_slip_ms": {"p50": 0.1, "p99": 7.25, "max": 30.0}}
    run = write_run(
        tmp_path / "run",
        {"pytorch": TORCHSERVE},
        rates={"grpc": [100.0]},
        duration_s=2,
        spoil=lambda *where: {"spoiled": [aside]} if where[-1] == 1 else {},
    )
    (item,) = summary.build(run)["measurements"]
    assert item["valid"]
    assert (item["repetitions"], item["spoiled"]) == (2, ["001-1"])
    assert item["warnings"] == [
        "repetition 1: repeated, because the generator sent late before (slip p99 7.25 ms); those are kept in spoiled/"
    ]


def test_a_server_that_fails_requests_wins_nothing(tmp_path):
    failing = Server(engine="tensorflow-serving", version="2.20.0", base_ms=1.0, capacity=1300, error_share=0.01)
    figures = build(tmp_path, {"pytorch": TORCHSERVE, "tensorflow": failing}, rates={"grpc": [600.0]})
    found = verdict(figures, "grpc", "p99")
    assert found["winner"] is None
    assert found["ratio"] > 2
    assert "TensorFlow failed" in found["why"]


def test_models_that_are_not_proven_equal_have_no_winner(tmp_path):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}, rates={"grpc": [400.0]})
    wire = json.loads((run / "wire-parity.json").read_text())
    wire["targets"]["tensorflow"]["grpc"]["max_abs_diff"] = 3e-3
    (run / "wire-parity.json").write_text(json.dumps(wire))
    figures = summary.build(run)
    assert not figures["parity"]["proven"]
    assert figures["parity"]["max_abs_diff"] == 3e-3
    assert "TensorFlow over gRPC differs from the reference by 0.003" in figures["parity"]["why_not_proven"][0]
    found = verdict(figures, "grpc", "p99")
    assert found["winner"] is None
    assert "not proven to serve the same model" in found["why"]


def test_parity_that_was_not_recorded_is_not_proven(tmp_path):
    figures = build(tmp_path, {"pytorch": TORCHSERVE}, rates={"grpc": [100.0]}, duration_s=2, parity=False)
    assert not figures["parity"]["proven"]
    assert len(figures["parity"]["why_not_proven"]) == 2


def test_one_repetition_names_no_winner(tmp_path):
    servers = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}
    figures = build(tmp_path, servers, rates={"grpc": [600.0]}, repetitions=1)
    found = verdict(figures, "grpc", "p99")
    assert found["winner"] is None
    assert "measured once" in found["why"]
    assert any("measured once" in warning for warning in figures["warnings"])


def test_a_target_that_failed_to_start_leaves_the_other_s_figures_and_no_verdict(tmp_path):
    figures = build(tmp_path, {"pytorch": TORCHSERVE}, asked=["pytorch", "tensorflow"])
    assert [item["measured"] for item in figures["targets"]] == [True, False]
    assert {found["winner"] for found in figures["verdicts"]} == {None}
    assert "TensorFlow has no measurement in this run" in figures["warnings"]
    assert not figures["parity"]["proven"]
    assert "6 of 12 planned trials are missing: the run is not complete" in figures["warnings"]


def test_one_target_alone_is_asked_no_question(tmp_path):
    figures = build(tmp_path, {"pytorch": TORCHSERVE})
    assert figures["verdicts"] == []
    assert len(figures["measurements"]) == 3


def test_a_stand_in_is_named_as_one(tmp_path):
    servers = {"pytorch": TORCHSERVE, "tensorflow": EMBEDDED}
    figures = build(tmp_path, servers, rates={"grpc": [200.0]}, duration_s=2)
    warning = next(text for text in figures["warnings"] if "stand-in" in text)
    assert warning.startswith("TensorFlow (embedded-tfserving 2.21.0) is a stand-in")


def test_a_trial_without_one_ok_answer_is_invalid_and_does_not_break_the_rest(tmp_path):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [100.0]}, duration_s=2)
    for number in (1, 2):
        record = {"target": "pytorch", "protocol": "grpc", "offered_rate": 500.0, "repetition": number}
        write_trial(run / "trials" / f"dead{number}", {**record, "errors": {"connection": 900}}, [np.array([])] * 2)
    figures = summary.build(run)
    dead = measurement(figures, "pytorch", "grpc", 500.0)
    assert not dead["valid"]
    assert dead["latency_ms"]["p99"] is None
    assert dead["goodput"] == 0
    assert measurement(figures, "pytorch", "grpc", 100.0)["ci95"]["p99"]
    json.dumps(figures, allow_nan=False)


def test_a_bare_folder_of_trials_is_enough(tmp_path):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [100.0]}, duration_s=2, environment={})
    for name in ("environment.json", "targets.json", "bundle-manifest.json", "wire-parity.json"):
        (run / name).unlink()
    (item,) = summary.build(run)["targets"]
    assert (item["engine"], item["engine_version"]) == ("torchserve", "0.12.0")


def test_a_trial_that_was_not_finished_is_not_counted(tmp_path):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [100.0]}, duration_s=2)
    (run / "trials" / "002").rename(run / "trials" / ".002.partial-17")
    assert summary.build(run)["measurements"][0]["repetitions"] == 1


def test_write_leaves_one_whole_file(winner):
    figures = summary.write(winner)
    assert json.loads((winner / "summary.json").read_text()) == figures
    assert not [path for path in winner.iterdir() if "partial" in path.name]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "experiment.toml").unlink(), "no experiment.toml"),
        (lambda run: (run / "experiment.toml").write_text("name = "), "experiment.toml: not valid TOML"),
        (lambda run: next(run.glob("trials/*/trial.json")).write_text("{"), "trial.json: not valid JSON"),
        (lambda run: next(run.glob("trials/*/trial.json")).write_text("{}"), "trial.json: no 'target' in it"),
        (lambda run: next(run.glob("trials/*/latency.hlog")).unlink(), "latency.hlog: missing"),
    ],
)
def test_a_damaged_run_names_the_file(tmp_path, spoil, message):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [50.0]}, duration_s=1)
    spoil(run)
    with pytest.raises(Problem, match=message) as problem:
        summary.build(run)
    assert "\n" not in str(problem.value)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Problem, match="no such run"):
        summary.build(tmp_path / "nothing")
