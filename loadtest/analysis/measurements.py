"""The measurements of a run: repetitions merged, every figure with its interval, and whether it may be used."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from loadtest.analysis import energy, over_time, statistics, validity
from loadtest.analysis.records import (
    Caution,
    Fault,
    Intervals,
    Measurement,
    ModelFigures,
    Percentiles,
    Slip,
)
from loadtest.analysis.saved_run import Key, SavedRun, SavedTrial
from loadtest.analysis.statistics import LatencyCounts, Resampled
from loadtest.experiment.records import MedianAndTail, Requests
from loadtest.experiment.settings import Slo

_Number = TypeVar("_Number", int, float)

FEWEST_DEGREES = 3  # of freedom; with fewer, Student's t makes every interval useless
KEEPS_UP = 0.98  # the share of the arrivals that a target answers in time where no backlog grows


@dataclass(frozen=True)
class Measured:
    """A measurement's entry in the summary, and its mean latency; None where nothing was answered."""

    figures: Measurement
    mean_ms: float | None

    @property
    def key(self) -> Key:
        """(target, protocol, scenario, offered rate)."""
        return self.figures.target, self.figures.protocol, self.figures.scenario, self.figures.offered_rate


def repetitions(run: SavedRun) -> dict[Key, list[SavedTrial]]:
    """The trials of each measurement, in a stable order: protocol, target, scenario, rate; then repetition."""
    grouped: dict[Key, list[SavedTrial]] = {}
    protocols, targets = run.protocols, run.target_names
    for trial in sorted(
        run.trials,
        key=lambda trial: (
            protocols.index(trial.key[1]),
            targets.index(trial.key[0]),
            trial.key[2:],
            trial.record.repetition,
        ),
    ):
        grouped.setdefault(trial.key, []).append(trial)
    return grouped


def in_order(run: SavedRun) -> list[SavedTrial]:
    """A run's trials in the order of `repetitions`."""
    return [trial for trials in repetitions(run).values() for trial in trials]


@dataclass(frozen=True)
class _Sampled:
    key: Key
    trials: list[SavedTrial]
    latencies: LatencyCounts
    resampled: Resampled
    seed: tuple[int, ...]

    @property
    def backlog_s(self) -> float:
        """Seconds of work that piled up, over all repetitions; a closed loop has none."""
        return sum(map(self.latencies.backlog_s, self.latencies.repetitions)) if self.key[3] else 0.0

    @property
    def requests(self) -> Requests:
        """Of all repetitions together."""
        return _total(trial.record.requests for trial in self.trials)

    @property
    def at_limit(self) -> bool:
        """Whether the target fell behind the arrivals (see `KEEPS_UP`)."""
        requests, seconds = self.requests, self.latencies.seconds
        return requests.ok * seconds / (seconds + self.backlog_s) < KEEPS_UP * requests.scheduled


def of(run: SavedRun, slo: Slo) -> list[Measured]:
    """Every measurement of a run, in the order of `repetitions`.

    The trials of a capacity search have no intervals: it goes where latencies explode, and what it says, with an
    interval, is the capacity.
    """
    sampled = []
    for key, trials in repetitions(run).items():
        latencies = statistics.combine([trial.intervals() for trial in trials])
        rates = {
            "achieved_rate": tuple(counts.sum(axis=1).astype(float) for counts in latencies.repetitions),
            "goodput": latencies.within(slo.p99_ms),
        }
        seed = (run.experiment.seed, zlib.crc32(repr(key).encode()))
        resampled = statistics.resample(
            latencies,
            validity.SHARES,
            rates,
            offered_rate=key[3] or 1.0,
            durations_s=[trial.record.duration_s for trial in trials],
            seed=seed,
            draws=statistics.DRAWS if key[2] != "capacity" else 1,
        )
        sampled.append(_Sampled(key, trials, latencies, resampled, seed))
    between = _spreads([item for item in sampled if item.key[2] != "capacity"])
    return [Measured(_figures(run, item, between.get(item.key), slo), item.latencies.mean_ms) for item in sampled]


def _spreads(sampled: Sequence[_Sampled]) -> dict[Key, statistics.Spread]:
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


def _figures(run: SavedRun, item: _Sampled, between: statistics.Spread | None, slo: Slo) -> Measurement:
    target, protocol, scenario, offered = item.key
    records, latencies = [trial.record for trial in item.trials], item.latencies
    answers = int(latencies.merged.sum())
    duration_s = sum(record.duration_s for record in records)
    per_second = offered or 1.0
    on_time = latencies.seconds / (latencies.seconds + item.backlog_s)
    scales = {"achieved_rate": per_second * on_time, "goodput": per_second}
    requests, batch = item.requests, records[0].batch
    estimate = dict(zip(item.resampled.names, map(float, item.resampled.estimate), strict=True))
    latency = {name: float(np.exp(estimate[name])) for name in validity.SHARES} if answers else {}
    rates = {name: estimate[name] * scale for name, scale in scales.items()}
    errors = _errors(record.errors for record in records)
    failed = sum(errors.values())
    slips = [record.schedule_slip_ms for record in records if record.schedule_slip_ms]
    saved = run.target(target)
    used = [(trial.use, trial.record.requests.ok * batch) for trial in item.trials if trial.use]
    faults = validity.by_repetition(item.trials, map(validity.faults, item.trials))
    cautions = validity.by_repetition(item.trials, map(validity.cautions, item.trials))
    return Measurement(
        target=target,
        protocol=protocol,
        scenario=scenario,
        offered_rate=offered,
        engine=records[0].engine or saved.engine,
        engine_version=records[0].engine_version or saved.engine_version,
        batch=batch,
        achieved_rate=rates["achieved_rate"],
        goodput=rates["goodput"],
        images_per_s=rates["achieved_rate"] * batch,
        latency_ms=Percentiles(**latency, max=float(latencies.values_ms[-1]) if answers else None),
        ci95=Intervals() if between is None else _intervals(item, between, scales, answers),
        requests=requests,
        errors=errors,
        error_ratio=failed / requests.sent if requests.sent else 0.0,
        schedule_slip_ms=Slip(
            p99=_largest(slip.p99 for slip in slips),
            max=_largest(slip.max for slip in slips),
        ),
        valid=not faults,
        why_not_valid=tuple(Fault(*one) for one in faults),
        cautions=tuple(Caution(*one) for one in cautions),
        few_samples=validity.thin_percentiles(answers),
        repetitions=len(records),
        duration_s=duration_s,
        in_flight_max=max(
            (record.in_flight_max for record in records if record.in_flight_max is not None), default=None
        ),
        generator_cpu=_largest(record.generator_cpu for record in records),
        cpu_stolen=_largest(record.cpu_stolen for record in records),
        others=_largest(record.others.share for record in records if record.others),
        first_error=next((record.first_error for record in records if record.first_error), None),
        warm_up_throughput=tuple(trial.warm_up.throughput for trial in item.trials if trial.warm_up),
        server=tuple(trial.server for trial in item.trials if trial.server),
        trials=tuple(trial.folder.name for trial in item.trials),
        spoiled=tuple(attempt.folder for record in records for attempt in record.spoiled),
        recovery_s=over_time.recoveries_s(item.trials, latencies, slo.p99_ms) if scenario == "spike" else None,
        drift_p50=over_time.drift(latencies, 0.5) if scenario == "soak" else None,
        drift_p99=over_time.drift(latencies, 0.99) if scenario == "soak" else None,
        by_model=_by_model(item.trials),
        devices=tuple(use for use, _ in used),
        energy=energy.of(used, run.environment.idle),
    )


def _intervals(item: _Sampled, between: statistics.Spread, scales: dict[str, float], answers: int) -> Intervals:
    """Of each statistic; none of the maximum, of which the bootstrap says nothing (Bickel & Freedman 1981)."""
    deviations = statistics.deviations(item.resampled, between, item.seed)
    found: dict[str, tuple[float, float]] = {}
    for index, name in enumerate(item.resampled.names):
        bounds = statistics.interval(float(item.resampled.estimate[index]), deviations[:, index])
        if bounds and name in scales:
            low, high = (max(0.0, end * scales[name]) for end in bounds)
            found[name] = low, high
        elif bounds and answers:
            found[name] = float(np.exp(bounds[0])), float(np.exp(bounds[1]))
    return Intervals(**found)


def _by_model(trials: Sequence[SavedTrial]) -> dict[str, ModelFigures]:
    """What each of several models did in a measurement, its repetitions merged; nothing where there is one model."""
    found = {}
    for model, first in (trials[0].record.by_model or {}).items():
        shares = [(trial.record.by_model or {})[model] for trial in trials]
        latencies = statistics.combine([trial.intervals(model) for trial in trials])
        p50, p99 = statistics.quantiles(latencies.values_ms, latencies.merged, [0.5, 0.99])
        answered = bool(latencies.merged.sum())
        found[model] = ModelFigures(
            share=first.share,
            requests=_total(one.requests for one in shares),
            latency_ms=MedianAndTail(p50=float(p50), p99=float(p99)) if answered else MedianAndTail(),
            errors=_errors(one.errors for one in shares),
        )
    return found


def _total(requests: Iterable[Requests]) -> Requests:
    counted = list(requests)
    return Requests(**{name: sum(getattr(one, name) for one in counted) for name in Requests.__struct_fields__})


def _errors(errors: Iterable[dict[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in errors:
        found.update(one)
    return dict(found)


def _largest(values: Iterable[_Number | None]) -> _Number | None:
    """The largest over repetitions: a bound for percentiles, which cannot be merged without their histograms."""
    return max((value for value in values if value is not None), default=None)
