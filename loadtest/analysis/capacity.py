"""The highest rate that meets the SLO, of each target over each protocol.

Where it was searched for, each start gives one figure (`loadtest.experiment.starts`), and the capacity is their
geometric mean (see `start_means`). Where it was not, it is one of the ladder's rates, and known to lie between them: at
a rate most of the valid trials meet the SLO, or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadtest.analysis import start_means, validity
from loadtest.analysis.records import Capacity, Interval, OpenEnd, StartCapacity, WhyOpen
from loadtest.analysis.saved_run import SavedTrial
from loadtest.experiment import boundary, decision, starts
from loadtest.experiment.decision import Figure
from loadtest.experiment.questions import Metric
from loadtest.experiment.settings import Slo
from loadtest.experiment.starts import Figures, Subject


def of(trials: Sequence[SavedTrial], found: Figures, slo: Slo) -> tuple[Capacity, ...]:
    """One entry for each target and protocol of the trials, in their order; those of the ladder and of capacity
    searches count. ``found``: what `starts.figures` says of them."""
    groups: dict[tuple[str, str], list[SavedTrial]] = {}
    for trial in trials:
        target, protocol, scenario, _ = trial.key
        if scenario in ("ladder", "capacity"):
            groups.setdefault((target, protocol), []).append(trial)
    return tuple(_one(*key, group, found.get(Subject(Metric.CAPACITY, *key), {}), slo) for key, group in groups.items())


def _one(target: str, protocol: str, group: Sequence[SavedTrial], figures: dict[int, Figure], slo: Slo) -> Capacity:
    searched = [trial for trial in group if trial.key[2] == "capacity"]
    broken = set() if searched else {trial.key[3] for trial in group if _broken(trial)}
    own = [trial for trial in searched or group if trial.key[3] not in broken and validity.usable(trial, slo)]
    max_rate, ci95 = _mean_of_starts(own, figures, slo) if searched else _between_rates(own, slo)
    bounded = _by_start(own, figures) if searched else _as_one(own, max_rate or ci95[1])
    tested = sorted({trial.key[3] for trial in group})
    return Capacity(
        target=target,
        protocol=protocol,
        scenario="capacity" if searched else "ladder",
        slo=slo,
        max_rate=max_rate,
        ci95=ci95,
        starts=tuple(_start(block, figures[block], own) for block in sorted(figures)) if searched else (),
        spread=decision.spread([*figures.values()]) if searched else None,
        binding=boundary.binding(bounded, slo),
        shape=boundary.shape(bounded, slo),
        open_ends=tuple(_open_ends(own, ci95)),
        tested_rates=tuple(tested),
    )


def _broken(trial: SavedTrial) -> bool:
    return any(validity.disqualifying(reason, overload=False) for reason in validity.faults(trial))


def _mean_of_starts(
    trials: Sequence[SavedTrial], figures: dict[int, Figure], slo: Slo
) -> tuple[float | None, Interval]:
    """The mean of a search's starts with its interval, as far as trials that met and that missed the SLO bound it."""
    answers = {starts.meets(trial.record, slo) for trial in trials}
    if not answers:
        return None, (None, None)
    mean = start_means.estimate([figures[block] for block in sorted(figures)])
    low, high = mean.ci95 or (None, None)
    met, missed = True in answers, False in answers
    return mean.value if met else None, (low if met else None, high if missed else None)


def _between_rates(trials: Sequence[SavedTrial], slo: Slo) -> tuple[float | None, Interval]:
    """The highest rate of a ladder that meets the SLO, and from there to the lowest above it that does not."""
    rates: dict[float, list[bool]] = {}
    for trial in trials:
        rates.setdefault(trial.key[3], []).append(starts.meets(trial.record, slo))
    top = max((rate for rate, met in rates.items() if _most(met)), default=None)
    above = min((rate for rate, met in rates.items() if not _most(met) and rate > (top or 0)), default=None)
    return top, (top, above)


def _most(met: Sequence[bool]) -> bool:
    return 2 * sum(met) > len(met)


def _start(block: int, figure: Figure, trials: Sequence[SavedTrial]) -> StartCapacity:
    mean = start_means.estimate([figure])
    return StartCapacity(
        repetition=block,
        rate=math.exp(figure.log_value),
        ci95=mean.ci95,
        trials=tuple(trial.folder.name for trial in trials if trial.record.repetition == block),
    )


def _by_start(trials: Sequence[SavedTrial], figures: dict[int, Figure]) -> list[boundary.Start]:
    return [
        boundary.Start(
            math.exp(figure.log_value), [trial.record for trial in trials if trial.record.repetition == block]
        )
        for block, figure in figures.items()
    ]


def _as_one(trials: Sequence[SavedTrial], rate: float | None) -> list[boundary.Start]:
    return [boundary.Start(rate, [trial.record for trial in trials])] if rate else []


def _open_ends(trials: Sequence[SavedTrial], ci95: Interval) -> list[OpenEnd]:
    rates = [trial.key[3] for trial in trials]
    if not rates:
        return [OpenEnd(WhyOpen.NOTHING_VALID)]
    found = []
    if ci95[0] is None:
        found.append(OpenEnd(WhyOpen.NO_RATE_MET, min(rates)))
    if ci95[1] is None:
        found.append(OpenEnd(WhyOpen.NO_RATE_MISSED, max(rates)))
    return found
