"""When a measurement counts: the rules of measurement, and which of them a trial breaks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from loadtest.analysis.records import (
    AnswersDiffer,
    AnswersUnchecked,
    ArrivalsDiffer,
    ArrivalsDropped,
    BusyGenerator,
    ExportDiffers,
    ExportParity,
    GeneratorOutOf,
    HeldUp,
    NoAnswer,
    NoExportParity,
    NotCompared,
    Notice,
    NotSettled,
    OthersOnCores,
    Parity,
    SentLate,
    ServerHeldUp,
    SlipUnknown,
    TrialRepeated,
    UnsteadyWarmUp,
    WarmUpRepeated,
    WhyInvalid,
    WhyNotProven,
    WrongAnswers,
)
from loadtest.analysis.run_files import Gate, Manifest, WireResult
from loadtest.analysis.saved_run import SavedTrial
from loadtest.experiment import starts
from loadtest.experiment.enough import is_enough
from loadtest.experiment.own_errors import lacks
from loadtest.experiment.records import ConnectionsLost, RightAnswers, ServerDied, ServerOutOfFiles
from loadtest.experiment.settings import Slo
from loadtest.experiment.slip import OTHERS_ALLOWED, allowed_ms, late, taken
from models.precision import Precision

BUSY_GENERATOR = 0.9
SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}

_Reason = TypeVar("_Reason")


def faults(trial: SavedTrial, *, overload: bool = True) -> list[WhyInvalid]:
    """Why a trial may not be used; empty for a valid one. ``overload``: also what a server does that is only
    overloaded, which makes its latencies meaningless, and yet says that it cannot take the rate."""
    record = trial.record
    requests = record.requests
    found: list[WhyInvalid] = []
    slip = record.schedule_slip_ms.p99 if record.schedule_slip_ms else None
    if slip is None and requests.sent:
        found.append(SlipUnknown())
    elif slip is not None and late(record):
        found.append(SentLate(slip, allowed_ms(record.latency_ms.p50), record.cpu_stolen or 0.0))
    if record.others and taken(record):
        found.append(OthersOnCores(record.others.share, OTHERS_ALLOWED, record.others.by, record.cpu_stolen or 0.0))
    if record.throttled:
        found.append(HeldUp(record.throttled.periods, record.throttled.seconds))
    found += [GeneratorOutOf(lack, count) for lack, count in lacks(record.errors).items()]
    if overload and requests.dropped:
        found.append(ArrivalsDropped(requests.dropped, record.max_in_flight))
    if record.wrong:
        found.append(WrongAnswers(record.wrong, record.checked))
    found += [note for note in record.notes if isinstance(note, ServerDied | ServerOutOfFiles)]
    if overload and not requests.ok:
        found.append(NoAnswer())
    if trial.warm_up and not trial.warm_up.steady:
        found.append(UnsteadyWarmUp(trial.warm_up.seconds))
    return found


def usable(trial: SavedTrial, slo: Slo) -> bool:
    """Whether a trial says something of its server (see `starts.says_something`)."""
    unsteady = trial.warm_up is not None and not trial.warm_up.steady
    return starts.says_something(trial.record, slo, [trial.record.warm_up or ""] if unsteady else [])


def disqualifying(reason: WhyInvalid, *, overload: bool = True) -> bool:
    """Whether a fault counts against more than its own start (``overload``: see `faults`).

    That the generator was late once, or kept from its work, or that a server did not get steady, says nothing of the
    other starts; but a server that died, had no more file descriptors, dropped arrivals or answered wrongly must not
    win by what is left when that start is left out.
    """
    own = isinstance(reason, (SentLate, OthersOnCores, HeldUp, GeneratorOutOf, UnsteadyWarmUp))
    return not (own or (not overload and isinstance(reason, (ArrivalsDropped, NoAnswer))))


def cautions(trial: SavedTrial) -> list[Notice]:
    """What a reader should know of a trial that is valid all the same."""
    record, warm_up = trial.record, trial.warm_up
    found: list[Notice] = [note for note in record.notes if isinstance(note, ConnectionsLost)]
    if record.spoiled:
        late_ones = [one.schedule_slip_ms.p99 or 0.0 for one in record.spoiled if one.others is None]
        others = [one.others for one in record.spoiled if one.others is not None]
        found.append(TrialRepeated(tuple(late_ones), tuple(others)))
    if warm_up and warm_up.unsteady_attempts:
        found.append(WarmUpRepeated(len(warm_up.unsteady_attempts)))
    if warm_up and warm_up.settling and not warm_up.settling.settled:
        found.append(NotSettled())
    if record.generator_cpu is not None and record.generator_cpu > BUSY_GENERATOR:
        found.append(BusyGenerator(record.generator_cpu))
    if record.server_throttled:
        found.append(ServerHeldUp(record.server_throttled.periods, record.server_throttled.seconds))
    arrivals = record.arrivals_check
    if arrivals and not arrivals.ok:
        found.append(ArrivalsDiffer(record.arrival, arrivals.distance, arrivals.allowed))
    return found


def by_repetition(
    trials: Sequence[SavedTrial], reasons: Iterable[Sequence[_Reason]]
) -> list[tuple[tuple[int, ...], _Reason]]:
    """The reasons of several repetitions, each once with the repetitions that it holds for."""
    where: dict[_Reason, list[int]] = {}
    for trial, found in zip(trials, reasons, strict=True):
        for reason in found:
            where.setdefault(reason, []).append(trial.record.repetition)
    return [(tuple(dict.fromkeys(repetitions)), reason) for reason, repetitions in where.items()]


def thin_percentiles(answers: int) -> tuple[str, ...]:
    """The percentiles that rest on fewer than ten answers beyond them: to be read with care."""
    return tuple(name for name, level in SHARES.items() if not is_enough(answers, level))


def parity(
    manifest: Manifest | None, wire: WireResult | None, needed: Sequence[tuple[str, str]], model: str = ""
) -> Parity:
    """The evidence that all targets serve the same model, and whether it is complete. ``needed`` are the (target,
    protocol) pairs of the experiment; ``model``: which of several this is about."""
    gate = (manifest.parity if manifest else None) or Gate()
    served = wire.targets if wire else {}
    on_the_wire = wire.tolerance if wire else None
    tolerance, allowed = (_known(gate.tolerance, on_the_wire), _known(on_the_wire, gate.tolerance))
    exports = {
        name: ExportParity(
            accuracy=export.accuracy,
            max_abs_diff=None if export.max_abs_diff is msgspec.UNSET else export.max_abs_diff,
            top1_agreement=export.top1_agreement,
            is_reference=export.max_abs_diff is msgspec.UNSET,
        )
        for name, export in gate.exports.items()
    }
    right = wire.right if wire else RightAnswers.REFERENCE
    doubts: list[WhyNotProven] = []
    if right is RightAnswers.ANY:
        doubts, needed = [AnswersUnchecked(model=model)], ()
    elif right is RightAnswers.REFERENCE and not exports:
        doubts = [NoExportParity(model=model)]
    differences: list[float | None] = []
    too_far: list[WhyNotProven] = []
    for name, export in exports.items():
        if not export.is_reference:
            differences.append(export.max_abs_diff)
            most = gate.exports[name].tolerance or tolerance
            if not _within(export.max_abs_diff, most):
                too_far.append(ExportDiffers(model=model, export=name, difference=export.max_abs_diff, allowed=most))
    for target, protocol in needed:
        figures = served.get(target, {}).get(protocol)
        if figures is None:
            doubts.append(NotCompared(model=model, target=target, protocol=protocol))
            continue
        differences.append(figures.max_abs_diff)
        if not _within(figures.max_abs_diff, allowed):
            where = {"target": target, "protocol": protocol}
            too_far.append(AnswersDiffer(model=model, **where, difference=figures.max_abs_diff, allowed=allowed))
    doubts += too_far
    return Parity(
        tolerance=max(tolerance, allowed),
        samples=gate.samples,
        wire_samples=wire.samples if wire else None,
        exports=exports,
        wire=served,
        max_abs_diff=max((one for one in differences if one is not None), default=None),
        proven=not doubts,
        why_not_proven=tuple(doubts),
        right=right,
        left_out={name: entry.why for name, entry in gate.left_out.items()},
        from_fp32=gate.from_fp32,
    )


def _known(*tolerances: float | None) -> float:
    """The first that is known; runs of before it was said were of float32."""
    return next((one for one in tolerances if one is not None), Precision.FP32.tolerance)


def _within(difference: float | None, tolerance: float) -> bool:
    return difference is not None and difference <= tolerance  # not a number: never


def parity_of_all(by_model: Mapping[str, Parity]) -> Parity:
    """The evidence of several models together: as `parity`'s of one, each model's own in ``by_model``."""
    evidence = by_model.values()
    known = [one.max_abs_diff for one in evidence if one.max_abs_diff is not None]
    doubts = tuple(why for one in evidence for why in one.why_not_proven)
    return Parity(
        tolerance=max(one.tolerance for one in evidence),
        samples=sum(one.samples or 0 for one in evidence),
        wire_samples=sum(one.wire_samples or 0 for one in evidence),
        exports={},
        wire={},
        max_abs_diff=max(known, default=None),
        proven=not doubts,
        why_not_proven=doubts,
        by_model=dict(by_model),
    )
