"""The capacity search against servers whose capacity the test knows, steady ones and moody ones."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loadtest.generator.capacity_search import Try, look

STEPS: dict[str, Any] = {"growth": 1.4, "precision": 0.05}


def search(meets, start: float, repeats: int = 2, tries: Any = None) -> tuple[Any, list[Try]]:
    made = list(tries or [])
    for _ in range(100):
        found = look(made, start, repeats=repeats, **STEPS)
        if found.next is None:
            return found, made
        made.append(Try(found.next, meets(found.next)))
    raise AssertionError("the search does not end")


@given(st.floats(5, 50_000), st.floats(1, 60_000))
def test_it_finds_a_capacity_to_five_percent_from_wherever_it_starts(capacity, start):
    found, tries = search(lambda rate: rate <= capacity, start)
    assert found.low <= capacity < found.high
    assert found.high <= found.low * 1.051 + 0.01
    assert found.confirmed
    rates = [one.rate for one in tries]
    assert rates.count(found.low) >= 2  # each boundary was repeated
    assert rates.count(found.high) >= 2
    steps = abs(math.log(capacity / start)) / math.log(STEPS["growth"])
    assert len(tries) <= steps + 9  # the ramp, at most 4 bisections, and the repeats


def test_it_ramps_geometrically_then_bisects_then_repeats_both_boundaries():
    _, tries = search(lambda rate: rate <= 300, 200)
    assert [one.rate for one in tries] == [200, 280, 392, 331.3, 304.6, 292, 292, 304.6]


def test_the_first_repetition_searches_and_the_next_one_only_repeats_the_boundaries():
    first, tries = search(lambda rate: rate <= 300, 200, repeats=1)
    assert not first.confirmed
    assert [one.rate for one in tries] == [200, 280, 392, 331.3, 304.6, 292]
    second, more = search(lambda rate: rate <= 300, 200, tries=tries)
    assert [one.rate for one in more[len(tries) :]] == [292, 304.6]
    assert second.confirmed
    assert (second.low, second.high) == (first.low, first.high)


def test_a_boundary_that_is_not_confirmed_is_tried_a_third_time_and_the_search_goes_on():
    _, tries = search(lambda rate: rate <= 300, 200, repeats=1)
    # The server is slower the second time: 292 misses, twice.
    found, more = search(lambda rate: rate <= 285, 200, tries=tries)
    assert [one.rate for one in more[len(tries) :]][:2] == [292, 292]
    assert 270 < found.low <= 285 < found.high
    assert found.confirmed


def test_a_single_fluke_does_not_move_the_boundary():
    flukes = itertools.chain([False], itertools.repeat(True))
    found, tries = search(lambda rate: rate <= 300 and (rate != 292 or next(flukes)), 200)
    assert found.low == 292
    assert [one.rate for one in tries].count(292) == 3


def test_a_server_without_limits_and_one_that_meets_nothing_end_the_search():
    found, _ = search(lambda rate: True, 1000)
    assert (found.high, found.confirmed) == (None, True)
    found, _ = search(lambda rate: False, 1000)
    assert (found.low, found.high) == (None, 1.0)


@given(st.integers(0, 2**32), st.floats(0.01, 0.2))
def test_it_ends_for_a_server_that_answers_by_chance_near_its_limit(seed, softness):
    draw = np.random.default_rng(seed)
    found, tries = search(lambda rate: draw.random() < 1 / (1 + (rate / 1000) ** (1 / softness)), 500)
    assert len(tries) < 60
    assert found.low is None or found.high is None or found.low < found.high


@given(st.lists(st.builds(Try, st.sampled_from([100.0, 140.0, 196.0, 165.6]), st.booleans())))
def test_any_history_has_a_next_step_and_the_same_one_again(tries):
    assert look(tries, 100, **STEPS) == look(tries, 100, **STEPS)
