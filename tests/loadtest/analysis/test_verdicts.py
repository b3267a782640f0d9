"""Verdicts do not depend on which target is named first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.analysis import verdicts
from loadtest.analysis.statistics import Resampled
from loadtest.analysis.verdicts import Compared

SLO = {"p99_ms": 50.0, "error_ratio": 0.001}
NAMES = ("p99", "goodput", "achieved_rate")


def compared(target: str, values: dict[str, Any]) -> Compared:
    """A measurement at 100/s for 10 s with so much goodput (share of the offered rate) and p99 (ms)."""
    rng = np.random.default_rng(values["seed"])
    estimate = np.array([math.log(values["p99"]), values["goodput"], 1.0])
    deviation = rng.normal(0, values["spread"], (400, 3)) * [1.0, values["goodput"], 0.0]
    figures = {
        "valid": values["valid"],
        "repetitions": values["repetitions"],
        "error_ratio": values["error_ratio"],
        "duration_s": 10.0,
        "achieved_rate": values["achieved_rate"],
        "goodput": 100 * values["goodput"],
        "requests": {"scheduled": 1000},
        "latency_ms": {"p99": values["p99"]},
        "ci95": {"p99": [values["p99"] * 0.9, values["p99"] * 1.1], "goodput": [0.0, 100.0]},
    }
    resampled = Resampled(NAMES, estimate, estimate + deviation, estimate[None], estimate[None], 1.0)
    return Compared((target, "grpc", "ladder", 100.0), figures, resampled, deviation)


def limit(target: str, values: dict[str, Any]) -> dict[str, Any]:
    ends = [values["max_rate"] and values["max_rate"] * (1 - values["below"]), None]
    if values["above"] is not None and values["max_rate"]:
        ends[1] = values["max_rate"] * (1 + values["above"])
    entry = {"target": target, "protocol": "grpc", "scenario": "capacity", "confirmed": values["confirmed"]}
    return {**entry, "max_rate": values["max_rate"], "ci95": ends}


def decide(order: tuple[str, str], one: dict[str, Any], other: dict[str, Any]) -> list[dict[str, Any]]:
    values = {"one": one, "other": other}
    parity = {"proven": True}
    measured = [compared(target, values[target]) for target in order]
    limits = [limit(target, values[target]) for target in order]
    return verdicts.decide(order, ["grpc"], measured, limits, SLO, parity)


VALUES = st.fixed_dictionaries(
    {
        "p99": st.sampled_from([5.0, 20.0, 40.0, 400.0]),
        "goodput": st.sampled_from([0.0, 1e-4, 0.5, 0.9, 1.0]),
        "spread": st.sampled_from([0.0, 0.01, 0.3]),
        "seed": st.integers(0, 9),
        "valid": st.sampled_from([True, True, True, False]),
        "repetitions": st.sampled_from([1, 2, 2]),
        "error_ratio": st.sampled_from([0.0, 0.0, 0.01]),
        "achieved_rate": st.sampled_from([100.0, 100.0, 50.0]),
        "max_rate": st.sampled_from([None, 100.0, 105.0, 200.0]),
        "below": st.sampled_from([0.0, 0.05]),
        "above": st.sampled_from([None, 0.05, 0.2]),
        "confirmed": st.sampled_from([True, True, False]),
    }
)


def turned(value: float | None) -> float | None:
    """1 / value, where 0 and "without bound" are each other's."""
    return None if value in (0, None) else 1 / (value or 1)


@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES)
def test_targets_that_change_places_have_the_same_winner_and_ratio_and_interval_turned_round(one, other):
    found, swapped = decide(("one", "other"), one, other), decide(("other", "one"), one, other)
    assert len(found) == len(swapped) == 3
    for first, second in zip(found, swapped, strict=True):
        assert first["winner"] == second["winner"]
        assert first["question"] == second["question"]
        for says in ("No verdict", "No difference shown", "No winner is named"):
            assert (says in first["why"]) == (says in second["why"])
        assert (first["ratio"] or 0) == pytest.approx(turned(second["ratio"]) or 0)
        assert (first["ci95"] is None) == (second["ci95"] is None)
        if first["ci95"]:
            ends = [turned(end) or 0 for end in reversed(second["ci95"])]
            assert [end or 0 for end in first["ci95"]] == pytest.approx(ends)
        assert (first["p_value"] or 0) == pytest.approx(second["p_value"] or 0)


FINE = {
    "p99": 20.0,
    "goodput": 1.0,
    "spread": 0.02,
    "seed": 1,
    "valid": True,
    "repetitions": 2,
    "error_ratio": 0.0,
    "achieved_rate": 100.0,
    "max_rate": 100.0,
    "below": 0.0,
    "above": 0.05,
    "confirmed": True,
}


def test_a_server_that_answers_nothing_in_time_loses_whichever_is_named_first():
    dead = {**FINE, "goodput": 0.0, "p99": 900.0, "seed": 2}
    for order, ratio in ((("one", "other"), None), (("other", "one"), 0.0)):
        verdict = next(item for item in decide(order, FINE, dead) if item["metric"] == "goodput")
        assert verdict["winner"] == "one"
        assert verdict["ratio"] == ratio
        # None of 10 seconds: at most 0.3 of what was offered.
        assert verdict["ci95"] == ([pytest.approx(1 / 0.3), None] if ratio is None else [0.0, pytest.approx(0.3)])
        assert ("ratio without bound (at least 3.33)" in verdict["why"]) == (ratio is None)


def test_two_servers_that_answer_nothing_in_time_are_not_told_apart():
    dead = {**FINE, "goodput": 0.0}
    for failing in (dead, {**dead, "error_ratio": 0.01}):
        verdict = next(item for item in decide(("one", "other"), dead, failing) if item["metric"] == "goodput")
        assert (verdict["winner"], verdict["ratio"], verdict["ci95"]) == (None, None, None)
        assert verdict["why"].startswith("No difference shown")
