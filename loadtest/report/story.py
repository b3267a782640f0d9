"""The evidence of a run question by question, in plain sentences. No HTML here."""

from __future__ import annotations

from loadtest.analysis.records import Measurement, Summary, Verdict
from loadtest.experiment.decision import Family
from loadtest.report import capacity_words, ranking, sizing, verdict_words, wording
from loadtest.report.names import opening
from loadtest.report.verdict_words import Names


def tell(figures: Summary, names: Names) -> list[tuple[str, str]]:
    """(question, answer) of everything that a run asked, in the order that it asked; then what bounds the capacities,
    and what overload does."""
    if not figures.verdicts:
        measured = any(target.measured for target in figures.targets)
        return [("", "There is no second target to compare it with.")] if measured else []
    several, slo = len(figures.targets) >= ranking.FEWEST, figures.experiment.slo
    asked = sorted(figures.verdicts, key=_order)
    return [
        *([("", ranking.MEANING)] if several else []),
        *((verdict_words.question(one, names, several), _answer(one, figures, names)) for one in asked),
        *_bounds(figures, names),
        *_overload(figures, names, wording.setting(slo.p99_ms, "ms")),
    ]


def _order(verdict: Verdict) -> int:
    """The place of its family; the sort is stable, so within one the run's own order stays."""
    return list(Family).index(verdict.family)


def _answer(verdict: Verdict, figures: Summary, names: Names) -> str:
    says = verdict_words.why(verdict, figures.experiment.slo, names)
    if not verdict.winner:
        return says
    factor, around = verdict_words.better(verdict)
    return opening(f"{names[verdict.winner]}, by a factor of {factor}{f' ({around})' if around else ''}. {says}")


def _bounds(figures: Summary, names: Names) -> list[tuple[str, str]]:
    """What bounds each capacity, a sentence for each target."""
    found: dict[str, list[str]] = {}
    for target, protocol in dict.fromkeys((item.target, item.protocol) for item in figures.capacity):
        entry = sizing.capacity(figures, target, protocol)
        if entry and (entry.starts or capacity_words.bound(entry)):
            found.setdefault(protocol, []).append(capacity_words.sentence(entry, names[target]))
    return [(f"What bounds it over {wording.protocol(protocol)}?", " ".join(told)) for protocol, told in found.items()]


def _overload(figures: Summary, names: Names, limit: str) -> list[tuple[str, str]]:
    """What each target did with more than it can handle: tried once, and not compared."""
    ladder = figures.experiment.ladder
    found = []
    for protocol, rate in (ladder.overload_rates if ladder else {}).items():
        tried = [item for item in figures.measurements if _is(item, protocol, rate)]
        if not tried:
            continue
        told = [
            f"{names[item.target]}: {wording.rate(item.achieved_rate)} answered, {wording.rate(item.goodput)} within "
            f"{limit}, {wording.share(item.error_ratio)} failed{'' if item.valid else ' (not valid)'}"
            for item in tried
        ]
        asks = f"What does overload do, {wording.rate(rate)} over {wording.protocol(protocol)}?"
        found.append((asks, f"{'; '.join(told)}. Tried once, and not compared."))
    return found


def _is(item: Measurement, protocol: str, rate: float) -> bool:
    return (item.protocol, item.scenario, item.offered_rate) == (protocol, "ladder", rate)
