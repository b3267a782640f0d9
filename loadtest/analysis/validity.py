"""When a measurement counts: the rules of measurement, each a sentence when it is broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtest.analysis import wording
from loadtest.analysis.saved_run import SavedTrial
from loadtest.experiment.slip import allowed_ms

FEWEST_BEYOND = 10
BUSY_GENERATOR = 0.9
NOTABLY_STOLEN = 0.01
SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


def faults(trial: SavedTrial, *, overload: bool = True) -> list[str]:
    """Why a trial may not be used, one sentence each; empty for a valid one. ``overload``: also what a server does that
    is only overloaded, which makes its latencies meaningless, and yet says that it cannot take the rate."""
    record = trial.record
    requests = record["requests"]
    found = []
    slip = (record.get("schedule_slip_ms") or {}).get("p99")
    p50 = (record.get("latency_ms") or {}).get("p50")
    allowed = allowed_ms(p50)
    if slip is None and requests.get("sent"):
        found.append("the generator did not record its schedule slip, so it cannot prove that it kept its schedule")
    elif slip is not None and slip > allowed:
        found.append(
            f"the generator sent late: schedule slip p99 was {wording.milliseconds(slip)}, "
            f"allowed are {wording.setting(round(allowed, 2), 'ms')}{_stolen(record.get('cpu_stolen') or 0)}"
        )
    if overload and (dropped := requests.get("dropped")):
        found.append(
            f"{wording.count(dropped)} arrivals were dropped because {wording.count(record.get('max_in_flight'))} "
            "requests were already in flight"
        )
    if wrong := record.get("wrong"):
        found.append(f"{wording.count(wrong)} of {wording.count(record.get('checked'))} checked answers were wrong")
    found += [str(note) for note in record.get("notes") or [] if "died" in str(note)]
    if overload and not requests.get("ok"):
        found.append("no request was answered correctly, so there is no latency to report")
    if trial.warm_up and not trial.warm_up.get("steady", True):
        cap = wording.seconds(trial.warm_up.get("seconds"))
        found.append(f"the warm-up was not steady when it reached its cap of {cap}, so a warming server was measured")
    return found


def cautions(trial: SavedTrial) -> list[str]:
    """What a reader should know of a trial that is valid all the same, one sentence each."""
    found = [str(note) for note in trial.record.get("notes") or [] if "died" not in str(note)]
    if aside := trial.record.get("spoiled"):
        slips = " and ".join(wording.milliseconds(one["schedule_slip_ms"]["p99"]) for one in aside)
        found.append(f"repeated, because the generator sent late before (slip p99 {slips}); those are kept in spoiled/")
    if trial.warm_up and (again := trial.warm_up.get("unsteady_attempts")):
        found.append(f"the warm-up was repeated: {wording.plural(len(again), 'attempt')} did not get steady")
    if not ((trial.warm_up or {}).get("settling") or {}).get("settled", True):
        found.append("the latency had not settled when the warm-up ended: a server that gets faster yet was measured")
    busy = trial.record.get("generator_cpu")
    if busy is not None and busy > BUSY_GENERATOR:
        found.append(f"the generator used {wording.share(busy)} of its core")
    return found


def _stolen(share: float) -> str:
    if share < NOTABLY_STOLEN:
        return ""
    return f" (its host gave {wording.share(share)} of this machine's CPU time to others meanwhile)"


def by_repetition(trials: Sequence[SavedTrial], sentences: Sequence[Sequence[str]]) -> list[str]:
    """Sentences of several repetitions, each said once with the repetitions that it holds for."""
    where: dict[str, list[str]] = {}
    for trial, found in zip(trials, sentences, strict=True):
        for sentence in found:
            where.setdefault(sentence, []).append(str(trial.record.get("repetition", "?")))
    return [
        f"repetition{'s' if len(numbers) > 1 else ''} {' and '.join(numbers)}: {sentence}"
        for sentence, numbers in where.items()
    ]


def thin_percentiles(answers: int) -> list[str]:
    """The percentiles that rest on fewer than ten answers beyond them: to be read with care."""
    return [name for name, level in SHARES.items() if answers * (1 - level) < FEWEST_BEYOND]


def parity(
    manifest: dict[str, Any] | None, wire: dict[str, Any] | None, needed: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """The evidence that all targets serve the same model, and whether it is complete.

    ``needed`` are the (target, protocol) pairs of the experiment. Adds ``proven``, ``max_abs_diff`` (the largest over
    all exports and all pairs) and ``why_not_proven``, one sentence each.
    """
    gate = (manifest or {}).get("parity") or {}
    exports = gate.get("exports") or {}
    served = (wire or {}).get("targets") or {}
    tolerance = gate.get("tolerance", (wire or {}).get("tolerance", 1e-4))
    doubts = [] if exports else ["the bundle's manifest holds no parity figures"]
    found = []
    for name, figures in exports.items():
        if "max_abs_diff" in figures:
            found.append((f"the {name} export", figures["max_abs_diff"]))
    for stack, protocol in needed:
        figures = (served.get(stack) or {}).get(protocol)
        answers = f"{wording.stack(stack)} over {wording.protocol(protocol)}"
        if figures is None:
            doubts.append(f"the answers of {answers} were not compared with the reference")
        else:
            found.append((answers, figures["max_abs_diff"]))
    for what, difference in found:
        if difference is None or not difference <= tolerance:
            doubts.append(f"{what} differs from the reference by {difference}, more than {tolerance:g}")
    known = [difference for _, difference in found if difference is not None]
    return {
        "tolerance": tolerance,
        "samples": gate.get("samples"),
        "wire_samples": (wire or {}).get("samples"),
        "exports": exports,
        "wire": served,
        "max_abs_diff": max(known, default=None),
        "proven": not doubts,
        "why_not_proven": doubts,
    }


def parity_of_all(by_model: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The evidence of several models together: as `parity`'s of one, each model's own in ``by_model``."""
    evidence = by_model.values()
    known = [one["max_abs_diff"] for one in evidence if one["max_abs_diff"] is not None]
    doubts = [f"{model}: {why}" for model, one in by_model.items() for why in one["why_not_proven"]]
    return {
        "tolerance": max(one["tolerance"] for one in evidence),
        "samples": sum(one["samples"] or 0 for one in evidence),
        "wire_samples": sum(one["wire_samples"] or 0 for one in evidence),
        "exports": {},
        "wire": {},
        "max_abs_diff": max(known, default=None),
        "proven": not doubts,
        "why_not_proven": doubts,
        "by_model": by_model,
    }
