"""What would change the answer: what a reader could do, or have, that may turn the verdict."""

from __future__ import annotations

from loadtest.analysis.records import Measurement, Metric, Summary, Verdict
from loadtest.report import sizing, wording
from serving.engines import registry


def would_change(figures: Summary) -> list[str]:
    """Sentences, the most likely reason first; ``figures`` is the run's summary."""
    if not figures.measurements:
        return []
    return [
        *_engines(figures),
        *_validity(figures),
        *_precision(figures),
        *_turns(figures),
        *_ceilings(figures),
        "Another model, image size, batch profile, SLO or machine: none of these figures carries over. Change the "
        "experiment and run it again.",
    ]


def _engines(figures: Summary) -> list[str]:
    found = []
    for target in figures.targets:
        real = registry.find(target.stands_in_for) if target.measured and target.stands_in_for else None
        if real:
            found.append(
                f"The production server: {wording.shorten(wording.target(target))} is a stand-in. With {real.program} "
                "on the PATH, or in containers, a run measures the real one."
            )
    return found


def _validity(figures: Summary) -> list[str]:
    broken = [item for item in figures.measurements if not item.valid]
    if not broken:
        return []
    of_all = wording.plural(len(figures.measurements), "measurement")
    return [f"What could not be used: {len(broken)} of {of_all} are not valid; the reasons stand in the table."]


def _precision(figures: Summary) -> list[str]:
    """Verdicts that an interval across 1 leaves open."""
    found = []
    for verdict in figures.verdicts:
        if verdict.metric is Metric.P99 and verdict.shows_no_difference:
            found.append(
                f"More repetitions, or longer ones: over {wording.protocol(verdict.protocol)} the ratio of the p99 "
                f"latencies{_of(figures, verdict)} is {wording.number(verdict.ratio)} "
                f"({wording.interval(verdict.ci95)}): it may be 1. An interval half as wide takes about four times as "
                "long."
            )
    return found


def _of(figures: Summary, verdict: Verdict) -> str:
    """Whose ratio it is, where there are more than two targets."""
    if len(figures.targets) <= 2:
        return ""
    return f" of {wording.listed([wording.shorten(wording.target_name(name), 30) for name in verdict.compared])}"


def _turns(figures: Summary) -> list[str]:
    """Rates at which the loser of a latency verdict is surely ahead: intervals that do not meet."""
    found = []
    for verdict in figures.verdicts:
        if verdict.metric is not Metric.P99 or verdict.winner is None or verdict.loser is None:
            continue
        winners = {item.offered_rate: item.ci95.p99 for item in _ladder(figures, verdict.winner, verdict.protocol)}
        ahead = []
        for item in _ladder(figures, verdict.loser, verdict.protocol):
            ours, theirs = item.ci95.p99, winners.get(item.offered_rate)
            if ours and theirs and ours[1] < theirs[0]:
                ahead.append(item.offered_rate)
        if ahead:
            rates = ", ".join(wording.rate(rate) for rate in sorted(ahead))
            found.append(
                f"Another rate: over {wording.protocol(verdict.protocol)} at {rates} "
                f"{wording.shorten(wording.target_name(verdict.loser), 30)} has the lower p99 latency"
                f"{_than(figures, verdict.winner)}."
            )
    return found


def _than(figures: Summary, winner: str) -> str:
    if len(figures.targets) <= 2:
        return ""
    return f" than {wording.shorten(wording.target_name(winner), 30)}"


def _ladder(figures: Summary, target: str, protocol: str) -> list[Measurement]:
    return [
        item
        for item in figures.measurements
        if (item.target, item.protocol, item.scenario) == (target, protocol, "ladder") and item.valid and item.ci95.p99
    ]


def _ceilings(figures: Summary) -> list[str]:
    """Targets that still met the SLO at the highest rate tried, so that their capacity is not known."""
    found = []
    for target, protocol in dict.fromkeys((item.target, item.protocol) for item in figures.capacity):
        entry = sizing.capacity(figures, target, protocol)
        name = wording.shorten(wording.target_name(target), 30)
        if entry and entry.max_rate is not None and entry.bracket[1] is None:
            found.append(
                f"Higher rates: {name} over {wording.protocol(protocol)} still met the SLO at "
                f"{wording.rate(entry.max_rate)}, the highest rate tried."
            )
    return found
