"""What a trial says of the SLO, and when it says nothing of the server."""

from __future__ import annotations

from typing import Any

import pytest

from loadtest.experiment.records import (
    ArrivalsDropped,
    BoundTooLow,
    Latency,
    NothingAnswered,
    Requests,
    RequestsFailed,
    SentLate,
    Slip,
    TooSlow,
    TrialRecord,
)
from loadtest.experiment.slo import says_nothing, why_missed


def trial(
    *, dropped: int = 0, p99: float | None = 20.0, slip: float | None = 0.1, max_in_flight: int = 4096, **values: Any
) -> TrialRecord:
    return TrialRecord(
        target="pytorch",
        protocol="grpc",
        offered_rate=1000.0,
        duration_s=1.0,
        requests=Requests(sent=1000, dropped=dropped),
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


def test_a_generator_that_sent_late_says_nothing_of_the_server():
    assert says_nothing(trial(slip=1.2), 50.0) == SentLate(slip_p99_ms=1.2)
    assert says_nothing(trial(slip=None), 50.0) is None


def test_arrivals_that_the_generator_s_own_bound_dropped_say_nothing_of_the_server():
    # At 1,000/s a server that answers in 50 ms holds 50 requests: with room for 40 it could not have met the SLO.
    low = BoundTooLow(dropped=7, max_in_flight=40, held=50.0)
    assert says_nothing(trial(dropped=7, max_in_flight=40), 50.0) == low
    assert says_nothing(trial(dropped=7, max_in_flight=60), 50.0) is None
    assert says_nothing(trial(max_in_flight=40), 50.0) is None
