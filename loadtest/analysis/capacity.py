"""The highest rate that meets the SLO, from the trials of a capacity search and of the ladder, with its interval.

Every usable trial is a vote on its rate. A threshold between tested rates is ruled out by the votes that it explains
fewer than the best one does (`capacity_search.Thresholds`): what a sequential test at an error of one trial in ten does
not rule out is the interval, by test inversion (Wald 1945; Casella & Berger 2002, §9.2.1). A search's interval is
widened by how far servers that are started anew lie apart: the bracket of each repetition by itself on a log scale,
their variance, with that within a bracket (its width² / 12), pooled over the searches of a run as in a one-way
random-effects model, and Student's t for how little two repetitions say of it (Davison & Hinkley 1997, §3.8). The rungs
of a ladder are too far apart for that: its interval is between rungs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.analysis import statistics, validity
from loadtest.analysis.records import Capacity, Interval, OpenEnd, WhyOpen
from loadtest.analysis.saved_run import SavedTrial
from loadtest.experiment import slo as slo_of_trial
from loadtest.experiment.capacity_search import Thresholds, Try
from loadtest.experiment.records import SearchRecord
from loadtest.experiment.settings import Slo

# The lag at which a threshold is ruled out: one in eighty is so wrongly, where one trial in ten errs.
RULED_OUT = 2


@dataclass(frozen=True)
class Vote:
    """What one trial says. `met` is None where it may not be used, and `counted` whether a search did use it."""

    target: str
    protocol: str
    scenario: str
    repetition: int
    rate: float
    met: bool | None
    counted: bool


def votes(trials: Sequence[SavedTrial], slo: Slo) -> list[Vote]:
    """The votes of a run's ladder and capacity trials. Of a trial that is not valid only overload counts; a rung of the
    ladder is valid, as everywhere, where all of its repetitions are."""
    asked = [trial for trial in trials if trial.key[2] in ("ladder", "capacity")]
    silent = [bool(slo_of_trial.says_nothing(trial.record, slo.p99_ms)) for trial in asked]
    broken = [bool(validity.faults(trial, overload=False)) for trial in asked]
    rungs = {
        trial.key
        for trial, *faults in zip(asked, silent, broken, strict=True)
        if any(faults) and trial.key[2] == "ladder"
    }
    found = []
    for trial, says_nothing, is_broken in zip(asked, silent, broken, strict=True):
        met = None
        if not (says_nothing or is_broken or trial.key in rungs):
            met = not slo_of_trial.why_missed(trial.record, slo.p99_ms, slo.error_ratio)
        target, protocol, scenario, rate = trial.key
        repetition = trial.record.repetition
        found.append(Vote(target, protocol, scenario, repetition, rate, met, counted=not says_nothing))
    return found


def of(cast: Sequence[Vote], searches: Sequence[SearchRecord], slo: Slo) -> tuple[Capacity, ...]:
    """One entry for each target and protocol (see above for its interval)."""
    latest: dict[tuple[str, str], SearchRecord] = {}
    for search in sorted(searches, key=lambda one: one.repetition):
        latest[search.target, search.protocol] = search
    groups: dict[tuple[str, str], list[Vote]] = {}
    for vote in cast:
        groups.setdefault((vote.target, vote.protocol), []).append(vote)
    searched = {key: [one for one in group if one.scenario == "capacity"] for key, group in groups.items()}
    reach = _reach([searched[key] for key in latest if key in searched])
    return tuple(_one(*key, group, latest.get(key), reach, slo) for key, group in groups.items())


def _one(
    target: str, protocol: str, group: Sequence[Vote], search: SearchRecord | None, reach: float, slo: Slo
) -> Capacity:
    own = [one for one in group if one.scenario == ("capacity" if search else "ladder")]
    used = _usable(own)
    top, above = Thresholds(used).bracket(1, 1)
    if search:
        sound = all(one.met is not None for one in own if one.counted)
        confirmed = search.confirmed and sound
        if sound:
            top, above = search.low, search.high
    else:
        tried = [one.rate for one in used]
        ends = [end for end in (top, above) if end is not None]
        confirmed = bool(ends) and all(tried.count(end) > 1 for end in ends)
    # What the ladder says counts, too, but it does not open what the search has bounded.
    ci95 = _interval((_usable(group), used), (top, above), reach if search else 0.0)
    return Capacity(
        target=target,
        protocol=protocol,
        scenario="capacity" if search else "ladder",
        slo=slo,
        max_rate=top,
        bracket=(top, above),
        confirmed=confirmed,
        out_of_time=bool(search and search.out_of_time),
        ci95=ci95,
        open_ends=tuple(_open_ends(group, ci95)),
        tested_rates=tuple(sorted({one.rate for one in group})),
    )


def _usable(group: Sequence[Vote]) -> list[Try]:
    return [Try(one.rate, one.met) for one in group if one.met is not None]


def _interval(evidence: Sequence[Sequence[Try]], bracket: Interval, reach: float) -> Interval:
    """(low, high) around a bracket, from the first of these collections of trials that sets each bound."""
    ends = [Thresholds(tries).bracket(RULED_OUT, RULED_OUT) for tries in evidence]
    low = next((low for low, _ in ends if low is not None), None)
    high = next((high for _, high in ends if high is not None), None)
    top, above = bracket
    if low is not None:
        low = min(low, top or low) * math.exp(-reach)
    if high is not None:
        high = max(high, above or high) * math.exp(reach)
    return low, high


def _reach(searches: Sequence[Sequence[Vote]]) -> float:
    """How far the mean of a search's repetitions may lie from that of all starts of its server, on a log scale; 0 where
    nothing was repeated, so that nothing is known of it."""
    squares = within = 0.0
    degrees, brackets, fewest = 0, 0, math.inf
    for group in searches:
        places = []
        for repetition in sorted({one.repetition for one in group}):
            ends = Thresholds(_usable([one for one in group if one.repetition == repetition])).bracket(1, 1)
            known = [math.log(end) for end in ends if end is not None]
            if known:
                places.append(sum(known) / len(known))
                within += (known[-1] - known[0]) ** 2 / 12
                brackets += 1
        if len(places) > 1:
            middle = sum(places) / len(places)
            squares += sum((place - middle) ** 2 for place in places)
            degrees += len(places) - 1
            fewest = min(fewest, len(places))
    if not degrees:
        return 0.0
    return statistics.student_t(degrees) * math.sqrt((squares / degrees + within / brackets) / fewest)


def _open_ends(group: Sequence[Vote], ci95: Interval) -> list[OpenEnd]:
    rates = sorted({one.rate for one in group})
    used = _usable(group)
    found = []
    if not used:
        return [OpenEnd(WhyOpen.NOTHING_VALID)]
    if ci95[0] is None:
        met = max((one.rate for one in used if one.met), default=None)
        found.append(OpenEnd(WhyOpen.NO_RATE_MET, rates[0]) if met is None else OpenEnd(WhyOpen.SELDOM_MET, met))
    if ci95[1] is None:
        missed = min((one.rate for one in used if not one.met), default=None)
        found.append(
            OpenEnd(WhyOpen.NO_RATE_MISSED, rates[-1]) if missed is None else OpenEnd(WhyOpen.SELDOM_MISSED, missed)
        )
    return found
