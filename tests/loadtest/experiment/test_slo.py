"""What a trial says of the SLO, and when it says nothing of the server."""

from __future__ import annotations

from typing import Any

import pytest

from loadtest.experiment.slo import says_nothing, why_missed


def trial(**values: Any) -> dict[str, Any]:
    requests = {"sent": 1000, "dropped": values.pop("dropped", 0)}
    p99 = values.pop("p99", 20.0)
    slip = values.pop("slip", 0.1)
    return {
        "requests": requests,
        "errors": values.pop("errors", {}),
        "latency_ms": {"p50": 10.0, "p99": p99},
        "schedule_slip_ms": {"p99": slip},
        "offered_rate": 1000.0,
        "max_in_flight": 4096,
        **values,
    }


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, ""),
        ({"errors": {"timeout": 1}}, ""),
        ({"errors": {"timeout": 2}}, "2 of 1000 requests failed"),
        ({"p99": 50.1}, "p99 50.1 ms"),
        ({"p99": None}, "no request was answered"),
        ({"dropped": 7}, "7 arrivals dropped"),
    ],
)
def test_a_trial_misses_by_latency_errors_or_dropped_arrivals(values, why):
    assert why_missed(trial(**values), 50.0, 0.001) == why
    assert says_nothing(trial(**values), 50.0) == ""


def test_a_generator_that_sent_late_says_nothing_of_the_server():
    assert "slip p99 1.20 ms" in says_nothing(trial(slip=1.2), 50.0)


def test_arrivals_that_the_generator_s_own_bound_dropped_say_nothing_of_the_server():
    # At 1,000/s a server that answers in 50 ms holds 50 requests: with room for 40 it could not have met the SLO.
    assert "max_in_flight = 40 is less than the 50" in says_nothing(trial(dropped=7, max_in_flight=40), 50.0)
    assert says_nothing(trial(dropped=7, max_in_flight=60), 50.0) == ""
    assert says_nothing(trial(max_in_flight=40), 50.0) == ""
