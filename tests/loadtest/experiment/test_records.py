"""Records on disk: written and read back, and those of older runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from loadtest.experiment import records
from loadtest.experiment.questions import Family, Metric
from loadtest.experiment.records import (
    ArrivalsCheck,
    ConnectionsLost,
    DecidedQuestion,
    Decisions,
    Environment,
    Latency,
    Requests,
    SearchRecord,
    SearchStep,
    ServerDied,
    ServerFigures,
    Slip,
    SpoiledAttempt,
    TooSlow,
    TrialRecord,
    WarmUpAttempt,
    WarmUpRecord,
    Window,
)
from loadtest.experiment.staircase import Try
from models.problem import Problem

REQUESTS = Requests(scheduled=11, sent=10, completed=10, ok=9, dropped=1)
TRIAL = TrialRecord(
    id="t-1",
    target="pytorch",
    engine="torchserve",
    engine_version="0.12.0",
    protocol="grpc",
    offered_rate=200.0,
    duration_s=2.0,
    requests=REQUESTS,
    errors={"status 503": 1},
    latency_ms=Latency(p50=2.5, p99=8.0),
    slo_p99_ms=50.0,
    late=3,
    arrivals_check=ArrivalsCheck(gaps=9, statistic=0.72, distance=0.08, allowed=0.1, ok=True),
    schedule_slip_ms=Slip(p50=0.1, p99=0.3, max=1.5),
    notes=(ServerDied(after_s=1.2, lost=7), ConnectionsLost(after_s=0.5, lost=2)),
    spoiled=(SpoiledAttempt(folder="t-1-1", schedule_slip_ms=Slip(p99=3.0)),),
)
WARM_UP = WarmUpRecord(
    id="w",
    target="pytorch",
    protocol="grpc",
    throughput=100.0,
    windows=(Window(t=0.5, rate=90.0, p50_ms=2.0), Window(t=1.0, rate=0.0)),
    unsteady_attempts=(WarmUpAttempt(protocol="grpc", throughput=50.0, steady=False, reached_cap=True),),
)
SEARCH = SearchRecord(
    target="pytorch",
    protocol="rest",
    centre=110.0,
    rate=101.5,
    sd=0.07,
    steps=(SearchStep(trial="s-1", rate=120.0, met=False, why_not=TooSlow(p99_ms=60.0)), SearchStep(rate=9, met=True)),
    tries=(Try(120.0, False), Try(9.0, True)),
)

CAPACITY = DecidedQuestion(
    metric=Metric.CAPACITY,
    family=Family.CAPACITY,
    protocol="grpc",
    compared=("pytorch", "tensorflow"),
    rate=0.0,
    starts=4,
    decided=True,
    p_adjusted=0.0123,
)
AT_OWN_RATE = replace(CAPACITY, metric=Metric.P99, family=Family.LATENCY, rate=300.0, starts=3, decided=False)


@pytest.mark.parametrize(
    ("record", "read"),
    [
        (TRIAL, records.read_trial),
        (WARM_UP, records.read_warm_up),
        (SEARCH, records.read_search),
        (ServerFigures(throughput=99.0, source="prometheus 2.42.0"), records.read_server),
        (Decisions(looks=(3, 4, 6), over=True, questions=(CAPACITY, AT_OWN_RATE)), records.read_decisions),
    ],
)
def test_what_was_written_is_read_back(tmp_path, record, read):
    (tmp_path / "record.json").write_text(records.encode(record))
    assert read(tmp_path / "record.json") == record


def test_keys_of_another_kind_of_load_are_left_out():
    values = records.values_of(TRIAL)
    assert not {"concurrency", "by_model", "arrivals"} & set(values)
    assert values["warm_up"] is None
    assert values["requests"] == {"scheduled": 11, "sent": 10, "completed": 10, "ok": 9, "dropped": 1}


def test_late_answers_are_left_out_where_none_were_counted(tmp_path):
    values = records.values_of(replace(TRIAL, slo_p99_ms=None, late=None))
    assert not {"slo_p99_ms", "late"} & set(values)
    (tmp_path / "trial.json").write_text(json.dumps(values))
    assert records.read_trial(tmp_path / "trial.json").late is None


def test_sentences_of_an_older_run_become_notes(tmp_path):
    lost = "s into the trial: 31 requests failed to connect or lost their connection"
    values: dict[str, Any] = {
        **records.values_of(TRIAL),
        "notes": [
            f"the server died or became unreachable 4.5 {lost}",
            f"the server refused or closed connections 0.2 {lost}",
        ],
        "future": 1,
    }
    (tmp_path / "trial.json").write_text(json.dumps(values))
    notes = records.read_trial(tmp_path / "trial.json").notes
    assert notes == (ServerDied(after_s=4.5, lost=31), ConnectionsLost(after_s=0.2, lost=31))


def test_an_older_search_told_its_reasons_in_words(tmp_path):
    values = records.values_of(SEARCH)
    values["steps"] = [{"trial": "s-1", "rate": 120.0, "p99_ms": 60.0, "met": False, "why_not": "p99 60.0 ms"}]
    (tmp_path / "search.json").write_text(json.dumps(values))
    (step,) = records.read_search(tmp_path / "search.json").steps
    assert (step.met, step.why_not) == (False, None)


def test_a_search_of_an_older_run_had_brackets_and_no_centre(tmp_path):
    older: dict[str, Any] = {"target": "pytorch", "protocol": "rest", "low": 100.0, "high": 105.0, "confirmed": True}
    older["tries"] = [{"rate": 100.0, "met": True}, {"rate": 105.0, "met": False}]
    (tmp_path / "search.json").write_text(json.dumps(older))
    found = records.read_search(tmp_path / "search.json")
    assert (found.centre, found.rate, found.sd) == (0.0, None, None)
    assert found.tries == (Try(100.0, True), Try(105.0, False))


def test_an_older_run_wrote_no_decisions(tmp_path):
    assert records.read_decisions(tmp_path / "decisions.json") is None
    (tmp_path / "decisions.json").write_text('{"looks": 3}')
    with pytest.raises(Problem, match=r"decisions\.json: .*looks.*; run the experiment again"):
        records.read_decisions(tmp_path / "decisions.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not valid JSON"), ("[]", "array"), ('{"target": "x"}', "protocol"), (None, "cannot be read")],
)
def test_a_damaged_file_is_named(tmp_path, text, words):
    path = tmp_path / "trial.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Problem, match=rf"trial\.json: .*{words}.*repeat the trial"):
        records.read_trial(path)


def test_notes_of_a_run_of_either_format(tmp_path):
    path = tmp_path / "environment.json"
    assert records.read_environment(path) is None
    path.write_text(json.dumps({"warnings": ["interrupted", {"type": "resumed", "at": 5.0}], "libraries": None}))
    found = records.read_environment(path)
    assert found == Environment(warnings=(records.Remark(text="interrupted"), records.Resumed(at=5.0)))
    path.write_text(records.encode(found))
    assert records.read_environment(path) == found
