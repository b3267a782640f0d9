"""summary.json: everything that a run measured, with intervals, merged from its saved data alone."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.analysis import capacity, decomposition, over_time, saved_run, statistics, validity, verdicts, wording
from loadtest.analysis.saved_run import SavedRun, SavedTrial
from loadtest.analysis.statistics import Floats, Measurement, Resampled
from loadtest.analysis.verdicts import Compared
from models import whole_file

DEFAULT_SLO = {"p99_ms": 50.0, "error_ratio": 0.001}
FEWEST_DEGREES = 3  # of freedom; with fewer, Student's t makes every interval useless


def build(run_folder: Path) -> dict[str, Any]:
    """The summary of a run, as plain values; the same folder gives the same figures.

    Latencies are in milliseconds, rates in requests/s, intervals are 95 % as [low, high]. ``goodput`` counts ok answers
    within the SLO's latency. ``achieved_rate`` counts ok answers over the measured time plus the backlog that grew in
    it, so that what is answered after the end does not look like throughput. The trials of a capacity search have no
    intervals of their own: it tries a rate as often as it needs to. Raises `Problem` for a folder
    that is no run or holds a damaged file.
    """
    run = saved_run.load(run_folder)
    slo = {**DEFAULT_SLO, **run.experiment.get("slo", {})}
    measured = measure(run, slo)
    parity = prove(run)
    figures = [item.figures for item in measured]
    limits = capacity.of(votes(run, slo), run.searches, slo)
    return {
        "experiment": run.experiment,
        "environment": run.environment,
        "parity": parity,
        "targets": [describe(run, stack) for stack in run.stacks],
        "measurements": figures,
        "capacity": limits,
        "decomposition": decomposition.of(figures, [item.mean_ms for item in measured], run.model_times),
        "verdicts": verdicts.decide(run.stacks, _protocols(run), measured, limits, slo, parity),
        "warnings": _warnings(run, figures, parity),
    }


def prove(run: SavedRun) -> dict[str, Any]:
    """The evidence that a run's targets served one model."""
    asked = {(stack, protocol) for stack in run.stacks for protocol in _protocols(run)}
    if not run.mix:
        return validity.parity(run.manifest, run.wire_parity, sorted(asked))
    wire = (run.wire_parity or {}).get("models") or {}
    return validity.parity_of_all(
        {model: validity.parity(run.manifests[model], wire.get(model), sorted(asked)) for model in run.mix}
    )


def write(run_folder: Path) -> dict[str, Any]:
    """Build a run's summary, write it to its summary.json (whole or not at all) and return it."""
    summary = build(run_folder)
    whole_file.write_json(run_folder / "summary.json", summary)
    return summary


def repetitions(run: SavedRun) -> dict[tuple[str, str, str, float], list[SavedTrial]]:
    """The trials of each measurement, in a stable order: target, protocol, scenario, rate; then repetition."""
    grouped: dict[tuple[str, str, str, float], list[SavedTrial]] = {}
    protocols = _protocols(run)
    for trial in sorted(
        run.trials,
        key=lambda trial: (
            protocols.index(trial.key[1]),
            run.stacks.index(trial.key[0]),
            trial.key[2:],
            trial.record.get("repetition", 0),
        ),
    ):
        grouped.setdefault(trial.key, []).append(trial)
    return grouped


def _protocols(run: SavedRun) -> list[str]:
    asked = [str(name) for name in run.experiment.get("protocols", [])]
    return list(dict.fromkeys([*asked, *sorted(trial.key[1] for trial in run.trials)]))


def votes(run: SavedRun, slo: dict[str, float]) -> list[capacity.Vote]:
    """What a run's trials say of the SLO, in the order of `repetitions`."""
    return capacity.votes([trial for trials in repetitions(run).values() for trial in trials], slo)


@dataclass(frozen=True)
class _Sampled:
    key: tuple[str, str, str, float]
    trials: list[SavedTrial]
    measurement: Measurement
    resampled: Resampled
    seed: tuple[int, ...]

    @property
    def backlog_s(self) -> float:
        """Seconds of work that piled up, over all repetitions; a closed loop has none."""
        return sum(map(self.measurement.backlog_s, self.measurement.repetitions)) if self.key[3] else 0.0

    @property
    def at_limit(self) -> bool:
        """Whether the target fell behind the arrivals (see `verdicts.keeps_up`)."""
        scheduled, ok = _total(self.trials, "scheduled"), _total(self.trials, "ok")
        seconds = self.measurement.seconds
        return ok * seconds / (seconds + self.backlog_s) < verdicts.KEEPS_UP * scheduled


def measure(run: SavedRun, slo: dict[str, float]) -> list[Compared]:
    """Every measurement of a run with the uncertainty that a comparison needs; ``slo``: p99_ms and error_ratio."""
    sampled = []
    for key, trials in repetitions(run).items():
        measurement = statistics.combine([trial.intervals() for trial in trials])
        rates = {
            "achieved_rate": tuple(counts.sum(axis=1).astype(float) for counts in measurement.repetitions),
            "goodput": measurement.within(slo["p99_ms"]),
        }
        seed = (int(run.experiment.get("seed", 0)), zlib.crc32(repr(key).encode()))
        resampled = statistics.resample(measurement, validity.SHARES, rates, offered_rate=key[3] or 1.0, seed=seed)
        sampled.append(_Sampled(key, trials, measurement, resampled, seed))
    between = _spreads(sampled)
    compared = []
    for item in sampled:
        deviations = statistics.deviations(item.resampled, between[item.key], item.seed)
        figures = _figures(item, deviations, slo)
        figures["engine"], figures["engine_version"] = _engine(run, item)
        compared.append(Compared(item.key, figures, item.resampled, deviations, item.measurement.mean_ms))
    return compared


def _spreads(sampled: Sequence[_Sampled]) -> dict[tuple[str, str, str, float], statistics.Spread]:
    """For each measurement how far repetitions lie apart: of its own kind where these are enough to tell.

    Servers differ in how alike their starts are, and a server that falls behind shows latencies that only depend on how
    far. So spreads are pooled within a scenario, over what one target does over one protocol, apart for the rates at
    which it keeps up and those at which it does not. Where that leaves fewer degrees of freedom than `FEWEST_DEGREES`:
    over both protocols, over all targets, over everything in the scenario.
    """
    kinds = {item.key: (item.key[2], item.at_limit, item.key[0], item.key[1]) for item in sampled}
    found = {}
    for item in sampled:
        for shared in (4, 3, 2, 1):
            kind = [one for one in sampled if kinds[one.key][:shared] == kinds[item.key][:shared]]
            found[item.key] = statistics.spread(one.resampled for one in kind)
            if found[item.key].degrees >= FEWEST_DEGREES:
                break
    return found


def _figures(item: _Sampled, deviations: Floats, slo: dict[str, float]) -> dict[str, Any]:
    target, protocol, scenario, offered = item.key
    trials, measurement, resampled = item.trials, item.measurement, item.resampled
    answers = int(measurement.merged.sum())
    duration_s = sum(float(trial.record["duration_s"]) for trial in trials)
    # Differs from offered where a trial ends within a second.
    per_second = (offered or 1.0) * measurement.seconds / duration_s
    on_time = measurement.seconds / (measurement.seconds + item.backlog_s)
    latency: dict[str, float | None] = {}
    ci95: dict[str, list[float] | None] = {}
    rates: dict[str, float] = {}
    has_intervals = scenario != "capacity"
    for index, name in enumerate(resampled.names):
        # A search goes where latencies explode; what it says, with an interval, is the capacity.
        bounds = statistics.interval(float(resampled.estimate[index]), deviations[:, index]) if has_intervals else None
        if name in validity.SHARES:
            latency[name] = float(np.exp(resampled.estimate[index])) if answers else None
            ci95[name] = [float(np.exp(end)) for end in bounds] if bounds and answers else None
        else:
            scale = per_second * (on_time if name == "achieved_rate" else 1.0)
            rates[name] = float(resampled.estimate[index]) * scale
            ci95[name] = [max(0.0, end * scale) for end in bounds] if bounds else None
    latency["max"] = float(measurement.values_ms[-1]) if answers else None
    ci95["max"] = None  # the bootstrap says nothing of a maximum (Bickel & Freedman 1981)
    requests = {name: _total(trials, name) for name in ("scheduled", "sent", "completed", "ok", "dropped")}
    errors: Counter[str] = Counter()
    for trial in trials:
        errors.update(trial.record.get("errors") or {})
    why_not = validity.by_repetition(trials, [validity.faults(trial) for trial in trials])
    cautions = validity.by_repetition(trials, [validity.cautions(trial) for trial in trials])
    if answers != requests["ok"]:
        cautions.append(f"the histograms hold {answers:,} answers, the counters say {requests['ok']:,} were ok")
    slips = [trial.record.get("schedule_slip_ms") or {} for trial in trials]
    return {
        "target": target,
        "protocol": protocol,
        "scenario": scenario,
        "offered_rate": offered,
        "batch": trials[0].record.get("batch", 1),
        "achieved_rate": rates["achieved_rate"],
        "goodput": rates["goodput"],
        "images_per_s": rates["achieved_rate"] * trials[0].record.get("batch", 1),
        "latency_ms": latency,
        "ci95": ci95,
        "requests": requests,
        "errors": dict(errors),
        "error_ratio": errors.total() / requests["sent"] if requests["sent"] else 0.0,
        "schedule_slip_ms": {name: _largest(slip.get(name) for slip in slips) for name in ("p99", "max")},
        "valid": not why_not,
        "why_not_valid": why_not,
        "warnings": cautions,
        "few_samples": validity.thin_percentiles(answers),
        "repetitions": len(trials),
        "duration_s": duration_s,
        "in_flight_max": _largest(trial.record.get("in_flight_max") for trial in trials),
        "generator_cpu": _largest(trial.record.get("generator_cpu") for trial in trials),
        "cpu_stolen": _largest(trial.record.get("cpu_stolen") for trial in trials),
        "warm_up_throughput": [trial.warm_up.get("throughput") for trial in trials if trial.warm_up],
        "server": [trial.server for trial in trials if trial.server],
        "trials": [trial.folder.name for trial in trials],
        "spoiled": [attempt["folder"] for trial in trials for attempt in trial.record.get("spoiled") or []],
        **over_time.figures(scenario, trials, measurement, slo),
        **_by_model(trials),
    }


def _by_model(trials: Sequence[SavedTrial]) -> dict[str, Any]:
    """What each of several models did in a measurement, its repetitions merged; nothing where there is one model."""
    found = {}
    for model, first in (trials[0].record.get("by_model") or {}).items():
        records = [trial.record["by_model"][model] for trial in trials]
        measurement = statistics.combine([trial.intervals(model) for trial in trials])
        p50, p99 = statistics.quantiles(measurement.values_ms, measurement.merged, [0.5, 0.99])
        answered = bool(measurement.merged.sum())
        errors: Counter[str] = Counter()
        for record in records:
            errors.update(record["errors"])
        found[model] = {
            "share": first["share"],
            "requests": {name: sum(record["requests"][name] for record in records) for name in first["requests"]},
            "latency_ms": {"p50": float(p50) if answered else None, "p99": float(p99) if answered else None},
            "errors": dict(errors),
        }
    return {"by_model": found} if found else {}


def _total(trials: Sequence[SavedTrial], name: str) -> int:
    return sum(int(trial.record["requests"].get(name) or 0) for trial in trials)


def _largest(values: Any) -> float | None:
    """The largest over repetitions: a bound for percentiles, which cannot be merged without their histograms."""
    return max((value for value in values if value is not None), default=None)


def _engine(run: SavedRun, item: _Sampled) -> tuple[str | None, str | None]:
    record, target = item.trials[0].record, run.target(item.key[0])
    return record.get("engine", target.get("engine")), record.get("engine_version", target.get("engine_version"))


def describe(run: SavedRun, stack: str) -> dict[str, Any]:
    """A target's entry in the summary."""
    saved = run.target(stack)
    record: dict[str, Any] = next((trial.record for trial in run.trials if trial.key[0] == stack), {})
    return {
        "name": stack,
        "engine": saved.get("engine", record.get("engine")),
        "engine_version": saved.get("engine_version", record.get("engine_version")),
        "runtime": saved.get("runtime", run.experiment.get("runtime")),
        "model": saved.get("model", run.experiment.get("model")),
        "version": saved.get("version"),
        **_models(run),
        "cores": saved.get("cores", []),
        "settings": saved.get("settings", {}),
        "notes": saved.get("notes", []),
        "measured": bool(record),
    }


def _models(run: SavedRun) -> dict[str, Any]:
    """The models of each server, where there are several: with their shares of the requests."""
    if not run.mix:
        return {}
    versions = {model: (manifest or {}).get("version") for model, manifest in run.manifests.items()}
    return {"models": [{"name": name, "version": versions[name], "share": share} for name, share in run.mix.items()]}


def _warnings(run: SavedRun, figures: list[dict[str, Any]], parity: dict[str, Any]) -> list[str]:
    found = [str(warning) for warning in run.environment.get("warnings") or []]
    for stack in run.stacks:
        target = describe(run, stack)
        if not target["measured"]:
            found.append(f"{wording.stack(stack)} has no measurement in this run")
        elif wording.is_embedded(target):
            found.append(
                f"{wording.target(target)} is a stand-in inside this project, not TensorFlow Serving: "
                "its speed says little about the production server"
            )
    ladder = run.experiment.get("ladder", {})
    planned = sum(len(rates) for rates in ladder.get("rates", {}).values()) * len(run.experiment.get("targets", []))
    planned *= int(ladder.get("repetitions", 1))
    present = sum(trial.key[2] == "ladder" for trial in run.trials)
    if "ladder" in run.experiment.get("scenarios", ["ladder"]) and present < planned:
        found.append(f"{planned - present} of {planned} planned trials are missing: the run is not complete")
    if figures and all(item["repetitions"] < 2 for item in figures):
        found.append("each rate was measured once: intervals cover time within a trial, not repetition")
    found += [f"model parity is not proven: {why}" for why in parity["why_not_proven"]]
    return found
