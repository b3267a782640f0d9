"""The capacity search against servers whose capacity the test knows, steady ones and moody ones."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loadtest.experiment.capacity_search import Thresholds, Try, look

STEPS: dict[str, Any] = {"growth": 1.4, "precision": 0.05}


def search(meets, start: float, repeats: int = 2, tries: Any = None, **steps: float) -> tuple[Any, list[Try]]:
    made = list(tries or [])
    for _ in range(200):
        found = look(made, start, repeats=repeats, **{**STEPS, **steps})
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
    assert len(tries) <= steps + 11  # the ramp, its first miss again, at most 4 bisections, and the repeats


def test_it_ramps_geometrically_then_bisects_then_repeats_both_boundaries():
    _, tries = search(lambda rate: rate <= 300, 200)
    # 392 is the first miss: it is repeated before anything is made of it.
    assert [one.rate for one in tries] == [200, 280, 392, 392, 331.3, 304.6, 292, 292, 304.6, 304.6]


def test_the_first_repetition_searches_and_the_next_one_repeats_the_boundaries():
    first, tries = search(lambda rate: rate <= 300, 200, repeats=1)
    assert not first.confirmed
    assert [one.rate for one in tries] == [200, 280, 392, 392, 331.3, 304.6, 292, 304.6]
    second, more = search(lambda rate: rate <= 300, 200, tries=tries)
    assert [one.rate for one in more[len(tries) :]] == [292, 304.6]
    assert second.confirmed
    assert (second.low, second.high) == (first.low, first.high)


def test_only_trials_that_decide_on_a_boundary_are_long_ones():
    made: list[Try] = []
    long = []
    while (found := look(made, 200, **STEPS)).next is not None:
        long += [found.next] if found.closing else []
        made.append(Try(found.next, found.next <= 300))
    assert long == [292, 304.6, 304.6]


def test_a_boundary_that_is_not_confirmed_is_tried_again_and_the_search_goes_on():
    _, tries = search(lambda rate: rate <= 300, 200, repeats=1)
    # The server is slower the second time: 292 misses.
    found, more = search(lambda rate: rate <= 285, 200, tries=tries)
    assert [one.rate for one in more[len(tries) :]][:2] == [292, 292]
    assert 270 < found.low <= 285 < found.high
    assert found.confirmed
    # And faster: 304.6 meets, and what lies above it is tried.
    found, more = search(lambda rate: rate <= 350, 200, tries=tries)
    assert 330 < found.low <= 350 < found.high
    assert found.confirmed


@given(st.integers(0, 12), st.floats(100, 2000))
def test_a_single_bad_trial_never_bounds_the_search(when, capacity):
    number = itertools.count()
    found, _ = search(lambda rate: rate <= capacity and next(number) != when, 500)
    assert found.low <= capacity < found.high <= found.low * 1.051 + 0.01
    assert found.confirmed


def test_a_machine_that_is_slow_for_a_while_does_not_leave_a_tenth_of_the_capacity():
    number = itertools.count()
    # From the second trial on, four in a row miss whatever the rate.
    found, tries = search(lambda rate: not 1 <= next(number) <= 4 and rate <= 700, 350)
    assert found.low > 650
    assert found.confirmed
    assert len(tries) < 40


def test_where_a_higher_rate_met_twice_a_lower_one_that_missed_is_looked_at_again():
    misses, meets = [Try(200, False)] * 2, [Try(400, True)] * 2
    assert look(misses + meets, 200, **STEPS).next == 200
    found = look([*misses, *meets, Try(200, True)], 200, **STEPS)
    assert (found.low, found.high) == (400, None)
    found = look([*misses, *meets, Try(200, False)], 200, **STEPS)
    assert (found.low, found.high) == (None, 200)


def test_what_five_trials_could_not_settle_widens_the_bracket():
    chance = [Try(300, met) for met in (True, False, True, False, True)]
    found = look([Try(285, True), Try(285, True), *chance, *[Try(310, False)] * 3], 200, **STEPS)
    assert (found.next, found.low, found.high, found.confirmed) == (None, 285, 310, True)
    # Nothing below it was tried, so that is next.
    found = look([*chance, *[Try(310, False)] * 3], 200, **STEPS)
    assert (found.next, found.closing) == (285.7, True)


def test_where_no_precision_is_asked_for_it_settles_what_has_been_found():
    ramped = [Try(200, True), Try(280, True), Try(392, False), Try(392, False)]
    assert look(ramped, 200, **STEPS).next == 331.3
    settle = {**STEPS, "precision": math.inf}
    # 200 is met by two trials, so only the upper boundary is left; it lacks one.
    found = look(ramped, 200, **settle)
    assert (found.next, found.closing, found.confirmed) == (392, True, False)
    found = look([*ramped, Try(392, False)], 200, **settle)
    assert (found.next, found.low, found.high, found.confirmed) == (None, 200, 392, True)
    # Of rates that contradict one another it decides none.
    found = look([*ramped, Try(331.3, True), Try(331.3, False)], 200, **settle)
    assert found.next == 392
    settled = [*ramped, Try(280, True), Try(392, False)]
    found = look(settled, 200, **settle)
    assert (found.next, found.low, found.high, found.confirmed) == (None, 280, 392, True)
    # Nor is that lost where the search would go on.
    found = look([*settled, Try(331.3, True)], 200, **STEPS)
    assert (found.next, found.low, found.high, found.confirmed) == (360.4, 280, 392, True)


def test_a_server_without_limits_and_one_that_meets_nothing_end_the_search():
    found, _ = search(lambda rate: True, 1000)
    assert (found.high, found.confirmed) == (None, True)
    found, _ = search(lambda rate: False, 1000)
    assert (found.low, found.high) == (None, 1.0)


def simulated(draw: np.random.Generator, below: float, above: float) -> tuple[float, Any, list[Try]]:
    """(the true capacity, what was found, the tries) of a search in two repetitions whose trials miss with probability
    `below` at rates that the server can take, and meet with probability `above` at others."""
    capacity, start = math.exp(draw.uniform(3, 10)), math.exp(draw.uniform(3, 10))
    tries: list[Try] = []
    for repeats in (1, 2):
        found, tries = search(
            lambda rate: draw.random() < (1 - below if rate <= capacity else above), start, repeats, tries, growth=2.0
        )
    return capacity, found, tries


def test_with_a_bad_trial_in_ten_it_finds_the_capacity_to_ten_percent_in_95_searches_of_a_hundred():
    draw = np.random.default_rng(20)
    close, confirmed, lengths = [], [], []
    for _ in range(600):
        capacity, found, tries = simulated(draw, below=0.1, above=0.05)
        close.append((found.low or 0) <= 1.1 * capacity and (found.high or math.inf) >= capacity / 1.1)
        close[-1] &= (found.high or math.inf) <= 1.21 * (found.low or 0)
        confirmed.append(found.confirmed)
        lengths.append(len(tries))
    assert np.mean(close) >= 0.95
    assert np.mean(confirmed) >= 0.97
    assert np.mean(lengths) <= 22
    assert max(lengths) <= 80


@given(st.integers(0, 2**32), st.floats(0.01, 0.2))
def test_it_ends_for_a_server_that_answers_by_chance_near_its_limit(seed, softness):
    draw = np.random.default_rng(seed)
    found, tries = search(lambda rate: draw.random() < 1 / (1 + (rate / 1000) ** (1 / softness)), 500)
    assert len(tries) < 100
    assert found.low is None or found.high is None or found.low < found.high


@given(st.lists(st.builds(Try, st.sampled_from([100.0, 140.0, 196.0, 165.6]), st.booleans())), st.randoms())
def test_the_next_step_depends_on_what_was_tried_and_not_on_the_order(tries, random):
    shuffled = random.sample(tries, len(tries))
    assert look(tries, 100, **STEPS) == look(shuffled, 100, **STEPS)


@given(st.lists(st.builds(Try, st.sampled_from([100.0, 140.0, 196.0, 165.6]), st.booleans()), min_size=1))
def test_the_best_threshold_contradicts_the_fewest_trials(tries):
    def contradicted(capacity: float) -> int:
        return sum(one.met != (one.rate <= capacity) for one in tries)

    seen = Thresholds(tries)
    at = [0.0, *seen.rates]
    assert contradicted(at[seen.best]) == min(map(contradicted, at))
    for index, rate in enumerate(seen.rates):
        assert seen.met_by(index) == min(map(contradicted, at[: index + 1])) - contradicted(at[seen.best])
        assert seen.missed_by(index) == min(contradicted(c) for c in at if c >= rate) - contradicted(at[seen.best])
