"""What the terminal says while a run goes on: every kind of step has a line that shows its values."""

from __future__ import annotations

import io
from typing import get_args

import pytest
from msgspec.structs import replace
from rich.console import Console

from loadtest.experiment import steps
from loadtest.experiment.meter_records import GpuMemory
from loadtest.experiment.own_errors import Lack
from loadtest.experiment.progress import RunProgress
from loadtest.experiment.records import (
    ArrivalsDropped,
    BoundTooLow,
    CoresTaken,
    FirstError,
    HeldUp,
    Latency,
    NoPrometheus,
    NothingAnswered,
    NotProven,
    OtherProcess,
    OutOf,
    Requests,
    RequestsFailed,
    SaysNothing,
    SearchRecord,
    SearchStep,
    SentLate,
    ServerOutOfFiles,
    Slip,
    SloMiss,
    TooSlow,
    TrialRecord,
)
from loadtest.report import progress_words

TRIAL = TrialRecord(
    target="pytorch",
    protocol="grpc",
    offered_rate=250.0,
    repetition=2,
    duration_s=1.0,
    requests=Requests(sent=10),
    errors={"timeout": 2, "http_503": 1},
    latency_ms=Latency(p50=1.25, p99=9.5),
    schedule_slip_ms=Slip(p99=0.41),
)
SEARCH = SearchRecord(
    target="pytorch",
    protocol="rest",
    repetition=3,
    rate=1640.0,
    sd=0.05,
    steps=(SearchStep(rate=1600.0, met=True), SearchStep(rate=1700.0, met=False)),
)
SILENT = replace(SEARCH, rate=None, sd=None)
SAID: list[tuple[steps.Step, list[str]]] = [
    (steps.Noted(NoPrometheus()), ["note", "Prometheus"]),
    (steps.Resumed(3), ["3 trials"]),
    (steps.StartingServer("pytorch"), ["pytorch"]),
    (steps.TimingModel("pytorch"), ["pytorch"]),
    (steps.Probed("pytorch", {"grpc": 1234.0, "rest": 567.0}, 32), ["pytorch", "grpc 1,234/s", "rest 567/s", "32"]),
    (steps.WarmingUp("pytorch", "grpc"), ["pytorch grpc"]),
    (steps.WarmUpNotSteady("pytorch", "grpc", 15.0), ["note", "pytorch grpc", "15 s"]),
    (steps.UnderLoad("pytorch", "grpc", 250.0, 248, 9.53), ["pytorch grpc", "250/s", "248/s", "9.5 ms"]),
    (steps.RateTried("pytorch", "grpc", 250.0, TooSlow(p99_ms=61.2)), ["250/s", "61.2 ms"]),
    (steps.TrialSpoiled("pytorch", "grpc", SentLate(slip_p99_ms=12.34)), ["note", "12.3 ms", "repeated"]),
    (
        steps.TrialSpoiled(
            "pytorch", "grpc", CoresTaken(share=0.31, by=(OtherProcess(name="cc1", pid=42, cpus=0.62),))
        ),
        ["note", "31 %", "cc1 (0.62 CPUs, pid 42)", "repeated"],
    ),
    (steps.TrialEnded(TRIAL), ["start 2", "pytorch grpc", "250/s", "1.25 ms", "9.50 ms", "0.41 ms", "3 errors"]),
    # 1640 × exp(∓1.96 × 0.05)
    (steps.SearchEnded(SEARCH), ["start 3", "pytorch rest", "1,640/s", "1,487-1,809", "2 trials"]),
    (steps.RatesChosen({"grpc": (300.0, 620.0), "rest": (90.5,)}), ["grpc 300, 620", "rest 90.5", "requests/s"]),
    (steps.Looked(4, 2, 8, over=False), ["look", "4 starts", "2 of 8 questions"]),
    (
        steps.GpuMemoryExpected("a", GpuMemory(processes=3, weights_bytes=2**27, context_bytes=2**28, share=0.4)),
        ["a: ", "1.12 GiB", "3 processes", "128 MiB", "256 MiB", "40 %"],
    ),
]
REASONS = [
    (SentLate(slip_p99_ms=1.2), ["1.20 ms"]),
    (BoundTooLow(dropped=7, max_in_flight=40, held=50.0), ["7", "40", "50"]),
    (ArrivalsDropped(dropped=7), ["7"]),
    (RequestsFailed(failed=2, sent=1000), ["2", "1000"]),
    (NothingAnswered(), ["no request"]),
    (TooSlow(p99_ms=50.1), ["50.1 ms"]),
    (NotProven(over=3, sent=990, needed=1001), ["3 of 990", "1001"]),
    (CoresTaken(share=0.314), ["31 %"]),
    (HeldUp(periods=29, seconds=1.2), ["29 times", "1.20 s"]),
    (OutOf(lack=Lack.FILES, requests=7), ["the generator itself", "file descriptors", "7 requests"]),
    (ServerOutOfFiles(times=10_176), ["the server", "file descriptors", "10176"]),
    (
        RequestsFailed(failed=9, sent=9, first_error=FirstError(kind="http_400", after_s=0.2, said="batch too large")),
        ["9 of 9", "http_400", "batch too large"],
    ),
]


@pytest.mark.parametrize(("step", "shown"), SAID, ids=[type(step).__name__ for step, _ in SAID])
def test_a_step_is_one_line_that_shows_its_values(step, shown):
    line = progress_words.line(step)
    assert "\n" not in line
    assert [one for one in shown if one not in line] == []


@pytest.mark.parametrize(("reason", "shown"), REASONS, ids=[type(reason).__name__ for reason, _ in REASONS])
def test_a_reason_shows_its_values(reason, shown):
    assert [one for one in shown if one not in progress_words.reason(reason)] == []


def test_no_kind_is_left_out():
    assert {type(step) for step, _ in SAID} == set(get_args(steps.Step))
    assert {type(reason) for reason, _ in REASONS} == {*get_args(SaysNothing), *get_args(SloMiss)}


def test_a_search_whose_trials_say_nothing_names_no_rate():
    line = progress_words.line(steps.SearchEnded(SILENT))
    assert "none of 2 trials" in line
    assert "/s" not in line


def test_the_last_look_says_that_the_run_is_over():
    during, last = (progress_words.line(steps.Looked(8, 7, 8, over=over)) for over in (False, True))
    assert during.startswith("look ")
    assert last.startswith("done ")
    assert "8 starts of each server 7 of 8 questions" in last


def test_a_trial_that_is_no_ladder_says_its_scenario():
    assert "soak: p50" in progress_words.line(steps.TrialEnded(replace(TRIAL, scenario="soak")))
    unanswered = replace(TRIAL, latency_ms=Latency())
    assert "250/s: no answer was ok, 3 errors" in progress_words.line(steps.TrialEnded(unanswered))


def test_an_open_loop_says_what_it_offers_and_a_closed_one_does_not():
    opened, closed = (progress_words.line(steps.UnderLoad("a", "grpc", rate, 7, None)) for rate in (9.0, None))
    assert "9/s" in opened
    assert closed.count("/s") == 1


def test_without_a_terminal_only_what_lasts_is_printed():
    out = io.StringIO()
    with RunProgress(progress_words.line, Console(file=out, width=200)) as progress:
        for step, _ in SAID:
            progress.tell(step)
    lines = out.getvalue().splitlines()
    assert lines == [progress_words.line(step) for step, _ in SAID if isinstance(step, steps.LASTING)]
    assert len(lines) == 11
