"""What a run found, in one sentence that is right when it is repeated: one question, whose answer it is, over which
protocols, and no winner where none was found."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.analysis.records import Ranking, Summary, Verdict
from loadtest.experiment.questions import Family, Metric
from loadtest.report import names as naming
from loadtest.report import ranking, verdict_words, wording
from loadtest.report.verdict_words import Names


def sentence(figures: Summary, names: Names) -> str:
    """The sentence. It is about the first question that names a winner, else about the first that can be answered."""
    if not figures.verdicts:
        measured = [names[target.name] for target in figures.targets if target.measured]
        return naming.opening(f"{measured[0]} alone was measured." if measured else "Nothing was measured.")
    if len(figures.targets) >= ranking.FEWEST:
        return naming.opening(_leaders(figures, names))
    return naming.opening(f"{_answer(figures, _question(figures), names)}.")


def main(figures: Summary, metric: Metric) -> list[Verdict]:
    """The verdicts on the capacity, or on p99 latency at the main rate, in the order of protocols and pairs."""
    family = Family.CAPACITY if metric is Metric.CAPACITY else Family.LATENCY
    return [verdict for verdict in figures.verdicts if verdict.family is family]


def where(figures: Summary, verdict: Verdict) -> str:
    """What a verdict holds for: "over gRPC", "over gRPC at 600/s", "over gRPC at your 600/s"."""
    over, ladder = f"over {wording.protocol(verdict.protocol)}", figures.experiment.ladder
    if not verdict.offered_rate:
        return over
    own = "your " if ladder and verdict.offered_rate == ladder.rate else ""
    return f"{over} at {own}{wording.rate(verdict.offered_rate)}"


def _question(figures: Summary) -> list[Verdict]:
    asked = [found for metric in (Metric.CAPACITY, Metric.P99) if (found := main(figures, metric))]
    for answered in (lambda one: one.winner, lambda one: one.has_ratio, lambda _: True):
        for verdicts in asked:
            if any(answered(one) for one in verdicts):
                return verdicts
    return list(figures.verdicts[:1])


def _answer(figures: Summary, verdicts: Sequence[Verdict], names: Names) -> str:
    """One question about two targets, over each protocol that it was asked of."""
    won: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.winner:
            won.setdefault(verdict.winner, []).append(verdict)
    told = [_won(figures, found, names, first=not place) for place, found in enumerate(won.values())]
    left = [verdict for verdict in verdicts if not verdict.winner]
    if not told:
        return _nothing_won(figures, left, names)
    depends = "It depends on the protocol: " if len(told) > 1 else ""
    return f"{depends}{'; '.join([*told, *_others(figures, left, names)])}"


def _won(figures: Summary, verdicts: Sequence[Verdict], names: Names, *, first: bool) -> str:
    """What one winner did better than the other, over each protocol."""
    return (_slower if verdicts[0].metric is Metric.P99 else _handled)(figures, verdicts, names, first=first)


def _handled(figures: Summary, verdicts: Sequence[Verdict], names: Names, *, first: bool) -> str:
    lead = verdicts[0]
    winner, loser = names[str(lead.winner)], names[str(lead.loser)]
    told = []
    for verdict in verdicts:
        factor, around = verdict_words.better(verdict)
        many = f"{factor} times as many"
        if verdict is lead:
            what = f" requests per second as {loser} within {_limit(figures)}" if first else f" as {loser}"
            many = f"{winner} handled {many}{what}"
        told.append(f"{many} over {wording.protocol(verdict.protocol)}{_in_brackets(around)}")
    return wording.listed(told)


def _slower(figures: Summary, verdicts: Sequence[Verdict], names: Names, *, first: bool) -> str:  # noqa: ARG001 - as `_handled`
    lead = verdicts[0]
    winner, loser = names[str(lead.winner)], names[str(lead.loser)]
    told = []
    for verdict in verdicts:
        factor, around = verdict_words.better(verdict)
        ours, theirs = map(wording.brief_milliseconds, verdict_words.winners_first(verdict))
        sure = f"{factor} times as long{f', {around}' if around else ''}"
        did = f"{winner} answered 99 % of requests" if verdict is lead else "99 %"
        told.append(f"{where(figures, verdict)} {did} within {ours}, {loser} within {theirs} ({sure})")
    return "; ".join(told)


def _others(figures: Summary, left: Sequence[Verdict], names: Names) -> list[str]:
    """The protocols over which no winner is named, beside those over which one is."""
    slo = figures.experiment.slo
    told: dict[str, list[str]] = {}
    for verdict in left:
        reason = verdict_words.because(verdict, slo, names)
        if verdict.shows_no_difference:
            says = "no difference was shown"
        else:
            says = f"{'no winner is named' if verdict.has_ratio else 'there is no verdict'}, because {reason}"
        told.setdefault(says, []).append(wording.protocol(verdict.protocol))
    return [f"over {wording.listed(over)} {says}" for says, over in told.items()]


def _nothing_won(figures: Summary, verdicts: Sequence[Verdict], names: Names) -> str:
    if all(verdict.shows_no_difference for verdict in verdicts):
        found: dict[str, list[str]] = {}
        for verdict in verdicts:
            if power := verdict_words.detectable(verdict):
                found.setdefault(power, []).append(wording.protocol(verdict.protocol))
        ratios = [f"{ratio} over {wording.listed(over)}" for ratio, over in found.items()]
        power = f": this run could have found a ratio of {wording.listed(ratios)}" if ratios else ""
        return f"No difference shown in {_asked(figures, verdicts[0])}{power}"
    reasons = {verdict_words.because(verdict, figures.experiment.slo, names) for verdict in verdicts}
    if len(reasons) > 1:
        return f"No winner is named: {'; '.join(_others(figures, verdicts, names))}"
    return f"{'No winner is named' if verdicts[0].has_ratio else 'No verdict'}: {reasons.pop()}"


def _asked(figures: Summary, verdict: Verdict) -> str:
    if verdict.metric is Metric.P99:
        return "p99 latency"
    return f"requests per second within {_limit(figures)}"


def _limit(figures: Summary) -> str:
    return wording.setting(figures.experiment.slo.p99_ms, "ms")


def _in_brackets(around: str) -> str:
    return f" ({around})" if around else ""


# --- three targets or more ---


def _leaders(figures: Summary, names: Names) -> str:
    """Who leads, over each protocol, and by how much over the next."""
    for metric in (Metric.CAPACITY, Metric.P99):
        verdicts = main(figures, metric)
        told: dict[str, list[str]] = {}
        for one in figures.rankings:
            if one.metric is metric and any(item.behind for item in one.standings):
                says, more = _lead(figures, one, verdicts, names)
                told.setdefault(says, []).append(f"over {wording.protocol(one.protocol)}{more}")
        if told:
            leads = "; ".join(f"{says} {'; '.join(where)}" for says, where in told.items())
            return f"{'It depends on the protocol: ' if len(told) > 1 else ''}{leads}."
    verdicts = [one for metric in (Metric.CAPACITY, Metric.P99) for one in main(figures, metric)]
    if any(verdict.shows_no_difference for verdict in verdicts):
        return f"No difference shown between {wording.listed(list(names.values()))}."
    if not any(verdict.has_ratio for verdict in verdicts):
        return "No verdict: the measurements do not allow a comparison."
    return "No winner is named."


def _lead(figures: Summary, one: Ranking, verdicts: Sequence[Verdict], names: Names) -> tuple[str, str]:
    """(who is first in what, how far from whom)."""
    first = [item.target for item in one.standings if item.place == 1]
    rest = [item for item in one.standings if item.place not in (1, None)]
    latency = one.metric is Metric.P99
    what = "p99 latency" if latency else f"requests per second within {_limit(figures)}"
    who = wording.listed([names[name] for name in first])
    if len(first) > 1:
        return f"{who} share the first place in {what}", ""
    if beside := [names[item.target] for item in rest if first[0] not in item.behind]:
        return f"{who} leads in {what}", f", not told apart from {wording.listed(beside)}"
    best = f"{who} {'had the lowest' if latency else 'handled the most'} {what}"
    won = [verdict for verdict in verdicts if verdict.protocol == one.protocol and verdict.winner == first[0]]
    nearest = min(won, key=_factor, default=None)
    if nearest is None:
        return best, ""
    factor, around = verdict_words.better(nearest)
    next_one, sure = names[str(nearest.loser)], _in_brackets(around)
    if latency:
        at = wording.rate(nearest.offered_rate)
        return best, f" at {at}, where the next, {next_one}, took {factor} times as long{sure}"
    return best, f", {factor} times as many{sure} as the next, {next_one}"


def _factor(verdict: Verdict) -> float:
    ratio = verdict.ratio or 1.0
    return max(ratio, 1 / ratio)
