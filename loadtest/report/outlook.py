"""What would change the answer: what a reader could do, or have, that may turn the verdict."""

from __future__ import annotations

from typing import Any

from loadtest.analysis import wording
from loadtest.report import sizing

Figures = dict[str, Any]


def would_change(figures: Figures) -> list[str]:
    """Sentences, the most likely reason first; ``figures`` is the run's summary."""
    if not figures["measurements"]:
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


def _engines(figures: Figures) -> list[str]:
    return [
        f"The production server: {wording.shorten(wording.target(target))} is a stand-in. With tensorflow_model_server "
        "on the PATH, or in containers, a run measures the real one."
        for target in figures["targets"]
        if target["measured"] and wording.is_embedded(target)
    ]


def _validity(figures: Figures) -> list[str]:
    broken = [item for item in figures["measurements"] if not item["valid"]]
    if not broken:
        return []
    of_all = wording.plural(len(figures["measurements"]), "measurement")
    return [f"What could not be used: {len(broken)} of {of_all} are not valid; the reasons stand in the table."]


def _precision(figures: Figures) -> list[str]:
    """Verdicts that an interval across 1 leaves open."""
    found = []
    for verdict in figures["verdicts"]:
        open_ended = verdict["winner"] is None and verdict["ratio"] and verdict["why"].startswith("No difference shown")
        if open_ended and verdict["metric"] == "p99":
            found.append(
                f"More repetitions, or longer ones: over {wording.protocol(verdict['protocol'])} the ratio of the p99 "
                f"latencies is {wording.number(verdict['ratio'])} ({wording.interval(verdict['ci95'])}): it may be "
                "1. An interval half as wide takes about four times as long."
            )
    return found


def _turns(figures: Figures) -> list[str]:
    """Rates at which the loser of a latency verdict is surely ahead: intervals that do not meet."""
    found = []
    for verdict in figures["verdicts"]:
        winner = verdict["winner"]
        if verdict["metric"] != "p99" or winner is None:
            continue
        loser = next(name for name in verdict["compared"] if name != winner)
        ahead = []
        for ours in _ladder(figures, loser, verdict["protocol"]):
            theirs = next(
                (
                    item
                    for item in _ladder(figures, winner, verdict["protocol"])
                    if item["offered_rate"] == ours["offered_rate"]
                ),
                None,
            )
            if theirs and ours["ci95"]["p99"][1] < theirs["ci95"]["p99"][0]:
                ahead.append(ours["offered_rate"])
        if ahead:
            rates = ", ".join(wording.rate(rate) for rate in sorted(ahead))
            found.append(
                f"Another rate: over {wording.protocol(verdict['protocol'])} at {rates} "
                f"{wording.shorten(wording.stack(loser), 30)} has the lower p99 latency."
            )
    return found


def _ladder(figures: Figures, target: str, protocol: str) -> list[Figures]:
    return [
        item
        for item in figures["measurements"]
        if (item["target"], item["protocol"], item["scenario"]) == (target, protocol, "ladder")
        and item["valid"]
        and item["ci95"]["p99"]
    ]


def _ceilings(figures: Figures) -> list[str]:
    """Targets that still met the SLO at the highest rate tried, so that their capacity is not known."""
    found = []
    for target, protocol in dict.fromkeys((item["target"], item["protocol"]) for item in figures["capacity"]):
        entry = sizing.capacity(figures, target, protocol)
        name = wording.shorten(wording.stack(target), 30)
        if entry and entry["max_rate"] is not None and entry["bracket"][1] is None:
            found.append(
                f"Higher rates: {name} over {wording.protocol(protocol)} still met the SLO at "
                f"{wording.rate(entry['max_rate'])}, the highest rate tried."
            )
    return found
