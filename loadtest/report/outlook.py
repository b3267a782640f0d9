"""What would change the answer: what a reader could do, or have, that may turn the verdict."""

from __future__ import annotations

from loadtest.analysis.records import Summary, WhyOpen
from loadtest.experiment.questions import Family, Metric
from loadtest.report import sizing, verdict_words, wording
from loadtest.report.verdict_words import Names
from serving.engines import registry


def would_change(figures: Summary, names: Names) -> list[str]:
    """Sentences, the most likely reason first; ``figures`` is the run's summary, ``names`` what its targets are
    called."""
    if not figures.measurements:
        return []
    return [
        *_engines(figures),
        *_validity(figures),
        *_precision(figures, names),
        *_turns(figures, names),
        *_ceilings(figures, names),
        "Another model, image size, batch profile, SLO or machine: none of these figures carries over. Change the "
        "experiment and run it again.",
    ]


def _engines(figures: Summary) -> list[str]:
    found = []
    for target in figures.targets:
        real = registry.find(target.stands_in_for) if target.measured and target.stands_in_for else None
        if real:
            fetched = f", or fetched by make {real.id}" if real.download else ""
            found.append(
                f"The production server: {wording.shorten(wording.target(target))} is a stand-in. With {real.program} "
                f"on the PATH{fetched}, or in containers, a run measures the real one."
            )
    return found


def _validity(figures: Summary) -> list[str]:
    broken = [item for item in figures.measurements if not item.valid]
    if not broken:
        return []
    of_all = wording.plural(len(figures.measurements), "measurement")
    return [f"What could not be used: {len(broken)} of {of_all} are not valid; the reasons stand in the table."]


def _precision(figures: Summary, names: Names) -> list[str]:
    """Questions of the first screen that are open, and what would decide them."""
    found = []
    for verdict in figures.verdicts:
        if verdict.family is Family.REST or not verdict.shows_no_difference or not verdict.ci95:
            continue
        what = "capacities" if verdict.metric is Metric.CAPACITY else "p99 latencies"
        more = verdict_words.needed(verdict.needed)
        both = " / ".join(names[name] for name in verdict.compared)
        found.append(
            f"More starts: over {wording.protocol(verdict.protocol)} the ratio of the {what} ({both}) lies in "
            f"{wording.between(*verdict.ci95)}{f'; {more}' if more else ''}."
        )
    return found


def _turns(figures: Summary, names: Names) -> list[str]:
    """Rates at which a verdict on latency names the loser of that at the main rate."""
    found = []
    latency = [verdict for verdict in figures.verdicts if verdict.metric is Metric.P99]
    for main in (verdict for verdict in latency if verdict.family is Family.LATENCY):
        if main.winner is None or main.loser is None:
            continue
        turned = (main.protocol, main.compared, main.loser)
        rates = [one.offered_rate for one in latency if (one.protocol, one.compared, one.winner) == turned]
        if rates:
            found.append(
                f"Another rate: over {wording.protocol(main.protocol)} at {', '.join(map(wording.rate, rates))} "
                f"{names[main.loser]} has a lower p99 latency than {names[main.winner]}."
            )
    return found


def _ceilings(figures: Summary, names: Names) -> list[str]:
    """Targets that still met the SLO at the highest rate tried, so that their capacity is not known."""
    found = []
    for target, protocol in dict.fromkeys((item.target, item.protocol) for item in figures.capacity):
        entry = sizing.capacity(figures, target, protocol)
        open_ends = entry.open_ends if entry and entry.max_rate is not None else ()
        found += [
            f"{names[target]} over {wording.protocol(protocol)} at {wording.rate(end.rate)}"
            for end in open_ends
            if end.why is WhyOpen.NO_RATE_MISSED
        ]
    return [f"Higher rates: the highest that was tried still met the SLO, {wording.listed(found)}."] if found else []
