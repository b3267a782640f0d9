"""A trial's files, made from its recording after the clock: trial.json, latency.hlog and timeline.csv."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from loadtest.experiment import own_errors, records
from loadtest.experiment.arrival_shape import PLAIN
from loadtest.experiment.phases import ClosedLoopPhase, OpenLoopPhase, TrialPhase
from loadtest.experiment.records import (
    ArrivalsCheck,
    ConnectionsLost,
    Latency,
    MedianAndTail,
    ModelShare,
    Requests,
    ServerDied,
    ServerOutOfFiles,
    Slip,
    SpoiledAttempt,
    TrialNote,
    TrialRecord,
)
from loadtest.generator import arrivals_check
from loadtest.generator.host_watch import Seen
from loadtest.generator.outcomes import Outcomes
from loadtest.generator.recording import DROPPED, FIRST_KIND
from serving.target import Target

LOWEST_US, HIGHEST_US, DIGITS = 1, 60_000_000, 3
NOTHING = Seen()
_COLUMNS = ["second", "scheduled", "sent", "ok", "errors", "p50_ms", "p99_ms", "max_ms", "slip_p99_ms", "in_flight"]
_NO_ANSWER = ("timeout", "connection", "bad_response", *own_errors.KINDS)
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9, "max": 100.0}


class Measured:
    """A trial's measured part with what its files are made of; times in seconds since it began. `planned_s`: how long
    it was to last; `duration_s`: how long it did, which is less where it was given up."""

    def __init__(self, outcomes: Outcomes, planned_s: float) -> None:
        self.outcomes, self.planned_s = outcomes, planned_s
        given_up = outcomes.given_up_s < planned_s
        self.duration_s = math.ceil(outcomes.given_up_s * 1e3) / 1e3 if given_up else planned_s
        self.due, self.sent, self.done, self.status = outcomes.due, outcomes.sent, outcomes.done, outcomes.status
        self.ok, self.went = outcomes.ok, outcomes.went
        self.latency_ms = (self.done - self.due) * 1e3
        self.slip_ms = (self.sent - self.due) * 1e3
        self.second = np.floor(self.due).astype(np.int64)
        counts = Counter(self.status[self.status > DROPPED].tolist())
        self.errors = {outcomes.kinds[code - FIRST_KIND]: count for code, count in sorted(counts.items())}

    @property
    def requests(self) -> Requests:
        """How many were scheduled, sent, completed, ok and dropped."""
        sent = int(self.went.sum())
        return Requests(
            scheduled=len(self.status),
            sent=sent,
            completed=sent - sum(self.errors.get(kind, 0) for kind in _NO_ANSWER),
            ok=int(self.ok.sum()),
            dropped=int((self.status == DROPPED).sum()),
        )

    def of_model(self, place: int) -> Measured:
        """The requests for one of several models, by its place in the mix."""
        return Measured(self.outcomes.of_model(place), self.planned_s)

    def late(self, limit_ms: float) -> int:
        """How many right answers took longer."""
        return int((self.latency_ms[self.ok] > limit_ms).sum())

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


def trial_record(
    phase: TrialPhase,
    target: Target,
    measured: Measured,
    started_at: float,
    *,
    workers: int = 1,
    mix: Mapping[str, float] | None = None,
    spoiled: Sequence[SpoiledAttempt] = (),
    seen: Seen = NOTHING,
) -> TrialRecord:
    """trial.json of a phase whose measured part began at `started_at` (Unix time).

    A closed loop offers no rate: its `offered_rate` is 0, and `concurrency` says how many requests were in flight.
    mix: the shares of several models, by name, in the order of the plan's; spoiled: earlier attempts at it;
    seen: what else happened on the machine.
    """
    opened = phase if isinstance(phase, OpenLoopPhase) else None
    outcomes, requests = measured.outcomes, measured.requests
    return TrialRecord(
        id=phase.id,
        target=target.name,
        engine=target.engine,
        engine_version=target.engine_version,
        protocol=phase.protocol,
        scenario=phase.scenario,
        offered_rate=opened.rate if opened else 0.0,
        arrival=opened.arrival if opened else "closed loop",
        max_in_flight=opened.max_in_flight if opened else None,
        arrivals=opened.arrivals if opened and opened.arrival not in PLAIN else None,
        concurrency=phase.concurrency if isinstance(phase, ClosedLoopPhase) else None,
        repetition=phase.repetition,
        seed=phase.seed,
        batch=phase.batch,
        duration_s=measured.duration_s,
        planned_s=measured.planned_s if measured.duration_s < measured.planned_s else None,
        lead_in_s=phase.lead_in_s,
        requests=requests,
        errors=measured.errors,
        latency_ms=Latency(**percentiles(measured.latency_ms[measured.ok], *_PERCENTILES)),
        slo_p99_ms=opened.limit_ms if opened else None,
        late=measured.late(opened.limit_ms) if opened and opened.limit_ms is not None else None,
        schedule_slip_ms=Slip(**percentiles(measured.slip_ms[measured.went], "p50", "p99", "max")),
        arrivals_check=_arrivals(opened, measured) if opened else None,
        in_flight_max=int(measured.in_flight(np.sort(measured.sent[measured.went])).max()) if requests.sent else 0,
        checked=outcomes.checked,
        wrong=outcomes.wrong,
        generator_cpu=round(outcomes.busy, 3),
        generator_cpus=round(outcomes.cpus, 3),
        cpu_stolen=round(outcomes.stolen, 4),
        others=seen.others,
        throttled=seen.throttled,
        server_throttled=seen.server_throttled,
        first_error=outcomes.first_error,
        warm_up=phase.warm_up,
        started_at=round(started_at, 3),
        ended_at=round(started_at + measured.duration_s, 3),
        workers=workers,
        notes=_notes(measured, seen),
        spoiled=tuple(spoiled),
        by_model=by_model(mix, measured) if mix else None,
    )


def _arrivals(phase: OpenLoopPhase, measured: Measured) -> ArrivalsCheck | None:
    # Where the bound on requests in flight left some out, the rest do not follow the process.
    sent = measured.sent[measured.went]
    return arrivals_check.check(phase.arrival, phase.rate, sent) if len(sent) == len(measured.status) else None


def by_model(mix: Mapping[str, float], measured: Measured) -> dict[str, ModelShare]:
    """What a trial measured of each of several models. `mix`: their shares, by name, in the order of the plan's."""
    found = {}
    for place, (model, share) in enumerate(mix.items()):
        own = measured.of_model(place)
        latency = MedianAndTail(**percentiles(own.latency_ms[own.ok], "p50", "p99"))
        found[model] = ModelShare(share=share, requests=own.requests, errors=own.errors, latency_ms=latency)
    return found


def _notes(measured: Measured, seen: Seen) -> tuple[TrialNote, ...]:
    refused = (ServerOutOfFiles(times=seen.server_no_files),) if seen.server_no_files else ()
    lost = measured.errors.get("connection", 0)
    if not lost:
        return refused
    failed = ~measured.ok & np.isfinite(measured.done)
    first = float(np.min(measured.done[failed]))
    answered_after = bool(np.any(measured.done[measured.ok] > first))
    kind = ConnectionsLost if answered_after else ServerDied
    return (kind(after_s=round(max(first, 0.0), 1), lost=lost), *refused)


def model_log(folder: Path, model: str) -> Path:
    """The interval log of one of several models in a trial's folder."""
    return folder / f"latency-{model}.hlog"


def write_trial(folder: Path, record: TrialRecord, measured: Measured) -> None:
    """Write the three files into an existing folder, and where there are several models, an interval log of each."""
    (folder / "trial.json").write_text(records.encode(record))
    _write_histograms(folder / "latency.hlog", measured, record.started_at)
    _write_timeline(folder / "timeline.csv", measured)
    for place, model in enumerate(record.by_model or ()):
        _write_histograms(model_log(folder, model), measured.of_model(place), record.started_at)


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
