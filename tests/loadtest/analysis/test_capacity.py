"""Capacities from trials: of a ladder between its rates, of searches as the mean of starts, with intervals that cover
what the test knows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.analysis import capacity, start_means
from loadtest.analysis.records import Capacity, OpenEnd, WhyOpen
from loadtest.analysis.saved_run import SavedTrial
from loadtest.experiment import decision, staircase, starts
from loadtest.experiment.boundary import Binding, Shape
from loadtest.experiment.decision import Figure
from loadtest.experiment.questions import Metric
from loadtest.experiment.records import Latency, Requests, SearchRecord, Slip, TrialRecord
from loadtest.experiment.settings import Slo
from loadtest.experiment.starts import Subject
from tests.loadtest.analysis.figures import bounds

SLO = Slo()


def trial(rate: float, met: bool | None, start: int = 1, scenario: str = "ladder", wrong: int = 0) -> SavedTrial:
    """A trial that met the SLO or not; None: the generator spoiled it."""
    record = TrialRecord(
        target="a",
        protocol="grpc",
        scenario=scenario,
        offered_rate=rate,
        repetition=start,
        duration_s=2.0,
        requests=Requests(scheduled=100, sent=100, completed=100, ok=100),
        latency_ms=Latency(p50=1.0, p99=500.0 if met is False else 5.0),
        schedule_slip_ms=Slip(p99=9.0 if met is None else 0.1),
        wrong=wrong,
    )
    return SavedTrial(Path(f"{scenario}-{rate:g}-r{start}"), record, None, None)


def both(rate: float, met: bool) -> list[SavedTrial]:
    return [trial(rate, met, 1), trial(rate, met, 2)]


def search(start: int, *tries: tuple[float, bool | None]) -> list[SavedTrial]:
    return [trial(rate, met, start, "capacity") for rate, met in tries]


def one(trials: list[SavedTrial], centre: float = 100.0) -> Capacity:
    searches = [SearchRecord(target="a", protocol="grpc", repetition=start, centre=centre) for start in (1, 2, 3, 4)]
    found = starts.figures([item.record for item in trials], searches, SLO, ())
    (entry,) = capacity.of(trials, found, SLO)
    return entry


def test_a_ladder_gives_the_rates_around_the_capacity():
    entry = one([*both(100, True), *both(200, True), *both(400, False)])
    assert (entry.scenario, entry.max_rate, entry.ci95) == ("ladder", 200, (200, 400))
    assert (entry.starts, entry.spread, entry.open_ends) == ((), None, ())


def test_one_bad_trial_does_not_lower_a_ladder_s_capacity():
    entry = one([trial(100, False), trial(100, True, 2), *both(200, True), *both(400, False)])
    assert entry.max_rate == 200


def test_an_end_that_no_rate_bounds_is_open_and_says_why():
    entry = one([*both(100, True), *both(200, True)])
    assert entry.ci95 == (200, None)
    assert entry.open_ends == (OpenEnd(WhyOpen.NO_RATE_MISSED, 200),)
    entry = one([*both(100, False), *both(200, False)])
    assert (entry.max_rate, entry.ci95) == (None, (None, 100))
    assert entry.open_ends == (OpenEnd(WhyOpen.NO_RATE_MET, 100),)


def test_trials_that_are_not_valid_say_nothing():
    for scenario in ("ladder", "capacity"):
        entry = one([trial(100, None, scenario=scenario), trial(200, None, scenario=scenario)])
        assert (entry.max_rate, entry.ci95, entry.starts) == (None, (None, None), ())
        assert entry.open_ends == (OpenEnd(WhyOpen.NOTHING_VALID),)
        assert entry.tested_rates == (100, 200)


def test_a_rate_at_which_a_server_answered_wrongly_once_is_none_that_it_stands():
    entry = one([*both(100, True), trial(200, True), trial(200, True, 2, wrong=1), *both(400, False)])
    assert (entry.max_rate, entry.ci95) == (100, (100, 400))
    # But that the generator was late once is not the server's fault.
    entry = one([*both(100, True), trial(200, True), trial(200, None, 2), *both(400, False)])
    assert (entry.max_rate, entry.ci95) == (200, (200, 400))


def test_a_search_gives_each_start_s_own_figure_and_their_geometric_mean():
    tries = {1: [(90.0, True), (110.0, False), (100.0, True)], 2: [(90.0, True), (110.0, True), (130.0, False)]}
    trials = [item for start, own in tries.items() for item in search(start, *own)]
    entry = one([*trials, trial(120.0, None, 2, "capacity"), *both(50.0, True)])
    beliefs = [staircase.believe([staircase.Try(*pair) for pair in own], 100.0) for own in tries.values()]
    assert entry.scenario == "capacity"
    assert [item.repetition for item in entry.starts] == [1, 2]
    for item, belief in zip(entry.starts, beliefs, strict=True):
        assert item.rate == pytest.approx(belief.rate)
        assert item.ci95[0] == pytest.approx(belief.rate / math.exp(1.96 * belief.sd), rel=1e-3)
    assert entry.starts[1].trials == ("capacity-90-r2", "capacity-110-r2", "capacity-130-r2")
    assert entry.max_rate == pytest.approx(math.sqrt(beliefs[0].rate * beliefs[1].rate))
    # Two starts: one degree of freedom, of which Student's t is 12.7.
    assert entry.spread == pytest.approx(
        max(
            abs(beliefs[0].log_rate - beliefs[1].log_rate) / math.sqrt(2),
            math.sqrt(decision.FLOOR * (beliefs[0].sd ** 2 + beliefs[1].sd ** 2) / 2),
        )
    )
    low, high = bounds(entry.ci95)
    reach = math.exp(12.706 * (entry.spread or 0) / math.sqrt(2))
    assert (low, high) == pytest.approx(((entry.max_rate or 0) / reach, (entry.max_rate or 0) * reach), rel=1e-3)
    assert entry.tested_rates == (50, 90, 100, 110, 120, 130)


def test_what_binds_is_said_of_searches_and_of_ladders_and_how_it_does():
    assert one(search(1, (98.0, True), (102.0, False))).binding is Binding.P99
    assert one(search(1, (98.0, True), (102.0, False))).shape is Shape.CLIFF
    assert one([*both(200, True), *both(215, False)]).binding is Binding.P99
    assert one([*both(200, True), *both(400, True)]).binding is Binding.NONE
    assert one([*both(200, True), *both(400, False)]).shape is Shape.UNKNOWN
    assert one([trial(100, None)]).binding is Binding.NONE


def test_of_one_start_the_interval_is_what_its_own_trials_say():
    entry = one(search(1, (90.0, True), (110.0, False)))
    assert entry.spread is None
    assert entry.ci95 == entry.starts[0].ci95
    assert entry.max_rate == pytest.approx(entry.starts[0].rate)


def test_searches_that_no_trial_bounds_on_a_side_are_open_there():
    met, missed = search(1, (90.0, True), (110.0, True)), search(2, (95.0, False), (80.0, False))
    entry = one(met)
    assert (entry.ci95[1], entry.open_ends) == (None, (OpenEnd(WhyOpen.NO_RATE_MISSED, 110),))
    assert (entry.ci95[0] or 0) < (entry.max_rate or 0)
    entry = one(missed)
    assert (entry.max_rate, entry.ci95[0], entry.open_ends) == (None, None, (OpenEnd(WhyOpen.NO_RATE_MET, 80),))
    assert None not in one([*met, *missed]).ci95


ANY = st.lists(
    st.builds(
        trial,
        st.sampled_from([50.0, 100.0, 105.0, 200.0]),
        st.sampled_from([True, False, None]),
        st.sampled_from([1, 2]),
        st.sampled_from(["ladder", "capacity"]),
    ),
    min_size=1,
    max_size=8,
)


@given(ANY, st.randoms())
def test_an_interval_holds_the_capacity_each_open_end_has_a_reason_and_the_order_of_trials_says_nothing(trials, chance):
    entry = one(trials)
    low, high = entry.ci95
    assert low is None or low <= (entry.max_rate or 0)
    assert high is None or high > (entry.max_rate or 0)
    assert bool([low, high].count(None)) == bool(entry.open_ends)
    assert (low is None) == (entry.max_rate is None)
    chance.shuffle(trials)
    again = one(trials)
    assert (again.max_rate, again.spread) == (pytest.approx(entry.max_rate), pytest.approx(entry.spread))
    assert again.open_ends == entry.open_ends


def started(draw: np.random.Generator, mean: float, apart: float) -> Figure:
    """What a search on one start says, whose server is `apart` (SD) from others: each trial is where the capacity is
    believed to be, and answers as `staircase.meets` has it, lapses included."""
    limit, centre = math.log(mean) + draw.normal(0, apart), mean * math.exp(draw.uniform(-0.7, 0.7))
    tries: list[staircase.Try] = []
    for _ in range(8):
        belief = staircase.believe(tries, centre)
        rate = belief.rate * math.exp(draw.normal(0, belief.sd / 2))
        tries.append(staircase.Try(rate, bool(draw.random() < staircase.meets(math.log(rate), limit))))
    belief = staircase.believe(tries, centre)
    return Figure(belief.log_rate, belief.sd**2)


@pytest.mark.parametrize(("apart", "most"), [(0.05, 0.99), (0.1, 0.98), (0.2, 0.97), (0.3, 0.97)])
def test_the_interval_covers_the_capacity_and_equal_servers_are_not_told_apart(apart, most):
    # Where starts lie closer together than a single one is known, a search that went astray makes intervals wide.
    draw = np.random.default_rng(5)
    pool = [started(draw, 700.0, apart) for _ in range(600)]
    covered, told_apart = [], []
    for _ in range(2000):
        chosen = [pool[index] for index in draw.choice(len(pool), 8, replace=False)]
        low, high = start_means.estimate(chosen[:4]).ci95
        covered.append(low <= 700 <= high)
        compared = decision.compare(chosen[:4], chosen[4:])
        assert compared is not None
        told_apart.append(compared.p_value <= 0.05)
        low, high = compared.interval()
        assert (low > 1 or high < 1) == (compared.p_value < 0.05)
    assert 0.93 <= np.mean(covered) <= most
    assert np.mean(told_apart) <= 0.055


def test_figures_of_an_unsteady_warm_up_do_not_count_towards_a_capacity():
    trials = [item.record for item in search(1, (90.0, True), (110.0, False))]
    cold = [TrialRecord(**{**{f: getattr(t, f) for f in t.__struct_fields__}, "warm_up": "w"}) for t in trials]
    assert Subject(Metric.CAPACITY, "a", "grpc") in starts.figures(cold, [], SLO, ())
    assert starts.figures(cold, [], SLO, {"w"}) == {}
