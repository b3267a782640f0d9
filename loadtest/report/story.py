"""The report in plain sentences: the verdict, the conditions that it holds under, and badges. No HTML here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from loadtest.analysis import wording
from loadtest.analysis.summary import DEFAULT_SLO

FACTS = {
    "torchserve": "TorchServe is archived upstream: 0.12.0 (September 2024) is its last release and gets no fixes.",
    "embedded-tfserving": "embedded-tfserving is this project's own server around TensorFlow: it speaks TensorFlow "
    "Serving's API, but its speed is not TensorFlow Serving's. With tensorflow_model_server on the PATH, a run "
    "measures the production server.",
}


@dataclass(frozen=True)
class Story:
    """``headline`` is one short sentence; ``lede`` says it in two or three, with ratios, intervals and conditions;
    ``sentences`` give the evidence, (topic, sentence) for each question."""

    headline: str
    lede: list[str]
    sentences: list[tuple[str, str]]


@dataclass(frozen=True)
class Badge:
    """``state`` is "good", "caution" or "bad"."""

    state: str
    label: str
    detail: str


def tell(figures: dict[str, Any]) -> Story:
    """The verdict in words."""
    verdicts = figures["verdicts"]
    names = {target["name"]: wording.shorten(wording.target(target)) for target in figures["targets"]}
    if not verdicts:
        measured = [names[target["name"]] for target in figures["targets"] if target["measured"]]
        headline = f"Only {measured[0]} was measured." if measured else "Nothing was measured."
        alone = "There is no second target to compare it with."
        return Story(headline, [alone, _holds(figures)] if measured else [], [("", alone)] if measured else [])
    return Story(
        headline=_headline(verdicts, names),
        lede=[*_lede(figures, verdicts), _holds(figures)],
        sentences=[_sentence(figures, verdict, names) for verdict in verdicts],
    )


LEDE_PROTOCOLS = 2


def _lede(figures: dict[str, Any], verdicts: list[dict[str, Any]]) -> list[str]:
    """A sentence for the latency and the capacity of each of the first protocols."""
    found = []
    for verdict in [verdict for verdict in verdicts if verdict["metric"] == "p99"][:LEDE_PROTOCOLS]:
        searched = [
            item for item in verdicts if (item["metric"], item["protocol"]) == ("capacity", verdict["protocol"])
        ]
        sentence = _latency_sentence(figures, verdict)
        found.append(f"{sentence}{_capacity_clause(figures, searched[0]) if searched else ''}.")
    return found


def _latency_sentence(figures: dict[str, Any], verdict: dict[str, Any]) -> str:
    over, winner, ratio = wording.protocol(verdict["protocol"]), verdict["winner"], verdict["ratio"]
    if ratio is None:
        return f"Over {over} there is no verdict on latency; the reason stands below"
    at = wording.rate(verdict["offered_rate"])
    if winner is None:
        shown = f"{wording.number(ratio)} {_bounds(verdict['ci95'])}"
        verb = "no difference is shown" if verdict["why"].startswith("No difference") else "no winner is named"
        return f"Over {over} at {at} {verb}: the ratio of the p99 latencies is {shown}"
    loser = next(name for name in verdict["compared"] if name != winner)
    p99 = [wording.milliseconds(_measured(figures, name, verdict)["latency_ms"]["p99"]) for name in (winner, loser)]
    return (
        f"Over {over} at {at}, {wording.shorten(wording.stack(winner), 30)}’s p99 latency is "
        f"{_factor(verdict, ' times lower')}: {p99[0]} against {p99[1]}"
    )


def _capacity_clause(figures: dict[str, Any], verdict: dict[str, Any]) -> str:
    winner, ratio = verdict["winner"], verdict["ratio"]
    if ratio is None:
        return "; there is no verdict on capacity"
    if winner is None:
        shown = f"{wording.number(ratio)} {_bounds(verdict['ci95'])}"
        verb = "no difference in capacity is shown" if "No difference" in verdict["why"] else "capacity names no winner"
        return f"; {verb}, ratio {shown}"
    loser = next(name for name in verdict["compared"] if name != winner)
    rates = {
        item["target"]: wording.rate(item["max_rate"])
        for item in figures["capacity"]
        if item["protocol"] == verdict["protocol"]
    }
    return (
        f"; {wording.shorten(wording.stack(winner), 30)}’s capacity within the SLO is "
        f"{_factor(verdict, ' times higher')}: {rates[winner]} against {rates[loser]}"
    )


def _factor(verdict: dict[str, Any], unit: str = "") -> str:
    """How many times better the winner is, above 1, with its interval."""
    # The loser's goodput may be 0: then only the interval's near end says anything.
    factor, ends = math.inf if verdict["ratio"] is None else verdict["ratio"], verdict["ci95"]
    if factor < 1:
        factor, ends = 1 / factor if factor else math.inf, [1 / end if end else None for end in reversed(ends)]
    if not math.isfinite(factor):
        return f"without bound{unit} {_bounds(ends)}"
    return f"{wording.number(factor)}{unit} {_bounds(ends)}"


def _bounds(ends: list[float | None] | None) -> str:
    known = wording.interval(ends)
    return "(without an interval)" if known == wording.NOTHING else f"(95 % interval {known})"


def _holds(figures: dict[str, Any]) -> str:
    """The conditions in one sentence."""
    known = dict(conditions(figures, None))
    device = figures["experiment"].get("profile", {}).get("device")
    parts = [
        f"for {wording.shorten(known.get('Model') or known['Models'], 80)}",
        f"with an SLO of {known['SLO'].replace(', ', ' and ')}" if "SLO" in known else "",
        f"on {wording.shorten(known['Machine'], 80)}" if "Machine" in known else "",
        f"computing on the {str(device).upper()}" if device else "",
    ]
    done = "Measured" if figures["measurements"] else "Planned"
    return f"{done} {', '.join(part for part in parts if part)}."


def _headline(verdicts: list[dict[str, Any]], names: dict[str, str]) -> str:
    faster, higher = _won(verdicts, "p99"), _won(verdicts, "capacity")
    if len(faster) > 1:
        return "It depends on the protocol: each target has the lower p99 on one."
    if not faster:
        for won, says in ((higher, "has the higher capacity"), (_won(verdicts, "goodput"), "answered more requests")):
            if won:
                told = "; ".join(f"{names[winner]} {says} within the SLO over {where}" for winner, where in won.items())
                return f"It depends on the protocol: {told}." if len(won) > 1 else f"{told}."
        return _no_winner(verdicts)
    ((winner, where),) = faster.items()
    if higher == faster:
        return f"{names[winner]} has the lower p99 latency and the higher capacity over {where}."
    told = f"{names[winner]} has the lower p99 latency over {where}"
    if winner in higher:
        told += f", and the higher capacity over {higher[winner]}"
    others = [f"; {names[other]} has the higher capacity over {higher[other]}" for other in higher if other != winner]
    return f"{told}{''.join(others)}."


def _no_winner(verdicts: list[dict[str, Any]]) -> str:
    latency = [verdict for verdict in verdicts if verdict["metric"] == "p99"]
    if all(verdict["ratio"] is None for verdict in latency):
        return "No verdict: the measurements do not allow a comparison."
    if any(verdict["why"].startswith("No difference shown") for verdict in latency):
        return "No difference shown."
    return "No winner is named."


def _won(verdicts: list[dict[str, Any]], metric: str) -> dict[str, str]:
    """For each target that won by a metric, over which protocols, "only" where these are not all that were asked."""
    asked = [verdict for verdict in verdicts if verdict["metric"] == metric]
    found: dict[str, list[str]] = {}
    for verdict in asked:
        if verdict["winner"]:
            found.setdefault(verdict["winner"], []).append(wording.protocol(verdict["protocol"]))
    return {winner: " and ".join(over) + (" only" if len(over) < len(asked) else "") for winner, over in found.items()}


def _sentence(figures: dict[str, Any], verdict: dict[str, Any], names: dict[str, str]) -> tuple[str, str]:
    winner = verdict["winner"]
    if winner is None or verdict["metric"] == "capacity":
        return verdict["question"], verdict["why"]
    loser = next(name for name in verdict["compared"] if name != winner)
    sure = f"{_factor(verdict)}{_adjusted(verdict)}"
    ours, theirs = (_measured(figures, name, verdict) for name in (winner, loser))
    if verdict["metric"] == "p99":
        evidence = (
            f"{names[winner]}: 99 % of its answers came within {wording.milliseconds(ours['latency_ms']['p99'])}, "
            f"of {names[loser]} within {wording.milliseconds(theirs['latency_ms']['p99'])}. That is a factor of {sure}."
        )
    else:
        evidence = (
            f"{names[winner]}: at {wording.rate(verdict['offered_rate'])} offered it answered "
            f"{wording.rate(ours['goodput'])} within the SLO, {names[loser]} {wording.rate(theirs['goodput'])}. "
            f"That is a factor of {sure}."
        )
    return verdict["question"], evidence


def _adjusted(verdict: dict[str, Any]) -> str:
    """The p-value after Holm's correction for all questions of the run, where the summary has one."""
    p = verdict.get("p_adjusted")
    if p is None:
        return ""
    return f", adjusted p {'below 0.001' if p < 0.001 else wording.number(p, 2)}"


def _measured(figures: dict[str, Any], target: str, verdict: dict[str, Any]) -> dict[str, Any]:
    where = (target, verdict["protocol"], verdict["offered_rate"])
    return next(
        item
        for item in figures["measurements"]
        if (item["target"], item["protocol"], item["offered_rate"]) == where and item["scenario"] == "ladder"
    )


def badges(figures: dict[str, Any]) -> list[Badge]:
    """What the figures rest on, at a glance."""
    return [
        _parity(figures["parity"]),
        _validity(figures["measurements"]),
        _engines(figures["targets"]),
        _server_side(figures),
    ]


def _parity(parity: dict[str, Any]) -> Badge:
    if parity["proven"]:
        return Badge(
            "good", "Same model, proven", f"answers differ by at most {wording.scientific(parity['max_abs_diff'])}"
        )
    return Badge("bad", "Model parity not proven", parity["why_not_proven"][0])


def _validity(measurements: list[dict[str, Any]]) -> Badge:
    broken = sum(not item["valid"] for item in measurements)
    if not measurements:
        return Badge("bad", "No measurements", "no trial was saved")
    if broken:
        return Badge("bad", f"{broken} of {len(measurements)} measurements not valid", "struck below, with the reason")
    return Badge(
        "good", f"All {len(measurements)} measurements valid", "the generator kept its schedule, answers were right"
    )


def _engines(targets: list[dict[str, Any]]) -> Badge:
    embedded = [target for target in targets if wording.is_embedded(target)]
    missing = [target for target in targets if not target["measured"]]
    if missing:
        return Badge(
            "bad", f"{wording.shorten(wording.stack(missing[0]['name']), 30)} not measured", "it has no trial here"
        )
    if embedded:
        return Badge(
            "caution", "Embedded stand-in", " and ".join(wording.shorten(wording.target(item)) for item in embedded)
        )
    unknown = [target for target in targets if target["engine"] not in wording.ENGINES]
    if unknown:
        return Badge("caution", "Unknown engine", wording.shorten(wording.target(unknown[0])))
    return Badge("good", "Real engines", " and ".join(wording.shorten(wording.engine(item), 40) for item in targets))


def _server_side(figures: dict[str, Any]) -> Badge:
    version = figures["environment"].get("prometheus")
    if version:
        return Badge("good", "Observed by Prometheus", f"version {version}")
    return Badge("caution", "No server-side metrics", "Prometheus did not watch this run")


def conditions(figures: dict[str, Any], manifest: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What the verdict holds under: (what, how)."""
    experiment, environment = figures["experiment"], figures["environment"]
    profile, ladder = experiment.get("profile", {}), experiment.get("ladder", {})
    slo = {**DEFAULT_SLO, **experiment.get("slo", {})} if experiment.get("ladder") else {}
    images = ladder.get("batch", 1)
    found = [
        _models(figures, manifest),
        ("Requests", f"{wording.plural(images, 'image')} each, {ladder.get('arrival', 'poisson')} arrivals"),
        (
            "Repetitions",
            f"{ladder.get('repetitions', wording.NOTHING)} × "
            f"{wording.setting(ladder.get('duration_s'), 's')} at each rate",
        ),
    ]
    if slo:
        found.append(("SLO", f"p99 within {wording.setting(slo['p99_ms'], 'ms')}, at most {_percent(slo)} errors"))
    if profile:
        found.append(
            (
                "Profile",
                f"batches up to {profile.get('max_batch_size')} within "
                f"{wording.setting(profile.get('batch_timeout_ms'), 'ms')}, "
                f"{wording.plural(profile.get('instances'), 'instance')} of "
                f"{wording.plural(profile.get('threads'), 'thread')}, {profile.get('device')}",
            )
        )
    cpu, cores = wording.isolated(str(environment.get("cpu_model") or "")), environment.get("cpu_count")
    if cpu or cores:
        found.append(("Machine", ", ".join(part for part in (cpu, f"{cores} CPUs" if cores else None) if part)))
    server, generator = environment.get("server_cores"), environment.get("generator_cores")
    if server and generator:
        found.append(("Pinning", f"server on CPU {_cores(server)}, load generator on CPU {_cores(generator)}"))
    elif environment:
        found.append(("Pinning", "none: server and load generator share CPUs"))
    return found


def _models(figures: dict[str, Any], manifest: dict[str, Any] | None) -> tuple[str, str]:
    """The model, or the models that each server holds with their shares of the requests, and the data set."""
    experiment = figures["experiment"]
    dataset = wording.isolated(str(experiment.get("dataset", wording.NOTHING)))
    mix = experiment.get("models")
    if not mix:
        accuracy = ((manifest or {}).get("training") or {}).get("test_accuracy")
        model = wording.isolated(str(experiment.get("model", wording.NOTHING)))
        return "Model", f"{model} on {dataset}{_accuracy(accuracy)}"
    each = [f"{wording.isolated(name)} ({wording.share(share)} of the requests)" for name, share in mix.items()]
    found = f"{' and '.join(each)} on {dataset}"
    if manifest:
        evidence = figures["parity"]["by_model"].values()
        accuracies = [one["exports"].get("pytorch", {}).get("accuracy") for one in evidence]
        found += f", test accuracy {' and '.join(map(wording.precise_share, accuracies))}"
    return "Models", found


def _accuracy(accuracy: float | None) -> str:
    return f", test accuracy {wording.number(accuracy * 100)} %" if accuracy else ""


def _percent(slo: dict[str, Any]) -> str:
    return wording.setting(slo["error_ratio"] * 100, "%")


def _cores(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
