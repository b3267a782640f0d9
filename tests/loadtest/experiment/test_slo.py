"""What a trial says of the SLO, and when it says nothing of the server."""

from __future__ import annotations

from typing import Any

import pytest

from loadtest.experiment.early_stopping import LONGEST_S
from loadtest.experiment.own_errors import Lack
from loadtest.experiment.records import (
    ArrivalsDropped,
    BoundTooLow,
    CoresTaken,
    HeldUp,
    Latency,
    NothingAnswered,
    NotProven,
    OtherUse,
    OutOf,
    Requests,
    RequestsFailed,
    SentLate,
    ServerOutOfFiles,
    Slip,
    Throttling,
    TooSlow,
    TrialRecord,
)
from loadtest.experiment.slo import says_nothing, why_missed, why_spoiled


def trial(
    *,
    sent: int = 1000,
    dropped: int = 0,
    p99: float | None = 20.0,
    slip: float | None = 0.1,
    max_in_flight: int = 4096,
    duration_s: float = 1.0,
    **values: Any,
) -> TrialRecord:
    return TrialRecord(
        target="pytorch",
        protocol="grpc",
        offered_rate=1000.0,
        duration_s=duration_s,
        requests=Requests(sent=sent, dropped=dropped),
        latency_ms=Latency(p50=10.0, p99=p99),
        schedule_slip_ms=Slip(p99=slip),
        max_in_flight=max_in_flight,
        **values,
    )


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, None),
        ({"errors": {"timeout": 1}}, None),
        ({"errors": {"timeout": 2}}, RequestsFailed(failed=2, sent=1000)),
        ({"errors": {"timeout": 1, "http_503": 2}}, RequestsFailed(failed=3, sent=1000)),
        ({"p99": 50.0}, None),
        ({"p99": 50.1}, TooSlow(p99_ms=50.1)),
        ({"p99": None}, NothingAnswered()),
        ({"dropped": 7}, ArrivalsDropped(dropped=7)),
    ],
)
def test_a_trial_misses_by_latency_errors_or_dropped_arrivals(values, why):
    assert why_missed(trial(**values), 50.0, 0.001) == why
    assert says_nothing(trial(**values), 50.0) is None


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"sent": 459, "late": 0}, None),
        ({"sent": 458, "late": 0}, NotProven(over=0, sent=458, needed=459)),
        ({"sent": 1001, "late": 3}, None),
        ({"sent": 1000, "late": 3}, NotProven(over=3, sent=1000, needed=1001)),
        ({"sent": 1001, "late": 3, "errors": {"timeout": 1}}, NotProven(over=4, sent=1001, needed=1157)),
        ({"sent": 5000, "late": 29, "errors": {"timeout": 4}}, None),
        ({"sent": 5000, "late": 30, "errors": {"timeout": 4}}, NotProven(over=34, sent=5000, needed=5014)),
        ({"sent": 5000, "late": 600, "p99": 60.0}, TooSlow(p99_ms=60.0)),
        ({"sent": 100, "late": 0, "dropped": 1}, ArrivalsDropped(dropped=1)),
    ],
)
def test_a_trial_meets_the_slo_where_its_requests_prove_the_percentile(values, why):
    assert why_missed(trial(slo_p99_ms=50.0, **values), 50.0, 0.001) == why


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"sent": 100, "late": 0}, None),
        ({"sent": 100, "late": 0, "duration_s": 29.9}, NotProven(over=0, sent=100, needed=459)),
        ({"sent": 100, "late": 0, "errors": {"timeout": 1}}, RequestsFailed(failed=1, sent=100)),
        ({"sent": 100, "late": 2, "p99": 60.0}, TooSlow(p99_ms=60.0)),
        ({"sent": 459, "late": 1}, NotProven(over=1, sent=459, needed=662)),  # it could have proven something
    ],
)
def test_a_trial_of_the_longest_kind_is_judged_by_its_percentile_where_so_few_requests_prove_nothing(values, why):
    longest = trial(slo_p99_ms=50.0, **{"duration_s": LONGEST_S, **values})
    assert why_missed(longest, 50.0, 0.001) == why


def test_answers_that_were_late_at_another_limit_leave_it_to_the_measured_percentile():
    other = trial(sent=100, slo_p99_ms=10.0, late=50)
    assert why_missed(other, 50.0, 0.001) is None
    assert why_missed(other, 10.0, 0.001) == TooSlow(p99_ms=20.0)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"errors": {"own_files": 3}}, OutOf(lack=Lack.FILES, requests=3)),
        ({"errors": {"own_ports": 1}}, OutOf(lack=Lack.PORTS, requests=1)),
        ({"throttled": Throttling(periods=29, seconds=1.5)}, HeldUp(periods=29, seconds=1.5)),
        ({"server_throttled": Throttling(periods=29, seconds=1.5)}, None),
        ({"others": OtherUse(server=0.11, generator=0.02)}, CoresTaken(share=0.11)),
        ({"others": OtherUse(server=0.1)}, None),
        ({"notes": (ServerOutOfFiles(times=7),)}, ServerOutOfFiles(times=7)),
    ],
)
def test_what_the_machine_did_says_nothing_of_the_server(values, why):
    assert says_nothing(trial(**values), 50.0) == why
    # Only what may go better the next time is repeated.
    assert (why_spoiled(trial(**values)) is not None) == isinstance(why, CoresTaken)


def test_a_generator_that_sent_late_says_nothing_of_the_server():
    assert says_nothing(trial(slip=1.2), 50.0) == SentLate(slip_p99_ms=1.2)
    assert says_nothing(trial(slip=None), 50.0) is None


def test_arrivals_that_the_generator_s_own_bound_dropped_say_nothing_of_the_server():
    # At 1,000/s a server that answers in 50 ms holds 50 requests: with room for 40 it could not have met the SLO.
    low = BoundTooLow(dropped=7, max_in_flight=40, held=50.0)
    assert says_nothing(trial(dropped=7, max_in_flight=40), 50.0) == low
    assert says_nothing(trial(dropped=7, max_in_flight=60), 50.0) is None
    assert says_nothing(trial(max_in_flight=40), 50.0) is None
