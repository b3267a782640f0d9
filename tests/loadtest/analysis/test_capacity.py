"""Capacities from votes: brackets, intervals and their reasons, against servers whose capacity the test knows."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loadtest.analysis import capacity, statistics
from loadtest.analysis.capacity import Vote
from loadtest.analysis.records import Capacity, OpenEnd, WhyOpen
from loadtest.experiment.capacity_search import Try, look
from loadtest.experiment.records import SearchRecord
from loadtest.experiment.settings import Slo

SLO = Slo()


def vote(rate: float, met: bool | None, repetition: int = 1, scenario: str = "ladder", target: str = "a") -> Vote:
    return Vote(target, "grpc", scenario, repetition, rate, met, counted=True)


def one(votes: list[Vote], search: SearchRecord | None = None) -> Capacity:
    (entry,) = capacity.of(votes, [search] if search else [], SLO)
    return entry


def ended(
    low: float | None, high: float | None, confirmed: bool, target: str = "a", repetition: int = 2, late: bool = False
) -> SearchRecord:
    """A search that ended with these boundaries, ``late``: by its time budget."""
    return SearchRecord(
        target=target,
        protocol="grpc",
        repetition=repetition,
        low=low,
        high=high,
        confirmed=confirmed,
        out_of_time=late,
    )


def both(rate: float, met: bool, scenario: str = "ladder") -> list[Vote]:
    return [vote(rate, met, 1, scenario), vote(rate, met, 2, scenario)]


def test_a_ladder_gives_the_rungs_around_the_capacity():
    entry = one([*both(100, True), *both(200, True), *both(400, False)])
    assert (entry.scenario, entry.bracket, entry.ci95) == ("ladder", (200, 400), (200, 400))
    assert entry.confirmed
    assert entry.open_ends == ()


def test_one_bad_trial_does_not_lower_a_ladder_s_capacity():
    entry = one([vote(100, False), vote(100, True, 2), *both(200, True), *both(400, False)])
    assert entry.max_rate == 200


def test_an_end_that_no_rate_bounds_is_open_and_says_why():
    entry = one([*both(100, True), *both(200, True)])
    assert entry.ci95 == (200, None)
    assert entry.open_ends == (OpenEnd(WhyOpen.NO_RATE_MISSED, 200),)
    entry = one([*both(100, False), *both(200, False)])
    assert (entry.max_rate, entry.ci95) == (None, (None, 100))
    assert entry.open_ends == (OpenEnd(WhyOpen.NO_RATE_MET, 100),)
    entry = one([vote(100, True), vote(200, False)])
    assert entry.ci95 == (None, None)
    assert entry.open_ends == (OpenEnd(WhyOpen.SELDOM_MET, 100), OpenEnd(WhyOpen.SELDOM_MISSED, 200))


def test_trials_that_are_not_valid_say_nothing():
    entry = one([vote(100, None), vote(200, None)])
    assert (entry.max_rate, entry.ci95) == (None, (None, None))
    assert entry.open_ends == (OpenEnd(WhyOpen.NOTHING_VALID),)


def test_a_search_that_used_a_trial_that_is_not_valid_is_not_confirmed():
    tries = [*both(100, True, "capacity"), *both(105, False, "capacity"), vote(105, False, 2, "capacity")]
    search = ended(100, 105, confirmed=True)
    assert one(tries, search).confirmed
    tries[0] = vote(100, None, 1, "capacity")
    assert not one(tries, search).confirmed


def test_what_the_ladder_says_narrows_the_end_that_a_search_had_no_time_to_settle():
    tries = [vote(150, True, 1, "capacity"), vote(300, False, 1, "capacity")]
    search = ended(150, 300, confirmed=False, late=True, repetition=1)
    assert one(tries, search).ci95 == (None, None)
    entry = one([*tries, *both(100, True), *both(200, False)], search)
    assert entry.max_rate == 150
    assert entry.ci95 == (100, 300)


@given(st.lists(st.builds(vote, st.sampled_from([50.0, 100.0, 105.0, 200.0]), st.booleans(), st.sampled_from([1, 2]))))
def test_an_interval_holds_the_bracket_and_each_open_end_has_a_reason(votes):
    for entry in capacity.of(votes, [], SLO):
        low, high = entry.ci95
        top, above = entry.bracket
        assert low is None or top is None or low <= top
        assert high is None or above is None or high >= above
        assert [low, high].count(None) == len(entry.open_ends)


def searched(draw: np.random.Generator, target: str, mean: float, apart: float) -> tuple[list[Vote], SearchRecord]:
    """The votes of a search in two repetitions, on servers that lie apart, which answer by chance near their limit; one
    trial in twenty misses for no reason of theirs, one in fifty meets."""
    tries: list[Try] = []
    votes = []
    start = mean * math.exp(draw.uniform(-1.2, 0))
    for repetition in (1, 2):
        limit = mean * math.exp(draw.normal(0, apart))
        while (found := look(tries, start, 2.0, 0.05, repetition)).next is not None:
            meets = 0.02 + 0.93 / (1 + (found.next / limit) ** 50)
            tries.append(Try(found.next, bool(draw.random() < meets)))
            votes.append(vote(found.next, tries[-1].met, repetition, "capacity", target))
    return votes, ended(found.low, found.high, found.confirmed, target)


def test_the_interval_covers_the_capacity_and_equal_servers_are_not_told_apart():
    draw = np.random.default_rng(5)
    covered, bounded, told_apart = [], [], []
    for _ in range(300):
        runs = [searched(draw, target, 700.0, apart=0.05) for target in "abcd"]
        entries = capacity.of([one for votes, _ in runs for one in votes], [values for _, values in runs], SLO)
        for entry in entries:
            low, high = entry.ci95
            bounded.append(None not in entry.ci95 or not entry.confirmed)
            covered.append((low or 0) <= 700 <= (high or math.inf))
        first, second = entries[:2]
        assert first.max_rate is not None
        assert second.max_rate is not None
        ratio = statistics.ratio_of_bounded(first.max_rate, first.ci95, second.max_rate, second.ci95)
        low, high = ratio.ci95 or [None, None]
        told_apart.append((low or 0) > 1 or (high or math.inf) < 1)
    assert all(bounded)
    assert np.mean(covered) >= 0.93
    assert np.mean(told_apart) <= 0.05
