"""The evidence of a run question by question, in plain sentences. No HTML here."""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.analysis.records import Measurement, Summary, Verdict
from loadtest.experiment.questions import Family
from loadtest.report import capacity_words, origins, ranking, sizing, verdict_words, wording
from loadtest.report.names import opening
from loadtest.report.verdict_words import Names


@dataclass(frozen=True)
class Evidence:
    """A question, empty where there is none to ask, its answer, and folders of the trials that say so."""

    question: str
    answer: str
    trials: tuple[str, ...] = ()


def tell(figures: Summary, names: Names) -> list[Evidence]:
    """Everything that a run asked, in the order that it asked; then what bounds the capacities, and what overload
    does."""
    if not figures.verdicts:
        measured = any(target.measured for target in figures.targets)
        return [Evidence("", "There is no second target to compare it with.")] if measured else []
    several, slo = len(figures.targets) >= ranking.FEWEST, figures.experiment.slo
    asked = sorted(figures.verdicts, key=_order)
    return [
        *([Evidence("", ranking.MEANING)] if several else []),
        *(_verdict(one, figures, names, several) for one in asked if one.family is not Family.REST or several),
        *([] if several else _other_rates(figures, names)),
        *_bounds(figures, names),
        *_overload(figures, names, wording.setting(slo.p99_ms, "ms")),
    ]


def _order(verdict: Verdict) -> int:
    """The place of its family; the sort is stable, so within one the run's own order stays."""
    return list(Family).index(verdict.family)


def _verdict(verdict: Verdict, figures: Summary, names: Names, several: bool) -> Evidence:
    asks, trials = verdict_words.question(verdict, names, several), origins.trials_of_verdict(figures, verdict)
    return Evidence(asks, _answer(verdict, figures, names), trials)


def _other_rates(figures: Summary, names: Names) -> list[Evidence]:
    """The verdicts of the last family about two targets, together for each protocol."""
    found: dict[str, list[Verdict]] = {}
    for verdict in (one for one in figures.verdicts if one.family is Family.REST):
        found.setdefault(verdict.protocol, []).append(verdict)
    return [
        Evidence(
            f"And at other rates over {wording.protocol(protocol)}?",
            " ".join(f"At {wording.rate(one.offered_rate)}: {_answer(one, figures, names)}" for one in asked),
            tuple(name for one in asked for name in origins.trials_of_verdict(figures, one)),
        )
        for protocol, asked in found.items()
    ]


def _answer(verdict: Verdict, figures: Summary, names: Names) -> str:
    says = verdict_words.why(verdict, figures.experiment.slo, names)
    if not verdict.winner:
        return says
    factor, around = verdict_words.better(verdict)
    return opening(f"{names[verdict.winner]}, by a factor of {factor}{f' ({around})' if around else ''}. {says}")


def _bounds(figures: Summary, names: Names) -> list[Evidence]:
    """What bounds each capacity, a sentence for each target."""
    found: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for target, protocol in dict.fromkeys((item.target, item.protocol) for item in figures.capacity):
        entry = sizing.capacity(figures, target, protocol)
        if entry and (entry.starts or capacity_words.bound(entry)):
            says, trials = (
                capacity_words.sentence(entry, names[target]),
                origins.trials_of_capacity(figures, target, protocol),
            )
            found.setdefault(protocol, []).append((says, trials))
    return [
        Evidence(
            f"What bounds it over {wording.protocol(protocol)}?",
            " ".join(says for says, _ in told),
            tuple(name for _, trials in told for name in trials),
        )
        for protocol, told in found.items()
    ]


def _overload(figures: Summary, names: Names, limit: str) -> list[Evidence]:
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
        trials = tuple(name for item in tried for name in item.trials)
        found.append(Evidence(asks, f"{'; '.join(told)}. Tried once, and not compared.", trials))
    return found


def _is(item: Measurement, protocol: str, rate: float) -> bool:
    return (item.protocol, item.scenario, item.offered_rate) == (protocol, "ladder", rate)
