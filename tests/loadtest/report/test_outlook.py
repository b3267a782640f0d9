"""What would change the answer."""

from __future__ import annotations

import msgspec

from loadtest.analysis.records import Fault, OpenEnd, Outcome, Summary, Verdict, WhyOpen, WrongAnswers
from loadtest.experiment.questions import Family
from loadtest.report import names
from loadtest.report.outlook import would_change
from tests.loadtest.analysis.figures import measurement
from tests.loadtest.report.summaries import BOTH, STAND_IN, TF_SERVING, TORCHSERVE, capacity, found, latency, summary

PYTORCH, TENSORFLOW = BOTH
WON = latency(9.0, 3.0, TENSORFLOW)


def told(figures: Summary) -> str:
    return " ".join(would_change(figures, names.of(figures.targets)))


def test_a_stand_in_is_the_first_thing_to_replace():
    first = would_change(summary(WON, targets=(TORCHSERVE, STAND_IN)), names.of((TORCHSERVE, STAND_IN)))[0]
    assert first.startswith("The production server: TensorFlow (embedded-tfserving 2.21.0)")
    assert "The production server" not in told(summary(WON, targets=(TORCHSERVE, TF_SERVING)))


def test_an_open_question_says_how_many_starts_would_decide_it():
    assert (
        "More starts: over gRPC the ratio of the p99 latencies (TorchServe / TensorFlow Serving) lies in 0.82–0.99; "
        "about 4 more starts of each, 3 minutes, would decide a ratio of 1.2."
    ) in told(summary(latency(9.0, 10.0)))
    assert "ratio of the capacities" in told(summary(capacity(900, 1000)))
    for decided in (WON, latency(9.0, 3.0, outcome=Outcome.PARITY_NOT_PROVEN)):
        assert "More starts" not in told(summary(decided))


def test_a_server_that_met_every_rate_asks_for_higher_ones():
    end = OpenEnd(WhyOpen.NO_RATE_MISSED, 3200.0)
    bounded, open_ended = found(PYTORCH, 900.0), found(TENSORFLOW, 2900.0, ci95=(2800.0, None), open_ends=(end,))
    figures = summary(WON, capacity=(bounded, open_ended))
    assert (
        "Higher rates: the highest that was tried still met the SLO, TensorFlow Serving over gRPC at 3,200/s."
    ) in told(figures)
    assert "TorchServe over gRPC at" not in told(figures)


def rest(verdict: Verdict, rate: float) -> Verdict:
    return msgspec.structs.replace(verdict, family=Family.REST, offered_rate=rate)


def test_a_rate_at_which_the_other_one_wins_is_named():
    turned = rest(latency(3.0, 9.0, PYTORCH), 200.0)
    assert ("Another rate: over gRPC at 200/s TorchServe has a lower p99 latency than TensorFlow Serving.") in told(
        summary(WON, turned)
    )
    for same in (rest(WON, 200.0), rest(latency(3.0, 9.0), 200.0), latency(3.0, 9.0, PYTORCH, "rest")):
        assert "Another rate" not in told(summary(WON, same))


def test_what_could_not_be_used_is_counted():
    broken = measurement(PYTORCH, valid=False, why_not_valid=(Fault((1,), WrongAnswers(1, 9)),))
    figures = summary(WON, measurements=(broken, measurement(TENSORFLOW)))
    assert "What could not be used: 1 of 2 measurements are not valid" in told(figures)


def test_without_a_measurement_nothing_is_said():
    assert would_change(summary(WON, measurements=()), names.of((TORCHSERVE, TF_SERVING))) == []
