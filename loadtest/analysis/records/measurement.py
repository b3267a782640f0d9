"""What was measured of one load on one target."""

from __future__ import annotations

from loadtest.analysis.records.record import Record
from loadtest.analysis.records.validity import Caution, Fault
from loadtest.experiment.meter_records import DeviceUse, Meter
from loadtest.experiment.records import FirstError, MedianAndTail, Requests, ServerFigures


class Percentiles(Record, frozen=True, kw_only=True):
    """Latencies in milliseconds from the merged histogram; None where nothing was answered. Also by name:
    ``latency_ms["p99"]``."""

    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None

    def __getitem__(self, name: str) -> float | None:
        value: float | None = getattr(self, name)
        return value


class Intervals(Record, frozen=True, kw_only=True):
    """The 95 % intervals of a measurement's figures; None where there is none. Also by name: ``ci95["p99"]``."""

    p50: tuple[float, float] | None = None
    p90: tuple[float, float] | None = None
    p95: tuple[float, float] | None = None
    p99: tuple[float, float] | None = None
    p999: tuple[float, float] | None = None
    max: tuple[float, float] | None = None
    achieved_rate: tuple[float, float] | None = None
    goodput: tuple[float, float] | None = None

    def __getitem__(self, name: str) -> tuple[float, float] | None:
        bounds: tuple[float, float] | None = getattr(self, name)
        return bounds


class Slip(Record, frozen=True, kw_only=True):
    """The generator's schedule slip in milliseconds, the largest over the repetitions."""

    p99: float | None = None
    max: float | None = None


class ModelFigures(Record, frozen=True, kw_only=True):
    """What one of several models did in a measurement: its share of the requests, p50 and p99, and errors by kind."""

    share: float
    requests: Requests
    latency_ms: MedianAndTail
    errors: dict[str, int]


class Energy(Record, frozen=True, kw_only=True):
    """Joules for 1,000 images that were answered rightly, as one meter of the servers' machine says.

    joules       whole; `above_idle`: without what the machine draws when no server runs (`idle_w`, watts), None where
                 that was not measured
    least, most  of the repetitions; above idle, where that is known
    """

    meter: Meter
    joules: float
    above_idle: float | None
    idle_w: float | None
    least: float
    most: float


class Measurement(Record, frozen=True, kw_only=True):
    """All repetitions of one load on one target over one protocol.

    offered_rate   requests/s; 0 for a closed loop
    batch          images in one request
    achieved_rate  ok answers over the measured time and the backlog that grew in it; `images_per_s` likewise
    goodput        ok answers within the SLO's latency
    errors         kind → how many; `error_ratio`: of the requests that were sent; `first_error`: the first answer that
                   was one, of the earliest repetition that has any
    few_samples    percentiles with fewer than ten answers beyond them, which are not compared
    duration_s     measured, over all repetitions
    in_flight_max, generator_cpu, cpu_stolen, others  the largest over the repetitions; the latter three are shares, the
                   last of the cores' time that other programs used
    warm_up_throughput  requests/s of the closed loop before each repetition
    trials, spoiled     folders of the repetitions, and of attempts that the generator spoiled
    recovery_s     spike: for each repetition, seconds from its end until p99 of every later second meets the SLO (0: it
                   was never missed after; None: it never met it again)
    drift_p50, drift_p99  soak: the percentile in the last quarter of the time over that in the first
    devices        what GPU and CPUs did in each repetition of which that is known; `energy`: of each meter
    by_model       empty where there is one model
    """

    target: str
    protocol: str
    scenario: str
    offered_rate: float
    engine: str | None
    engine_version: str | None
    batch: int
    achieved_rate: float
    goodput: float
    images_per_s: float
    latency_ms: Percentiles
    ci95: Intervals
    requests: Requests
    errors: dict[str, int]
    error_ratio: float
    schedule_slip_ms: Slip
    valid: bool
    why_not_valid: tuple[Fault, ...]
    cautions: tuple[Caution, ...]
    few_samples: tuple[str, ...]
    repetitions: int
    duration_s: float
    in_flight_max: int | None
    generator_cpu: float | None
    cpu_stolen: float | None
    warm_up_throughput: tuple[float | None, ...]
    server: tuple[ServerFigures, ...]
    trials: tuple[str, ...]
    spoiled: tuple[str, ...]
    recovery_s: tuple[int | None, ...] | None = None
    drift_p50: float | None = None
    drift_p99: float | None = None
    by_model: dict[str, ModelFigures] = {}
    others: float | None = None
    first_error: FirstError | None = None
    devices: tuple[DeviceUse, ...] = ()
    energy: tuple[Energy, ...] = ()
