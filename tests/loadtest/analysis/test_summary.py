"""summary.json against runs whose latencies, errors and faults the test itself wrote."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from jsonschema import Draft202012Validator

from loadtest.analysis import summary
from loadtest.analysis.records import (
    FORMAT,
    AnswersDiffer,
    ArrivalsDiffer,
    ArrivalsDropped,
    BusyGenerator,
    Caution,
    ExportDiffers,
    Fault,
    GeneratorOutOf,
    HeldUp,
    MeasuredOnce,
    Measurement,
    NoExportParity,
    NotCompared,
    NotFinished,
    NotMeasured,
    NotSettled,
    OthersOnCores,
    Outcome,
    ParityNotProven,
    SentLate,
    ServerHeldUp,
    Slip,
    SlipUnknown,
    StandIn,
    Summary,
    TrialRepeated,
    TrialsMissing,
    UnsteadyWarmUp,
    Verdict,
    WarmUpRepeated,
    WrongAnswers,
)
from loadtest.experiment.own_errors import Lack
from loadtest.experiment.questions import Family, Metric
from loadtest.experiment.records import (
    ConnectionsLost,
    FirstError,
    NotPinned,
    OtherProcess,
    Remark,
    Requests,
    ServerDied,
    ServerOutOfFiles,
)
from models.problem import Problem
from serving.target import WhyStandIn
from tests.loadtest.analysis.figures import bounds
from tests.loadtest.runs.build import EMBEDDED, SAME, TF_SERVING, TORCHSERVE, SimulatedServer, write_run, write_trial

RATES = {"grpc": [200.0, 600.0], "rest": [150.0]}
BOTH = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}
SCHEMA = Path(__file__).parents[3] / "docs" / "summary.schema.json"


def build(folder: Path, servers: dict[str, SimulatedServer], **options: Any) -> Summary:
    return summary.build(write_run(folder / "run", servers, **{"rates": RATES, "duration_s": 4, **options}))


def verdict(figures: Summary, protocol: str, metric: Metric) -> Verdict:
    """On the capacity, or on p99 at the main rate."""
    return next(
        item
        for item in figures.verdicts
        if (item.protocol, item.metric) == (protocol, metric) and item.family is not Family.REST
    )


def measurement(figures: Summary, target: str, protocol: str, rate: float) -> Measurement:
    return next(
        item
        for item in figures.measurements
        if (item.target, item.protocol, item.offered_rate) == (target, protocol, rate)
    )


@pytest.fixture(scope="module")
def winner(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "winner"
    return write_run(folder, BOTH, rates=RATES, duration_s=4)


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
    (item,) = figures.measurements
    every = np.sort(np.concatenate([values for seconds in repetitions for values in seconds]))
    for name, share in {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}.items():
        exact = every[max(1, int(share * len(every) + 0.5)) - 1]
        assert item.latency_ms[name] == pytest.approx(exact, rel=2e-3), name
        low, high = bounds(item.ci95[name])
        assert low <= (item.latency_ms[name] or 0) <= high
    assert item.latency_ms.max == pytest.approx(every[-1], rel=2e-3)
    assert item.ci95.max is None
    assert item.goodput == pytest.approx((every <= 50).sum() / 8)
    assert item.requests == Requests(scheduled=807, sent=807, completed=807, ok=800)
    assert item.errors == {"timeout": 4, "status 503": 3}
    assert item.error_ratio == pytest.approx(7 / 807)
    assert item.schedule_slip_ms == Slip(p99=0.8, max=4.0)
    assert item.repetitions == 2
    assert item.few_samples == ("p99", "p999")


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
                bounds(measurement(figures, target, "grpc", rate).ci95.p99) for target in ("pytorch", "tensorflow")
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
        low, high = bounds(measurement(figures, "pytorch", "grpc", rate).ci95.p50)
        assert high / low < 1.3
    low, high = bounds(measurement(figures, "pytorch", "grpc", 400.0).ci95.p50)
    assert high / low > 3


def test_the_summary_is_plain_json_that_comes_back_as_it_was(winner):
    figures = summary.build(winner)
    values = json.loads(msgspec.json.encode(figures))
    assert list(values) == [
        "format",
        "experiment",
        "environment",
        "parity",
        "targets",
        "measurements",
        "capacity",
        "decomposition",
        "verdicts",
        "rankings",
        "warnings",
        "weights",
        "own_files",
        "encoded",
    ]
    assert values["format"] == FORMAT
    assert len(values["measurements"]) == 2 * 3
    main = next(item for item in values["verdicts"] if item["family"] == "latency")
    assert (main["metric"], main["outcome"], main["offered_rate"]) == ("p99", "winner", 600.0)
    assert msgspec.json.decode(msgspec.json.encode(figures), type=Summary) == figures
    assert figures == summary.build(winner)


def test_the_committed_schema_is_that_of_the_records():
    assert SCHEMA.read_text(encoding="utf-8") == summary.schema()  # else: python -m loadtest schema


def test_the_schema_takes_a_summary_and_refuses_another(tmp_path, winner):
    checker = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    spoil = {("tensorflow", 600.0, 2): {"wrong": 2}, ("pytorch", 600.0, 1): {"generator_cpu": 0.95}}
    spoiled = build(
        tmp_path,
        {"pytorch": TORCHSERVE, "tensorflow": EMBEDDED},
        asked=["pytorch", "tensorflow", "third"],
        spoil=lambda target, _, rate, repetition: spoil.get((target, rate, repetition), {}),
    )
    for figures in (summary.build(winner), spoiled):
        values = json.loads(msgspec.json.encode(figures))
        checker.validate(values)
        values["verdicts"][0]["outcome"] = "perhaps"
        assert not checker.is_valid(values)


def test_a_summary_of_another_format_is_refused_with_the_command_that_rebuilds_it(winner, tmp_path):
    (tmp_path / "summary.json").write_text('{"experiment": {}, "measurements": []}')
    with pytest.raises(Problem, match=rf"format 1, but this version reads {FORMAT}; .*make report RUN={tmp_path}$"):
        summary.read(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(Problem, match=r"summary.json: not a summary \(.*make report RUN="):
        summary.read(tmp_path)
    with pytest.raises(Problem, match=r"nothing/summary.json: cannot be read \(.*make report RUN="):
        summary.read(tmp_path / "nothing")


def test_a_run_of_the_previous_format_gives_the_same_figures(winner, tmp_path):
    run = shutil.copytree(winner, tmp_path / "run")
    targets = json.loads((run / "targets.json").read_text())
    for target in targets:
        target["stack"] = target.pop("name")
        target.pop("knobs", None)
        target["settings"] = {"batchSize": 32, "max_batch_size": 32, "maxBatchDelay": "1 ms"}
    (run / "targets.json").write_text(json.dumps(targets))
    values = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**values, "warnings": ["Prometheus is not installed"]}))
    before, after = summary.build(winner), summary.build(run)
    assert (after.measurements, after.verdicts) == (before.measurements, before.verdicts)
    assert [target.engine for target in after.targets] == ["torchserve", "tensorflow-serving"]
    assert [(knob.native_key, knob.value) for knob in after.targets[0].knobs] == [
        ("batchSize", 32),
        ("maxBatchDelay", "1 ms"),
    ]
    assert after.warnings == (Remark(text="Prometheus is not installed"),)


def test_a_faster_server_wins_with_a_ratio_that_excludes_one(winner):
    found = verdict(summary.build(winner), "grpc", Metric.P99)
    assert (found.winner, found.outcome, found.offered_rate) == ("tensorflow", Outcome.WINNER, 600.0)
    low, high = bounds(found.ci95)
    assert 1 < low < (found.ratio or 0) < high
    figures = found.figures
    assert figures is not None
    for name, figure in zip(found.compared, figures, strict=True):
        merged = measurement(summary.build(winner), name, "grpc", 600.0).latency_ms.p99
        assert figure.value == pytest.approx(merged, rel=0.1)  # the mean of the starts' own, not of one histogram
    assert found.ratio == pytest.approx((figures[0].value or 0) / (figures[1].value or 0))


def test_equal_servers_show_no_difference(tmp_path):
    figures = build(tmp_path, {"pytorch": TORCHSERVE, "tensorflow": SAME}, repetitions=3, seed=5)
    for found in figures.verdicts:
        assert found.winner is None
        low, high = bounds(found.ci95)
        assert low <= 1 <= high
        assert found.outcome is Outcome.NO_DIFFERENCE_SHOWN


def test_beyond_its_capacity_a_server_falls_behind_and_its_capacity_lies_between_two_rates(tmp_path):
    figures = build(
        tmp_path,
        BOTH,
        rates={"grpc": [400.0, 700.0, 1200.0]},
        duration_s=5,
    )
    slow = measurement(figures, "pytorch", "grpc", 1200.0)
    assert slow.achieved_rate == pytest.approx(900, rel=0.06)  # its capacity
    assert slow.goodput < 100
    capacity = {item.target: item for item in figures.capacity}
    assert capacity["pytorch"].max_rate == 700.0
    assert capacity["pytorch"].ci95 == (700.0, 1200.0)
    assert capacity["tensorflow"].max_rate == 1200.0
    assert capacity["tensorflow"].ci95 == (1200.0, None)
    by_rate = {found.offered_rate: found for found in figures.verdicts}
    assert list(by_rate) == [400.0, 700.0, 1200.0]
    assert (by_rate[1200.0].ratio or 0) > 10
    assert slow.goodput < 0.2 * measurement(figures, "tensorflow", "grpc", 1200.0).goodput


DIED = {"type": "server-died", "after_s": 2.0, "lost": 17}
LOST = {"type": "connections-lost", "after_s": 1.5, "lost": 3}
LATE = {"schedule_slip_ms": {"p50": 0.2, "p99": 1.2, "max": 9.0}}


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (LATE, SentLate(slip_p99_ms=1.2, allowed_ms=1.0, cpu_stolen=0.0)),
        ({**LATE, "cpu_stolen": 0.213}, SentLate(slip_p99_ms=1.2, allowed_ms=1.0, cpu_stolen=0.213)),
        ({"schedule_slip_ms": {}}, SlipUnknown()),
        ({"dropped": 1}, ArrivalsDropped(dropped=1, max_in_flight=1024)),
        ({"wrong": 2, "checked": 60}, WrongAnswers(wrong=2, checked=60)),
        ({"notes": [DIED]}, ServerDied(after_s=2.0, lost=17)),
    ],
)
def test_a_broken_rule_makes_a_measurement_invalid_and_never_a_winner(tmp_path, override, reason):
    def spoil(target: str, protocol: str, rate: float, repetition: int) -> dict:
        return override if (target, rate, repetition) == ("tensorflow", 600.0, 2) else {}

    figures = build(tmp_path, BOTH, rates={"grpc": [600.0]}, duration_s=2, spoil=spoil)
    item = measurement(figures, "tensorflow", "grpc", 600.0)
    assert not item.valid
    assert item.why_not_valid == (Fault((2,), reason),)
    assert measurement(figures, "pytorch", "grpc", 600.0).valid
    (found,) = figures.verdicts
    # Sent late, the one start is left out; what the server did wrong, or the generator cannot prove, is of the rate.
    late = isinstance(reason, SentLate)
    assert (found.winner, found.outcome) == (None, Outcome.ONE_START_ONLY if late else Outcome.NO_VALID_RATE)
    stands = next(item for item in figures.capacity if item.target == "tensorflow").max_rate
    assert stands == (600.0 if late else None)


def test_what_the_generator_noted_of_a_trial_is_told_with_its_repetition(tmp_path):
    """In the words of the previous format, too. Where a server refused only some, the trial still counts."""
    refused = "the server refused or closed connections 1.5 s into the trial: 3 requests failed to connect or lost it"
    died = "the server died or became unreachable 2.0 s into the trial: 17 requests failed to connect or lost it"
    notes = {(100.0, 1): [refused], (100.0, 2): [LOST], (200.0, 1): [died]}
    figures = build(
        tmp_path,
        {"pytorch": TORCHSERVE},
        rates={"grpc": [100.0, 200.0]},
        duration_s=2,
        spoil=lambda target, protocol, rate, repetition: {"notes": notes.get((rate, repetition), [])},
    )
    first, second = figures.measurements
    assert (first.valid, first.cautions) == (True, (Caution((1, 2), ConnectionsLost(after_s=1.5, lost=3)),))
    assert (second.valid, second.why_not_valid) == (False, (Fault((1,), ServerDied(after_s=2.0, lost=17)),))


def test_a_trial_that_ends_within_a_second_has_the_rate_of_its_true_length(tmp_path):
    run = write_run(tmp_path / "run", {}, rates={"grpc": [100.0]}, asked=["pytorch"])
    record = {"target": "pytorch", "protocol": "grpc", "offered_rate": 100.0, "duration_s": 2.5}
    write_trial(run / "trials" / "t1", record, [np.full(count, 5.0) for count in (100, 100, 50)])
    (item,) = summary.build(run).measurements
    assert item.achieved_rate == pytest.approx(100.0)
    assert item.goodput == pytest.approx(100.0)
    # Nor does half a second, with half as many answers, look like a slower one.
    assert bounds(item.ci95.achieved_rate) == pytest.approx((100.0, 100.0))


def test_slip_may_grow_with_latency_up_to_a_twentieth_of_p50(tmp_path):
    run = write_run(tmp_path / "run", {}, rates={"grpc": [50.0]}, asked=["pytorch"])
    for number, slip in ((1, 4.9), (2, 5.2)):
        record = {"target": "pytorch", "protocol": "grpc", "offered_rate": 50.0, "repetition": number}
        record["schedule_slip_ms"] = {"p50": 1.0, "p99": slip, "max": slip}
        write_trial(run / "trials" / f"t{number}", record, [np.full(50, 100.0)] * 3)
    (item,) = summary.build(run).measurements
    (fault,) = item.why_not_valid
    assert fault.repetitions == (2,)
    assert isinstance(fault.reason, SentLate)
    assert fault.reason.slip_p99_ms == 5.2
    assert fault.reason.allowed_ms == pytest.approx(5.0, rel=1e-2)


def test_an_unsteady_warm_up_makes_a_measurement_invalid_and_never_a_winner(tmp_path):
    run = write_run(tmp_path / "run", BOTH, rates={"grpc": [600.0]}, duration_s=4)
    assert {found.winner for found in summary.build(run).verdicts} == {"tensorflow"}
    for path in (run / "warm-ups").glob("tensorflow-*-r2/warm-up.json"):
        path.write_text(
            json.dumps({**json.loads(path.read_text()), "steady": False, "reached_cap": True, "seconds": 15})
        )
    figures = summary.build(run)
    item = measurement(figures, "tensorflow", "grpc", 600.0)
    assert item.why_not_valid == (Fault((2,), UnsteadyWarmUp(15.0)),)
    assert measurement(figures, "pytorch", "grpc", 600.0).valid
    assert [(found.winner, found.outcome) for found in figures.verdicts] == [(None, Outcome.ONE_START_ONLY)]
    for path in (run / "warm-ups").glob("tensorflow-*-r1/warm-up.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "steady": False}))
    figures = summary.build(run)
    assert [found.outcome for found in figures.verdicts] == [Outcome.NO_VALID_RATE]
    assert next(one for one in figures.capacity if one.target == "tensorflow").max_rate is None


def test_a_trial_that_was_repeated_counts_once_and_says_so(tmp_path):
    aside = {"folder": "001-1", "schedule_slip_ms": {"p50": 0.1, "p99": 7.25, "max": 30.0}}
    run = write_run(
        tmp_path / "run",
        {"pytorch": TORCHSERVE},
        rates={"grpc": [100.0]},
        duration_s=2,
        spoil=lambda *where: {"spoiled": [aside]} if where[-1] == 1 else {},
    )
    (item,) = summary.build(run).measurements
    assert item.valid
    assert (item.repetitions, item.spoiled) == (2, ("001-1",))
    assert item.cautions == (Caution((1,), TrialRepeated((7.25,))),)


def test_a_busy_generator_and_an_unsettled_warm_up_are_told_and_the_measurement_counts(tmp_path):
    run = write_run(
        tmp_path / "run",
        {"pytorch": TORCHSERVE},
        rates={"grpc": [100.0]},
        duration_s=2,
        spoil=lambda *where: {"generator_cpu": 0.95} if where[-1] == 2 else {},
    )
    path = run / "warm-ups" / "pytorch-grpc-r1" / "warm-up.json"
    values = json.loads(path.read_text())
    attempt = {"protocol": "grpc", "steady": False, "throughput": 1.0}
    settling = {"rate": 70.0, "settled": False, "seconds": 12.0}
    path.write_text(json.dumps({**values, "unsteady_attempts": [attempt, attempt], "settling": settling}))
    (item,) = summary.build(run).measurements
    assert item.valid
    assert item.cautions == (
        Caution((1,), WarmUpRepeated(2)),
        Caution((1,), NotSettled()),
        Caution((2,), BusyGenerator(0.95)),
    )


def test_requests_that_left_otherwise_than_asked_are_a_caution_and_the_measurement_counts(tmp_path):
    found = {"gaps": 199, "statistic": 120.0, "distance": 0.6, "allowed": 0.1}
    run = write_run(
        tmp_path / "run",
        {"pytorch": TORCHSERVE},
        rates={"grpc": [100.0]},
        duration_s=2,
        spoil=lambda *where: {"arrivals_check": {**found, "ok": where[-1] == 1}},
    )
    (item,) = summary.build(run).measurements
    assert item.valid
    assert item.cautions == (Caution((2,), ArrivalsDiffer("poisson", 0.6, 0.1)),)


def without_last_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def only_the_beginning(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def half_a_line(path: Path) -> None:
    *whole, last = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*whole, last[:3]]))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("latency.hlog", without_last_line),
        ("latency.hlog", only_the_beginning),
        ("timeline.csv", without_last_line),
        ("timeline.csv", half_a_line),
        ("server-timeline.csv", without_last_line),
        ("../../warm-ups/pytorch-grpc-r1/warm-up.json", Path.unlink),
    ],
)
def test_a_saved_file_that_others_do_not_agree_with_is_refused_in_one_line(tmp_path, file, damage):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [50.0]}, repetitions=1, duration_s=3)
    summary.build(run)
    (trial,) = run.glob("trials/*")
    assert (trial / file).exists()
    damage(trial / file)
    with pytest.raises(Problem, match=f"{Path(file).name}.* again") as refused:
        summary.build(run)
    assert "\n" not in str(refused.value)


def test_a_search_whose_trial_is_gone_is_refused(tmp_path):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [50.0]}, repetitions=1, searches=1)
    shutil.rmtree(next(run.glob("trials/pytorch-grpc-capacity-r1-2")))
    with pytest.raises(Problem, match=r"capacity-r1-2: missing, and searches/.*/search.json tried it"):
        summary.build(run)


BUSY = {"server": 0.02, "generator": 0.31, "by": [{"name": "cc1", "pid": 42, "cpus": 0.6}]}
WHO = (OtherProcess(name="cc1", pid=42, cpus=0.6),)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"others": BUSY}, OthersOnCores(0.31, 0.1, WHO, 0.0)),
        ({"throttled": {"periods": 29, "seconds": 1.5}}, HeldUp(29, 1.5)),
        ({"errors": {"own_files": 9}}, GeneratorOutOf(Lack.FILES, 9)),
        ({"notes": [{"type": "server-out-of-files", "times": 7}]}, ServerOutOfFiles(times=7)),
    ],
)
def test_what_the_machine_did_makes_a_trial_invalid(tmp_path, values, reason):
    run = build(tmp_path / "run", BOTH, spoil=lambda target, *_: values if target == "pytorch" else {})
    for item in run.measurements:
        assert item.valid == (item.target == "tensorflow")
        if not item.valid:
            assert [fault.reason for fault in item.why_not_valid] == [reason]
    assert {one.outcome for one in run.verdicts} == {Outcome.NO_VALID_RATE}


def test_a_server_that_its_own_group_stops_is_a_caution_and_others_within_the_limit_are_none(tmp_path):
    held_up = {"server_throttled": {"periods": 2, "seconds": 0.1}, "others": {**BUSY, "generator": 0.09}}
    run = build(tmp_path / "run", {"pytorch": TORCHSERVE}, spoil=lambda *_: held_up)
    assert all(item.valid for item in run.measurements)
    assert {caution.reason for item in run.measurements for caution in item.cautions} == {ServerHeldUp(2, 0.1)}
    assert {item.others for item in run.measurements} == {0.09}


def test_a_p99_of_too_few_answers_is_marked_and_not_compared(tmp_path):
    run = write_run(tmp_path / "run", BOTH, rates={"grpc": [40.0, 400.0]}, duration_s=2)
    found = summary.build(run)
    thin = {item.offered_rate: "p99" in item.few_samples for item in found.measurements}
    assert thin == {40.0: True, 400.0: False}
    outcomes = {one.offered_rate: one for one in found.verdicts if one.metric is Metric.P99}
    assert outcomes[40.0].outcome is Outcome.TOO_FEW_ANSWERS
    assert outcomes[40.0].because_of == ("pytorch", "tensorflow")
    assert not outcomes[40.0].has_ratio
    assert outcomes[400.0].has_ratio


def test_the_first_error_answer_of_the_earliest_repetition_is_kept(tmp_path):
    said: dict[str, Any] = {"kind": "http_400", "after_s": 0.2, "said": "batch size too big"}
    run = build(
        tmp_path / "run",
        {"pytorch": TORCHSERVE},
        spoil=lambda *key: {"errors": {"http_400": 3}, "first_error": said} if key[-1] == 2 else {},
    )
    assert {item.first_error for item in run.measurements} == {FirstError(**said)}


def test_a_server_that_fails_requests_wins_nothing(tmp_path):
    failing = SimulatedServer(
        engine="tensorflow-serving", version="2.20.0", base_ms=1.0, capacity=1300, error_share=0.01
    )
    figures = build(tmp_path, {"pytorch": TORCHSERVE, "tensorflow": failing}, rates={"grpc": [600.0]})
    found = verdict(figures, "grpc", Metric.P99)
    assert (found.outcome, found.winner, found.because_of) == (Outcome.TOO_MANY_ERRORS, None, ("tensorflow",))
    assert found.error_ratios == {"tensorflow": pytest.approx(0.01, rel=0.05)}
    assert found.ratio is not None
    assert found.ratio > 2


def test_models_that_are_not_proven_equal_have_no_winner(tmp_path):
    run = write_run(tmp_path / "run", BOTH, rates={"grpc": [400.0]}, repetitions=4)
    wire = json.loads((run / "wire-parity.json").read_text())
    wire["targets"]["tensorflow"]["grpc"]["max_abs_diff"] = 3e-3
    (run / "wire-parity.json").write_text(json.dumps(wire))
    figures = summary.build(run)
    assert not figures.parity.proven
    assert figures.parity.max_abs_diff == 3e-3
    doubt = AnswersDiffer(target="tensorflow", protocol="grpc", difference=3e-3, allowed=1e-4)
    assert figures.parity.why_not_proven == (doubt,)
    assert figures.warnings == (ParityNotProven(doubt),)
    found = verdict(figures, "grpc", Metric.P99)
    assert (found.outcome, found.winner) == (Outcome.PARITY_NOT_PROVEN, None)


def test_parity_that_was_not_recorded_is_not_proven(tmp_path):
    figures = build(tmp_path, {"pytorch": TORCHSERVE}, rates={"grpc": [100.0]}, duration_s=2, parity=False)
    assert not figures.parity.proven
    assert figures.parity.why_not_proven == (NoExportParity(), NotCompared(target="pytorch", protocol="grpc"))
    assert figures.parity.max_abs_diff is None


def test_an_export_that_differs_too_much_is_a_doubt(tmp_path):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [100.0]}, duration_s=2)
    manifest = json.loads((run / "bundle-manifest.json").read_text())
    manifest["parity"]["exports"]["onnx"]["max_abs_diff"] = 0.2
    manifest["parity"]["exports"]["savedmodel"]["max_abs_diff"] = None
    (run / "bundle-manifest.json").write_text(json.dumps(manifest))
    parity = summary.build(run).parity
    assert parity.why_not_proven == (
        ExportDiffers(export="onnx", difference=0.2, allowed=1e-4),
        ExportDiffers(export="savedmodel", difference=None, allowed=1e-4),
    )
    assert [name for name, export in parity.exports.items() if export.is_reference] == ["pytorch"]


def test_one_start_names_no_winner(tmp_path):
    figures = build(tmp_path, BOTH, rates={"grpc": [600.0]}, repetitions=1)
    found = verdict(figures, "grpc", Metric.P99)
    assert (found.outcome, found.winner) == (Outcome.ONE_START_ONLY, None)
    assert figures.warnings == (MeasuredOnce(),)


def test_a_target_that_failed_to_start_leaves_the_other_s_figures_and_no_verdict(tmp_path):
    figures = build(tmp_path, {"pytorch": TORCHSERVE}, asked=["pytorch", "tensorflow"])
    assert [item.measured for item in figures.targets] == [True, False]
    assert {(found.outcome, found.winner) for found in figures.verdicts} == {(Outcome.NO_COMMON_RATE, None)}
    assert not figures.parity.proven
    assert figures.warnings[:2] == (NotMeasured("tensorflow"), TrialsMissing(missing=6, planned=12))
    assert all(standing.place is None for ranking in figures.rankings for standing in ranking.standings)


def test_a_run_of_no_fixed_length_that_was_stopped_says_after_how_many_starts(tmp_path):
    run = write_run(tmp_path / "run", BOTH, rates={"grpc": [200.0]}, duration_s=1, repetitions=3, most=8)
    assert summary.build(run).warnings == ()  # it was decided, or its time was up
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "finished_at": None}))
    for path in run.glob("trials/*/trial.json"):
        record = json.loads(path.read_text())
        if (record["target"], record["repetition"]) == ("tensorflow", 3):
            shutil.rmtree(path.parent)
    assert summary.build(run).warnings == (NotFinished(2),)


def test_the_overload_is_measured_once_by_design_and_no_question(tmp_path):
    options: dict[str, Any] = {"rates": {"grpc": [200.0, 400.0]}, "duration_s": 2, "overload": {"grpc": 1100.0}}
    figures = build(tmp_path, BOTH, **options)
    assert figures.warnings == ()
    assert [found.offered_rate for found in figures.verdicts] == [200.0, 400.0]
    assert measurement(figures, "pytorch", "grpc", 1100.0).repetitions == 1
    assert next(item for item in figures.capacity if item.target == "pytorch").ci95 == (400.0, 1100.0)
    once = build(tmp_path / "once", BOTH, repetitions=1, **options)
    assert once.warnings == (MeasuredOnce(),)


def test_measurements_of_unequal_numbers_of_starts_stand_side_by_side(tmp_path):
    """As in a run that leaves what is decided: 200/s on two starts, 400/s on five."""
    servers = {"pytorch": replace(TORCHSERVE, apart=0.05), "tensorflow": replace(TF_SERVING, apart=0.05)}
    run = write_run(tmp_path / "run", servers, rates={"grpc": [200.0, 400.0]}, duration_s=3, repetitions=5, most=8)
    for path in run.glob("trials/*/trial.json"):
        record = json.loads(path.read_text())
        if record["offered_rate"] == 200.0 and record["repetition"] > 2:
            shutil.rmtree(path.parent)
    figures = summary.build(run)
    few, many = (measurement(figures, "pytorch", "grpc", rate) for rate in (200.0, 400.0))
    assert (few.repetitions, many.repetitions) == (2, 5)
    widths = [math.log(high / low) for low, high in (bounds(item.ci95.p99) for item in (few, many))]
    assert widths[0] > widths[1]
    assert {found.offered_rate: found.starts for found in figures.verdicts} == {200.0: 2, 400.0: 5}


def test_one_target_alone_is_asked_no_question(tmp_path):
    figures = build(tmp_path, {"pytorch": TORCHSERVE})
    assert (figures.verdicts, figures.rankings) == ((), ())
    assert len(figures.measurements) == 3


def test_a_stand_in_is_named_as_one(tmp_path):
    servers = {"pytorch": TORCHSERVE, "tensorflow": EMBEDDED}
    figures = build(tmp_path, servers, rates={"grpc": [200.0]}, duration_s=2)
    assert figures.target("tensorflow").stands_in_for == "tensorflow-serving"
    assert figures.warnings == (StandIn("tensorflow", "embedded-tfserving", "2.21.0", "tensorflow-serving"),)


def test_why_a_stand_in_ran_is_part_of_its_warning(tmp_path):
    noted = {"engine": "tensorflow-serving", "stand_in": "embedded-tfserving", "reason": "busy", "detail": "429"}
    warnings = [{"type": "stood-in", **noted}, {"type": "not-pinned"}]
    servers = {"pytorch": TORCHSERVE, "tensorflow": EMBEDDED}
    figures = build(tmp_path, servers, rates={"grpc": [200.0]}, duration_s=2, environment={"warnings": warnings})
    assert figures.warnings[:2] == (
        NotPinned(),
        StandIn("tensorflow", "embedded-tfserving", "2.21.0", "tensorflow-serving", WhyStandIn.BUSY, "429"),
    )


def test_three_targets_are_compared_each_with_each_and_ranked(tmp_path):
    servers = {"slow": TORCHSERVE, "batching": TF_SERVING, "plain": TF_SERVING}
    figures = build(tmp_path, servers, rates={"grpc": [600.0]}, repetitions=4)
    latency = [found for found in figures.verdicts if found.metric is Metric.P99]
    assert [(found.compared, found.winner) for found in latency] == [
        (("slow", "batching"), "batching"),
        (("slow", "plain"), "plain"),
        (("batching", "plain"), None),
    ]
    ranking = next(item for item in figures.rankings if item.metric is Metric.P99)
    assert [(item.target, item.place, item.behind) for item in ranking.standings] == [
        ("batching", 1, ()),
        ("plain", 1, ()),
        ("slow", 3, ("batching", "plain")),
    ]
    two = {"slow": TORCHSERVE, "batching": TF_SERVING}
    both = build(tmp_path / "both", two, rates={"grpc": [600.0]}, repetitions=4)
    alone = next(found for found in both.verdicts if found.metric is Metric.P99)
    assert latency[0].ratio == pytest.approx(alone.ratio, rel=0.02)
    assert (latency[0].p_adjusted or 0) > (alone.p_adjusted or 0)


def test_a_trial_without_one_ok_answer_is_invalid_and_does_not_break_the_rest(tmp_path):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [100.0]}, duration_s=2)
    for number in (1, 2):
        record = {"target": "pytorch", "protocol": "grpc", "offered_rate": 500.0, "repetition": number}
        write_trial(run / "trials" / f"dead{number}", {**record, "errors": {"connection": 900}}, [np.array([])] * 2)
    figures = summary.build(run)
    dead = measurement(figures, "pytorch", "grpc", 500.0)
    assert not dead.valid
    assert dead.latency_ms.p99 is None
    assert dead.goodput == 0
    assert measurement(figures, "pytorch", "grpc", 100.0).ci95.p99
    assert msgspec.json.decode(msgspec.json.encode(figures), type=Summary) == figures


def test_a_bare_folder_of_trials_is_enough(tmp_path):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [100.0]}, duration_s=2, environment={})
    for name in ("environment.json", "targets.json", "bundle-manifest.json", "wire-parity.json"):
        (run / name).unlink()
    (item,) = summary.build(run).targets
    assert (item.engine, item.engine_version) == ("torchserve", "0.12.0")


def test_a_trial_that_was_not_finished_is_not_counted(tmp_path):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [100.0]}, duration_s=2)
    (run / "trials" / "002").rename(run / "trials" / ".002.partial-17")
    assert summary.build(run).measurements[0].repetitions == 1


def test_write_leaves_one_whole_file(winner):
    figures = summary.write(winner)
    assert summary.read(winner) == figures
    assert not [path for path in winner.iterdir() if "partial" in path.name]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "experiment.toml").unlink(), "no experiment.toml"),
        (lambda run: (run / "experiment.toml").write_text("name = "), "experiment.toml: not valid TOML"),
        (lambda run: next(run.glob("trials/*/trial.json")).write_text("{"), "trial.json: not valid JSON"),
        (
            lambda run: next(run.glob("trials/*/trial.json")).write_text("{}"),
            "trial.json: Object missing required field",
        ),
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
