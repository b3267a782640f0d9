"""Every typed reason has a sentence of its own, and the sentence holds its values."""

from __future__ import annotations

import enum
import typing
from typing import Any

import msgspec
import pytest

from loadtest.analysis import records
from loadtest.analysis.records import Outcome, Untold, WhyOpen
from loadtest.experiment.boundary import Binding, Shape
from loadtest.experiment.records import OtherProcess
from loadtest.experiment.settings import Slo
from loadtest.report import capacity_words, names, reasons, verdict_words, warning_words
from serving.engines import registry
from serving.engines.engine import Backend, Place
from serving.runtimes.process import obtain_words
from serving.target import Caveat, WhyStandIn
from tests.loadtest.report.summaries import TF_SERVING, TORCHSERVE, WITHOUT_RATIO, found, latency

ZEBRA = Backend("Zebra", "Zebra", Place.BESIDE, instead_of="Zebra")
VALUES = {int: 4321, float: 765.4, str: "Zebra", Backend: ZEBRA}
NAMES = names.of((TORCHSERVE, TF_SERVING))


def made(kind: type[msgspec.Struct]) -> Any:
    """A record of this kind whose every value can be found again in text."""
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        known = [one for one in (typing.get_args(field.type) or (field.type,)) if one in VALUES]
        if field.name in ("cpu_stolen", "share"):
            values[field.name] = 0.4321
        elif field.name == "by":
            values[field.name] = (OtherProcess(name="Zebra", pid=4321, cpus=765.4),)
        elif typing.get_origin(field.type) is tuple:
            inner = typing.get_args(field.type)[0]
            values[field.name] = tuple(inner) if isinstance(inner, enum.EnumMeta) else (765.4, 765.4)
        elif field.name == "why":
            values[field.name] = records.NotCompared(target="Zebra", protocol="grpc")
        elif isinstance(field.type, enum.EnumMeta):
            values[field.name] = next(iter(field.type))
        elif known:
            values[field.name] = VALUES[known[0]]
    return kind(**values)


SHOWN = ["4,321", "4321", "765", "43 %", "Zebra", "12 min 45 s", "1970-01-01"]


@pytest.mark.parametrize(
    ("union", "say"),
    [
        (records.WhyInvalid, reasons.fault),
        (records.Notice, reasons.caution),
        (records.WhyNotProven, warning_words.doubt),
        (records.SummaryWarning, warning_words.warning),
        (records.ComparisonWarning, lambda item: warning_words.of_two_runs(item, "before")),
    ],
)
def test_every_kind_of_a_union_has_a_sentence_with_its_values(union, say):
    told = {item: say(item) for item in map(made, typing.get_args(union))}
    assert len(set(told.values())) == len(told)
    for item, text in told.items():
        assert text
        assert not _valued(item) or any(value in text for value in SHOWN), item


def _valued(item: msgspec.Struct) -> bool:
    """Whether a record has a value that its sentence can show; one of an enumeration is told in other words."""
    return not all(
        isinstance(value, enum.Enum) or (isinstance(value, tuple) and all(isinstance(one, enum.Enum) for one in value))
        for value in msgspec.structs.astuple(item)
    )


def test_every_value_of_an_enumeration_is_told():
    ends = {why: reasons.open_end(records.OpenEnd(why, 765.4)) for why in WhyOpen}
    assert len(set(ends.values())) == len(WhyOpen)
    assert [why for why in WhyOpen if "765/s" not in ends[why]] == [WhyOpen.NOTHING_VALID]
    assert all(warning_words.caveat(item) for item in Caveat)
    engine = registry.engine("tensorflow-serving")
    absent = {reason: obtain_words.why(reason, "Zebra") for reason in WhyStandIn}
    assert len(set(absent.values())) == len(WhyStandIn)
    assert all("Zebra" in text for text in absent.values())
    assert all("TFSERVING" in obtain_words.remedy(reason, engine) for reason in WhyStandIn)
    while_fetching = [obtain_words.remedy(reason, engine, fetching=True) for reason in WhyStandIn]
    assert all("TFSERVING" in text and "make tensorflow-serving" not in text for text in while_fetching)
    item = records.Decomposition(
        target="a",
        protocol="grpc",
        scenario="ladder",
        offered_rate=9.0,
        parts_ms=records.Parts(),
        total_ms=1.0,
        batch_size_mean=None,
        cannot_report=tuple(Untold),
    )
    assert len(set(reasons.untold(item))) == len(Untold)


def test_every_outcome_says_why_and_only_a_winner_is_one():
    told = {}
    for outcome in Outcome:
        values: dict[str, Any] = {"outcome": outcome, "because_of": ("pytorch",), "error_ratios": {"pytorch": 0.4321}}
        winner = "tensorflow" if outcome is Outcome.WINNER else None
        verdict = latency(9.0, 3.0, winner, **values)
        told[outcome] = verdict_words.why(verdict, Slo(), NAMES)
        says = verdict_words.answer(verdict, NAMES)
        assert (says == "TensorFlow Serving") == (outcome is Outcome.WINNER)
        assert (says == "no verdict") == (outcome in WITHOUT_RATIO)
        assert (says == "no difference shown") == verdict.shows_no_difference
    assert len(set(told.values())) == len(Outcome)
    assert "43 %" in told[Outcome.TOO_MANY_ERRORS]


def test_what_binds_a_capacity_and_how_is_told_for_every_kind():
    told = {
        (binding, shape): capacity_words.bound(found("pytorch", 2014.0, binding=binding, shape=shape))
        for binding in Binding
        for shape in Shape
    }
    assert {text for (binding, _), text in told.items() if binding is Binding.NONE} == {""}
    known = [text for text in told.values() if text]
    assert len(set(known)) == len(known)
    assert told[Binding.P99, Shape.CLIFF] == (
        "beyond that p99 exceeds 50 ms, all at once: twice the latency would hardly allow more (a cliff)"
    )
    assert "more than 0.1 % of requests fail" in told[Binding.ERRORS, Shape.SLOPE]


def test_how_far_starts_lie_apart_stands_beside_a_capacity():
    say = capacity_words.sentence
    assert say(found("pytorch", 2014.0, binding=Binding.LAG, shape=Shape.UNKNOWN), "TorchServe") == (
        "TorchServe: 2,014/s (4 starts, some 6 % apart); beyond that it falls ever further behind what arrives."
    )
    assert say(found("pytorch", None), "TorchServe") == "TorchServe: no rate that was tried met the SLO."
    assert capacity_words.found(found("pytorch", 1000.0)) == "4 starts, some 6 % apart: 942/s, 980/s, 1,020/s, 1,062/s"


def test_a_reason_names_the_repetitions_that_it_holds_for():
    wrong = records.WrongAnswers(1, 9)
    say = reasons.of_repetitions
    assert say(records.Fault((1, 2), wrong)) == f"repetitions 1 and 2: {reasons.fault(wrong)}"
    assert say(records.Fault((3,), wrong)) == f"repetition 3: {reasons.fault(wrong)}"
    held_up = records.ServerHeldUp(1, 0.2)
    assert say(records.Caution((), held_up)) == reasons.caution(held_up)
