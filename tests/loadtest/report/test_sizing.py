"""Cost and replicas, from a capacity that the test knows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.analysis.records import Cost, ExperimentInfo, LadderInfo, Summary
from loadtest.report import sizing
from tests.loadtest.runs import figures as build


def figures(cost: Cost | None = None, batch: int = 1, **entry: Any) -> Summary:
    experiment = ExperimentInfo(cost=cost or Cost(), ladder=LadderInfo(batch=batch))
    known = build.capacity("pytorch", **{"ci95": (400.0, 800.0), **entry})
    return build.summary(["pytorch"], experiment=experiment, capacity=(known,))


def test_a_million_predictions_cost_what_a_full_server_costs_for_that_long():
    # 500 images/s are 1.8 million an hour: 0.9 an hour buys 1.8 million, so a million costs 0.5.
    plan = sizing.plan(figures(Cost(price_per_hour=0.9, currency="EUR")))
    (only,) = plan.sizings
    assert only.cost_per_million == pytest.approx(0.5)
    assert only.cost_ci95 == pytest.approx([0.3125, 0.625])  # at 800/s and at 400/s
    assert (plan.price_per_hour, plan.currency) == (0.9, "EUR")


def test_every_image_of_a_request_is_a_prediction():
    (only,) = sizing.plan(figures(Cost(price_per_hour=0.9), batch=4)).sizings
    assert (only.requests_per_s, only.images_per_s, only.images_ci95) == (500.0, 2000.0, (1600.0, 3200.0))
    assert only.cost_per_million == pytest.approx(0.125)


def test_the_experiments_rate_is_sized_with_one_server_to_spare():
    plan = sizing.plan(figures(Cost(expected_rate=1200.0)))
    (replicas,) = plan.sizings[0].replicas
    assert plan.expected
    assert (replicas.needed, replicas.with_spare, replicas.cautious) == (3, 4, 4)
    (replicas,) = sizing.plan(figures(Cost(expected_rate=1500.0))).sizings[0].replicas
    assert (replicas.with_spare, replicas.cautious) == (4, 5)  # 3 at 500/s, 4 at the interval's lower end of 400/s


def test_without_a_price_or_a_rate_nothing_is_assumed():
    plan = sizing.plan(figures())
    assert plan.price_per_hour is None
    assert plan.sizings[0].cost_per_million is None
    assert [item.rate for item in plan.sizings[0].replicas] == list(sizing.EXAMPLE_RATES)


def test_without_a_rate_within_the_slo_nothing_is_said():
    (only,) = sizing.plan(figures(Cost(price_per_hour=1.0), max_rate=None, ci95=(None, 100.0))).sizings
    assert (only.images_per_s, only.cost_per_million, only.replicas) == (None, None, [])


def test_an_open_end_of_the_interval_stays_open():
    (only,) = sizing.plan(figures(Cost(price_per_hour=0.9), ci95=(500.0, None))).sizings
    assert only.cost_ci95 == (None, pytest.approx(0.5))


def test_a_search_is_believed_before_a_ladder():
    found = build.capacity("pytorch", scenario="capacity", max_rate=612.5)
    one = build.summary(["pytorch"], capacity=(build.capacity("pytorch"), found))
    assert [item.requests_per_s for item in sizing.plan(one).sizings] == [612.5]


@given(st.floats(0.1, 1e7), st.floats(0.1, 1e5))
def test_with_one_server_gone_the_rest_still_carry_the_rate(rate, capacity):
    needed, with_spare = sizing.replicas(rate, capacity)
    assert with_spare == needed + 1
    assert needed * capacity >= rate * (1 - 1e-6)
    assert (needed - 1) * capacity < rate
