"""What each started server says of a question, and which of its trials say nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.experiment import decision, staircase, starts
from loadtest.experiment.decision import Figure
from loadtest.experiment.questions import Family, Metric, Question
from loadtest.experiment.records import (
    ConnectionsLost,
    Latency,
    Requests,
    SearchRecord,
    ServerDied,
    Slip,
    TrialRecord,
)
from loadtest.experiment.settings import Slo
from loadtest.experiment.staircase import Try
from loadtest.experiment.starts import Figures, Subject

SLO = Slo(p99_ms=50.0, error_ratio=0.001)


def trial(scenario: str = "ladder", rate: float = 300.0, p99: float | None = 20.0, **values: Any) -> TrialRecord:
    made: dict[str, Any] = {
        "target": "pytorch",
        "protocol": "grpc",
        "repetition": 2,
        "duration_s": 2.5,
        "requests": Requests(scheduled=900, sent=900, completed=900, ok=900),
        "latency_ms": Latency(p50=5.0 if p99 else None, p99=p99),
        "schedule_slip_ms": Slip(p99=0.1),
        "max_in_flight": 4096,
        "warm_up": "w-1",
        **values,
    }
    return TrialRecord(scenario=scenario, offered_rate=rate, **made)


def search(*tries: tuple[float, bool], **values: Any) -> list[TrialRecord]:
    """Trials that met or missed."""
    return [trial("capacity", rate, 20.0 if met else 80.0, **values) for rate, met in tries]


def record(centre: float, **values: Any) -> SearchRecord:
    return SearchRecord(**{"target": "pytorch", "protocol": "grpc", "repetition": 2, **values}, centre=centre)


CAPACITY = Subject(Metric.CAPACITY, "pytorch", "grpc")
AT_300 = Subject(Metric.P99, "pytorch", "grpc", 300.0)
TRIES = ((500.0, True), (700.0, False), (600.0, True))


def believed(tries: tuple[tuple[float, bool], ...], centre: float) -> Figure:
    belief = staircase.believe([Try(*one) for one in tries], centre)
    return Figure(belief.log_rate, belief.sd**2)


def test_a_start_s_capacity_is_what_its_search_s_trials_say_around_its_centre():
    found = starts.figures(search(*TRIES), [record(450.0)], SLO, ())
    assert found == {CAPACITY: {2: believed(TRIES, 450.0)}}
    assert math.exp(found[CAPACITY][2].log_value) == pytest.approx(650, rel=0.15)


def test_a_start_s_latency_is_that_of_its_trial_at_the_rate():
    found = starts.figures([trial(p99=20.0), trial(rate=600.0, p99=33.0)], [], SLO, ())
    assert found == {
        AT_300: {2: Figure(math.log(20.0), starts.P99_SD**2, 900)},
        Subject(Metric.P99, "pytorch", "grpc", 600.0): {2: Figure(math.log(33.0), starts.P99_SD**2, 900)},
    }


def test_targets_protocols_and_blocks_are_told_apart():
    ways = [("pytorch", "grpc", 1), ("pytorch", "rest", 1), ("tensorflow", "grpc", 1), ("tensorflow", "grpc", 3)]
    trials: list[TrialRecord] = []
    searches: list[SearchRecord] = []
    for number, (target, protocol, block) in enumerate(ways):
        own: dict[str, Any] = {"target": target, "protocol": protocol, "repetition": block}
        trials += [*search((100.0 + number, True), **own), trial(p99=10.0 + number, **own)]
        searches.append(record(200.0 + number, **own))
    found = starts.figures(trials, searches, SLO, ())
    for number, (target, protocol, block) in enumerate(ways):
        capacity = found[Subject(Metric.CAPACITY, target, protocol)][block]
        assert capacity == believed(((100.0 + number, True),), 200.0 + number)
        latency = found[Subject(Metric.P99, target, protocol, 300.0)][block]
        assert math.exp(latency.log_value) == pytest.approx(10.0 + number)


def test_a_search_of_an_older_run_or_one_that_was_cut_off_is_centred_between_its_rates():
    middle = (500.0 * 600.0 * 700.0) ** (1 / 3)
    for searches in ([record(0.0)], []):
        figure = starts.figures(search(*TRIES), searches, SLO, ())[CAPACITY][2]
        expected = believed(TRIES, middle)
        assert figure.log_value == pytest.approx(expected.log_value)
        assert figure.variance == pytest.approx(expected.variance)


SILENT: dict[str, dict[str, Any]] = {
    "sent late": {"schedule_slip_ms": Slip(p99=1.2)},
    "room for too few": {"requests": Requests(sent=800, ok=800, dropped=100), "max_in_flight": 10},
    "wrong answers": {"checked": 45, "wrong": 1},
    "a dead server": {"notes": (ServerDied(after_s=1.0, lost=400),)},
    "an unsteady warm-up": {"warm_up": "w-cold"},
}


@pytest.mark.parametrize("values", SILENT.values(), ids=SILENT)
def test_what_says_nothing_of_the_server_is_left_out(values):
    cold = {"w-cold"}
    assert starts.figures([trial(**values)], [], SLO, cold) == {}
    assert starts.figures(search(*TRIES, **values), [record(450.0)], SLO, cold) == {}
    # Of a search only the trial that it spoiled; the rest still tells.
    mixed = [*search(*TRIES[:2]), *search(TRIES[2], **values)]
    assert starts.figures(mixed, [record(450.0)], SLO, cold) == {CAPACITY: {2: believed(TRIES[:2], 450.0)}}


def test_dropped_arrivals_are_a_missed_rate_and_no_latency():
    dropped: dict[str, Any] = {"requests": Requests(sent=800, ok=800, dropped=100)}
    assert starts.figures([trial(**dropped)], [], SLO, ()) == {}
    found = starts.figures(search((500.0, True), **dropped), [record(450.0)], SLO, ())
    assert found == {CAPACITY: {2: believed(((500.0, False),), 450.0)}}


def test_failed_requests_are_a_missed_rate_and_a_server_that_answers_none_has_no_latency():
    failing: dict[str, Any] = {"errors": {"status 503": 9}}
    found = starts.figures(search((500.0, True), **failing), [record(450.0)], SLO, ())
    assert found == {CAPACITY: {2: believed(((500.0, False),), 450.0)}}
    assert starts.figures([trial(p99=None)], [], SLO, ()) == {}
    assert AT_300 in starts.figures([trial(**failing)], [], SLO, ())


def test_lost_connections_are_a_caution_and_other_scenarios_and_warm_ups_say_nothing_here():
    assert AT_300 in starts.figures([trial(notes=(ConnectionsLost(after_s=1.0, lost=2),))], [], SLO, ())
    assert AT_300 in starts.figures([trial(warm_up=None)], [], SLO, {"w-1"})
    assert starts.figures([trial("soak"), trial("server"), trial("spike")], [], SLO, ()) == {}
    assert starts.figures([], [record(450.0)], SLO, ()) == {}


@given(st.permutations(range(8)))
def test_the_order_of_the_trials_does_not_matter(order):
    trials = [
        *search(*TRIES),
        *search(*TRIES, repetition=3),
        trial(),
        trial(repetition=3, p99=30.0),
    ]
    searches = [record(450.0), record(480.0, repetition=3)]
    found = starts.figures([trials[one] for one in order], searches[:: 1 if order[0] % 2 else -1], SLO, ())
    assert found.keys() == {CAPACITY, AT_300}
    for subject, blocks in starts.figures(trials, searches, SLO, ()).items():
        for block, figure in blocks.items():
            assert found[subject][block].log_value == pytest.approx(figure.log_value, abs=1e-9)
            assert found[subject][block].variance == pytest.approx(figure.variance, abs=1e-9)


BOTH = ("pytorch", "tensorflow")
ASKED = Question(Family.LATENCY, Metric.P99, "grpc", BOTH, 300.0)


def latencies(**of_target: dict[int, float]) -> Figures:
    return {
        Subject(Metric.P99, name, "grpc", 300.0): {block: Figure(math.log(value)) for block, value in values.items()}
        for name, values in of_target.items()
    }


# Two starts of one target say nothing; blocks stand in any order.
FOUND = latencies(
    pytorch={5: 12.0, 1: 10.0, 3: 11.0, 6: 10.5}, tensorflow={1: 20.0, 2: 24.0, 4: 22.0, 3: 21.0, 7: 20.5}
)


def test_targets_are_compared_by_the_starts_of_the_first_blocks():
    assert starts.count(ASKED, FOUND) == 4
    found = starts.comparison(ASKED, FOUND, 3)
    assert found is not None
    assert found.ratio == pytest.approx((10 * 11 * 12) ** (1 / 3) / (20 * 24 * 21) ** (1 / 3))
    of_all = starts.comparison(ASKED, FOUND)
    assert of_all is not None
    assert of_all.ratio == pytest.approx((10 * 11 * 12 * 10.5) ** 0.25 / (20 * 24 * 21 * 22 * 20.5) ** 0.2)
    backwards = starts.comparison(Question(Family.LATENCY, Metric.P99, "grpc", BOTH[::-1], 300.0), FOUND)
    assert backwards is not None
    assert backwards.ratio == pytest.approx(1 / of_all.ratio)


def test_there_is_nothing_to_compare_below_two_starts_or_without_a_target():
    assert starts.comparison(ASKED, latencies(pytorch={1: 9.0}, tensorflow={1: 9.0, 2: 8.0})) is None
    assert starts.comparison(ASKED, latencies(pytorch={1: 9.0, 2: 9.5})) is None
    assert starts.count(ASKED, latencies(pytorch={1: 9.0, 2: 9.5})) == 0
    assert starts.comparison(ASKED, {}) is None
    other = Question(Family.REST, Metric.P99, "grpc", BOTH, 600.0)
    assert starts.count(other, FOUND) == 0


def test_a_p99_of_too_few_answers_is_not_compared():
    def found(answers: int) -> Figures:
        sides = {"pytorch": (9.0, 9.5), "tensorflow": (4.0, 4.2)}
        return {
            Subject(Metric.P99, name, "grpc", 300.0): {
                block: Figure(math.log(value), answers=answers) for block, value in enumerate(values)
            }
            for name, values in sides.items()
        }

    # Ten of a thousand lie beyond it: of two starts with 500 answers each.
    assert starts.comparison(ASKED, found(499)) is None
    assert starts.comparison(ASKED, found(500)) is not None


def compared(*counts: int | None) -> list[decision.Comparison | None]:
    return [starts.comparison(ASKED, FOUND, count) for count in counts]


def test_a_question_is_looked_at_as_planned_and_once_more_at_the_end():
    assert starts.looked(ASKED, FOUND, (3, 4, 6, 8), over=False) == compared(3, 4)
    # What lies between was not taken; the last look is at all starts, also the one that the other target has more.
    assert starts.looked(ASKED, FOUND, (3, 4, 6, 8), over=True) == [*compared(3, 4), None, *compared(None)]
    assert starts.looked(ASKED, FOUND, (3, 4), over=True) == compared(3, 4)
    assert starts.looked(ASKED, FOUND, (5,), over=False) == []
    assert starts.looked(ASKED, FOUND, (5,), over=True) == compared(None)
    few = latencies(pytorch={1: 9.0}, tensorflow={1: 9.0})
    assert starts.looked(ASKED, few, (3, 4), over=True) == [None, None]
