"""A trial's files, made from its recording after the clock: trial.json, latency.hlog and timeline.csv."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from loadtest.experiment.phases import ClosedLoopPhase, OpenLoopPhase
from loadtest.generator.part import Part
from loadtest.generator.recording import DROPPED
from serving.target import Target

LOWEST_US, HIGHEST_US, DIGITS = 1, 60_000_000, 3
_COLUMNS = ["second", "scheduled", "sent", "ok", "errors", "p50_ms", "p99_ms", "max_ms", "slip_p99_ms", "in_flight"]
# Processes that a rate says all about.
PLAIN = ("poisson", "constant")
_NO_ANSWER = ("timeout", "connection", "bad_response")
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9, "max": 100.0}


class Measured:
    """A trial's measured part with what its files are made of; times in seconds since it began."""

    def __init__(self, part: Part, duration_s: float) -> None:
        self.part, self.duration_s = part, duration_s
        self.due, self.sent, self.done, self.status = part.due, part.sent, part.done, part.status
        self.ok, self.went = part.ok, part.went
        self.latency_ms = (self.done - self.due) * 1e3
        self.slip_ms = (self.sent - self.due) * 1e3
        self.second = np.floor(self.due).astype(np.int64)
        counts = Counter(self.status[self.status > DROPPED].tolist())
        self.errors = {part.kinds[code - DROPPED - 1]: count for code, count in sorted(counts.items())}

    @property
    def requests(self) -> dict[str, int]:
        """How many were scheduled, sent, completed, ok and dropped."""
        sent = int(self.went.sum())
        return {
            "scheduled": len(self.status),
            "sent": sent,
            "completed": sent - sum(self.errors.get(kind, 0) for kind in _NO_ANSWER),
            "ok": int(self.ok.sum()),
            "dropped": int((self.status == DROPPED).sum()),
        }

    def of_model(self, place: int) -> Measured:
        """The requests for one of several models, by its place in the mix."""
        return Measured(self.part.of_model(place), self.duration_s)

    def in_flight(self, at: NDArray[np.float64]) -> NDArray[np.int64]:
        """Requests of the measured part in flight at each of these times."""
        sent = np.sort(self.sent[self.went])
        done = np.sort(self.done[self.went])
        return np.searchsorted(sent, at, side="right") - np.searchsorted(done, at, side="right")


def percentiles(values: NDArray[np.float64], *names: str) -> dict[str, float | None]:
    """The named percentiles, nearest rank as in HdrHistogram, rounded to microseconds; None where there is no value."""
    if not values.size:
        return dict.fromkeys(names)
    found = np.percentile(values, [_PERCENTILES[name] for name in names], method="inverted_cdf")
    return dict(zip(names, found.round(3).tolist(), strict=True))


def trial_values(
    phase: OpenLoopPhase | ClosedLoopPhase, target: Target, measured: Measured, extra: dict[str, Any]
) -> dict[str, Any]:
    """trial.json's values; `extra`: what the recording does not know (times, workers, notes).

    A closed loop offers no rate: its `offered_rate` is 0, and `concurrency` says how many requests were in flight.
    """
    if isinstance(phase, OpenLoopPhase):
        load = {"offered_rate": phase.rate, "arrival": phase.arrival, "max_in_flight": phase.max_in_flight}
        if phase.arrival not in PLAIN:
            load["arrivals"] = asdict(phase.arrivals)
    else:
        load = {"offered_rate": 0.0, "arrival": "closed loop", "concurrency": phase.concurrency}
    requests = measured.requests
    return {
        "id": phase.id,
        "target": target.name,
        "engine": target.engine,
        "engine_version": target.engine_version,
        "protocol": phase.protocol,
        "scenario": phase.scenario,
        **load,
        "repetition": phase.repetition,
        "seed": phase.seed,
        "batch": phase.batch,
        "duration_s": phase.duration_s,
        "lead_in_s": phase.lead_in_s,
        "requests": requests,
        "errors": measured.errors,
        "latency_ms": percentiles(measured.latency_ms[measured.ok], *_PERCENTILES),
        "schedule_slip_ms": percentiles(measured.slip_ms[measured.went], "p50", "p99", "max"),
        "in_flight_max": int(measured.in_flight(np.sort(measured.sent[measured.went])).max())
        if requests["sent"]
        else 0,
        "checked": measured.part.checked,
        "wrong": measured.part.wrong,
        "generator_cpu": round(measured.part.busy, 3),
        "generator_cpus": round(measured.part.cpus, 3),
        "cpu_stolen": round(measured.part.stolen, 4),
        "warm_up": phase.warm_up,
        **extra,
    }


def by_model(mix: Mapping[str, float], measured: Measured) -> dict[str, Any]:
    """trial.json's entry for each of several models. `mix`: their shares, by name, in the order of the plan's."""
    found = {}
    for place, (model, share) in enumerate(mix.items()):
        own = measured.of_model(place)
        latency = percentiles(own.latency_ms[own.ok], "p50", "p99")
        found[model] = {"share": share, "requests": own.requests, "errors": own.errors, "latency_ms": latency}
    return found


def model_log(folder: Path, model: str) -> Path:
    """The interval log of one of several models in a trial's folder."""
    return folder / f"latency-{model}.hlog"


def write_trial(folder: Path, values: dict[str, Any], measured: Measured) -> None:
    """Write the three files into an existing folder, and where there are several models, an interval log of each."""
    (folder / "trial.json").write_text(json.dumps(values, indent=2) + "\n")
    _write_histograms(folder / "latency.hlog", measured, values["started_at"])
    _write_timeline(folder / "timeline.csv", measured)
    for place, model in enumerate(values.get("by_model", ())):
        _write_histograms(model_log(folder, model), measured.of_model(place), values["started_at"])


def _write_histograms(path: Path, measured: Measured, started_at: float) -> None:
    """An HdrHistogram interval log, format 1.2: microseconds, one interval a second of due time, right answers only.

    The Interval_Max column is in milliseconds (max value unit ratio 1000), as in the Java tools' default logs of
    nanoseconds divided by 1e6. hdrh's own log writer rounds that column down to whole units, so lines are written here.
    """
    with path.open("w", encoding="utf-8") as out:
        out.write("#[Tandem: latency from due time in microseconds, Interval_Max in milliseconds]\n")
        out.write("#[Histogram log format version 1.2]\n")
        out.write(f"#[StartTime: {started_at:.3f} (seconds since epoch)]\n")
        out.write(f"#[BaseTime: {started_at:.3f} (seconds since epoch)]\n")
        out.write('"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n')
        for second in range(math.ceil(measured.duration_s)):
            chosen = measured.ok & (measured.second == second)
            micros = np.clip(np.rint(measured.latency_ms[chosen] * 1e3), LOWEST_US, HIGHEST_US).astype(np.int64)
            histogram = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
            for value, count in zip(*(part.tolist() for part in np.unique(micros, return_counts=True)), strict=True):
                histogram.record_value(value, count)
            length = min(1.0, measured.duration_s - second)
            largest = micros.max() / 1e3 if micros.size else 0.0
            out.write(f"{second:.3f},{length:.3f},{largest:.3f},{histogram.encode().decode('ascii')}\n")


def _write_timeline(path: Path, measured: Measured) -> None:
    seconds = math.ceil(measured.duration_s)
    ends = np.minimum(np.arange(seconds) + 1.0, measured.duration_s)
    in_flight = measured.in_flight(ends).tolist()
    with path.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for second in range(seconds):
            here = measured.second == second
            ok = here & measured.ok
            sent = here & measured.went
            latency = percentiles(measured.latency_ms[ok], "p50", "p99", "max")
            slip = percentiles(measured.slip_ms[sent], "p99")["p99"]
            failed = int((here & (measured.status > DROPPED)).sum())
            counts = (int(here.sum()), int(sent.sum()), int(ok.sum()), failed)
            rows.writerow([second, *counts, *latency.values(), slip, in_flight[second]])
