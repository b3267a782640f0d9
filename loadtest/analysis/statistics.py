"""Latency histograms by the second, and what can honestly be said from them: quantiles and intervals.

A percentile is only ever read from a merged histogram; percentiles are never averaged. Uncertainty has two parts:

* over time, within a repetition: a moving-block bootstrap over its seconds (Künsch 1989), with blocks that wrap around
  the end so that every second weighs the same (Politis & Romano 1992), in every repetition apart;
* between repetitions: residuals of the repetitions, pooled over all measurements of a run (Davison & Hinkley 1997,
  §3.8). Two repetitions alone say almost nothing of their own spread; the sixteen measurements of a run do. They also
  make up for what blocks of a second or two miss of slower drifts within a trial: a trial is too short for a block
  length that is chosen from its own autocorrelation (Politis & White 2004).

Short trials have few blocks, and the plain bootstrap interval is then too narrow: deviations are widened as Student's
t is against the normal distribution (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", §5).
All arrays are NumPy; all draws are vectorised as ``weights [draws × seconds] @ running counts [seconds × buckets]``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from numpy.typing import NDArray
from scipy.special import stdtrit

from models.problem import Problem

LOWEST_US, HIGHEST_US, DIGITS = 1, 60_000_000, 3
DRAWS = 2000
LEVEL = 0.95

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Intervals:
    """A histogram for each second: ``counts`` [seconds × buckets]; ``buckets``: HdrHistogram indexes, ascending."""

    counts: Counts
    buckets: Counts


@dataclass(frozen=True)
class LatencyCounts:
    """All repetitions of one measurement over common buckets.

    values_ms    [buckets] the highest latency that each bucket stands for, ascending
    repetitions  for each repetition, counts [seconds × buckets] of ok answers by scheduled second
    """

    values_ms: Floats
    repetitions: tuple[Counts, ...]

    @property
    def merged(self) -> Counts:
        """[buckets] the histogram of everything."""
        total: Counts = np.sum([counts.sum(axis=0) for counts in self.repetitions], axis=0, dtype=np.int64)
        return total

    @property
    def mean_ms(self) -> float | None:
        """The mean latency of everything, to the histogram's precision; None where nothing was answered."""
        counts = self.merged
        return float(counts @ self.values_ms / counts.sum()) if counts.sum() else None

    @property
    def seconds(self) -> int:
        """Seconds measured, over all repetitions."""
        return sum(len(counts) for counts in self.repetitions)

    def backlog_s(self, counts: Counts) -> float:
        """Seconds of work that piled up in one repetition: how far its median latency grew from the middle of its first
        second to the middle of its last, drawn out to its whole length. A server that keeps up has none."""
        answered = np.flatnonzero(counts.any(axis=1))
        if len(answered) < 2:
            return 0.0
        first, last = quantiles(self.values_ms, counts[answered[[0, -1]]], [0.5])[:, 0]
        return max(0.0, float(last - first) / 1000 * len(counts) / float(answered[-1] - answered[0]))

    def within(self, limit_ms: float) -> tuple[Floats, ...]:
        """For each repetition, [seconds] answers at or under a latency."""
        fast = self.values_ms <= limit_ms
        return tuple(counts[:, fast].sum(axis=1).astype(float) for counts in self.repetitions)


def read_intervals(path: Path, seconds: int) -> Intervals:
    """Read an HdrHistogram interval log of one-second intervals in microseconds.

    ``seconds`` is how many the trial lasted: seconds that the log leaves out had no answer and become zero rows.
    Raises `Problem` for a file that is missing, or is no interval log.
    """
    rows: list[Counts] = []
    starts: list[float] = []
    try:
        reader = HistogramLogReader(str(path), HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS))
        try:
            while (interval := reader.get_next_interval_histogram()) is not None:
                starts.append(interval.get_start_time_stamp() / 1000)
                rows.append(_dense(interval))
        finally:
            reader.input_file.close()
        first = reader.base_time_sec or reader.start_time_sec
    except FileNotFoundError as error:
        raise Problem(f"{path}: missing; the trial was not saved whole, run it again") from error
    except Exception as error:  # hdrh raises a dozen kinds, from zlib.error to TypeError
        raise Problem(f"{path}: not an HdrHistogram interval log ({error}); run the trial again") from error
    if not rows:
        return Intervals(np.zeros((seconds, 0), dtype=np.int64), np.zeros(0, dtype=np.int64))
    at = [max(0, round(start - min(first, starts[0]))) for start in starts]
    dense = np.zeros((max(seconds, at[-1] + 1), len(rows[0])), dtype=np.int64)
    np.add.at(dense, at, np.stack(rows))
    buckets = np.flatnonzero(dense.any(axis=0))
    return Intervals(dense[:, buckets], buckets)


def _dense(interval: Any) -> Counts:
    canonical = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
    canonical.add(interval)  # also converts a log that was written with another range or precision
    return np.ctypeslib.as_array(canonical.counts).astype(np.int64)


def bucket_ms(buckets: Counts) -> Floats:
    """The highest latency, in milliseconds, that buckets stand for: HdrHistogram's "highest equivalent value"."""
    half = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS).sub_bucket_half_count
    exponent = np.maximum(buckets // half - 1, 0)
    sub_bucket = np.where(buckets < half, buckets, buckets % half + half)
    highest: Floats = (((sub_bucket + 1) << exponent) - 1) / 1000.0
    return highest


def combine(repetitions: Sequence[Intervals]) -> LatencyCounts:
    """Put the repetitions of one measurement on common buckets."""
    buckets = np.unique(np.concatenate([item.buckets for item in repetitions]))
    aligned = []
    for item in repetitions:
        counts = np.zeros((len(item.counts), len(buckets)), dtype=np.int64)
        counts[:, np.searchsorted(buckets, item.buckets)] = item.counts
        aligned.append(counts)
    return LatencyCounts(bucket_ms(buckets), tuple(aligned))


def quantiles(values: Floats, counts: NDArray[Any], shares: Sequence[float]) -> Floats:
    """Quantiles of histograms: ``values`` [buckets], ``counts`` [..., buckets] → [..., shares].

    The value of the first bucket at which the running count reaches ``round(share × total)``, and at least 1: what
    HdrHistogram's ``get_value_at_percentile`` returns. NaN for an empty histogram.
    """
    return _cut(values, np.cumsum(counts, axis=-1), shares)


def _cut(values: Floats, running: NDArray[Any], shares: Sequence[float]) -> Floats:
    """Quantiles from running counts [..., buckets], by bisection in all histograms at once."""
    found = np.full((*running.shape[:-1], len(shares)), np.nan)
    if not len(values):
        return found
    total = running[..., -1]
    for index, share in enumerate(shares):
        target = np.maximum(np.floor(share * total + 0.5), 1)
        low, high = np.zeros(total.shape, dtype=np.intp), np.full(total.shape, len(values) - 1, dtype=np.intp)
        for _ in range(len(values).bit_length()):
            middle = (low + high) // 2
            short = np.take_along_axis(running, middle[..., None], axis=-1)[..., 0] < target
            low, high = np.where(short & (low < high), middle + 1, low), np.where(short, high, middle)
        found[..., index] = np.where(total > 0, values[low], np.nan)
    return found


def block_length(seconds: int) -> int:
    """Seconds in a bootstrap block: the cube root of the series' length (Hall, Horowitz & Jing 1995)."""
    return max(1, round(float(seconds ** (1 / 3))))


def block_weights(seconds: int, draws: int, rng: np.random.Generator) -> Floats:
    """[draws × seconds] how often each second appears in each moving-block resample; every row sums to ``seconds``."""
    length = block_length(seconds)
    blocks = -(-seconds // length)
    starts = rng.integers(0, seconds, size=(draws, blocks))
    chosen = (starts[:, :, None] + np.arange(length)) % seconds
    chosen = chosen.reshape(draws, -1)[:, :seconds]
    flat = chosen + np.arange(draws)[:, None] * seconds
    return np.bincount(flat.ravel(), minlength=draws * seconds).reshape(draws, seconds).astype(float)


@dataclass(frozen=True)
class Resampled:
    """A measurement's statistics and their bootstrap distribution over time.

    names      the statistics: latency quantiles on a log scale, rates as a share of the offered rate
    estimate   [names]
    draws      [draws × names], of all repetitions together, each resampled in itself
    each       [repetitions × names]
    each_variance  [repetitions × names] variance over time of one repetition's statistic
    widening   factor on deviations that makes up for few blocks
    """

    names: tuple[str, ...]
    estimate: Floats
    draws: Floats
    each: Floats
    each_variance: Floats
    widening: float


def resample(
    measurement: LatencyCounts,
    shares: Mapping[str, float],
    rates: Mapping[str, Sequence[Floats]] | None = None,
    *,
    offered_rate: float = 1.0,
    durations_s: Sequence[float] | None = None,
    seed: Sequence[int] = (0,),
    draws: int = DRAWS,
) -> Resampled:
    """Bootstrap a measurement over time. The same arguments give the same draws.

    shares  name → quantile, such as {"p99": 0.99}
    rates   name → for each repetition, [seconds] counted events; their rate is divided by ``offered_rate`` (1/s)
    durations_s  how long each repetition was, where not whole seconds: its last second is then a part of one
    """
    rng = np.random.default_rng(list(seed))
    rates = rates or {}
    durations_s = durations_s or [len(counts) for counts in measurement.repetitions]
    levels = list(shares.values())
    pooled = np.zeros((draws, len(measurement.values_ms)))
    pooled_rates = np.zeros((draws, len(rates)))
    pooled_s = np.zeros((draws, 1))
    each, variance = [], []
    for index, counts in enumerate(measurement.repetitions):
        weights = block_weights(len(counts), draws, rng)
        resampled = weights @ np.cumsum(counts, axis=1)  # the running counts of each draw
        events = (
            np.array([series[index] for series in rates.values()]).reshape(len(rates), len(counts)).T / offered_rate
        )
        lasted = np.clip(durations_s[index] - np.arange(len(counts)), 1e-3, 1)
        shares_of_offered, lasting = weights @ events, (weights @ lasted)[:, None]
        pooled += resampled
        pooled_rates += shares_of_offered
        pooled_s += lasting
        mean = events.sum(axis=0) / lasted.sum()
        each.append(_statistics(measurement.values_ms, counts.sum(axis=0).cumsum(), levels, mean))
        own = _statistics(measurement.values_ms, resampled, levels, shares_of_offered / lasting)
        kept = _kept(len(counts))
        variance.append(own.var(axis=0) / kept if kept > 0 else np.full(own.shape[1], np.nan))
    lengths = [len(counts) for counts in measurement.repetitions]
    totals = [sum(series[index].sum() for index in range(len(lengths))) for series in rates.values()]
    overall = np.array(totals) / (offered_rate * sum(durations_s))
    return Resampled(
        names=(*shares, *rates),
        estimate=_statistics(measurement.values_ms, measurement.merged.cumsum(), levels, overall),
        draws=_statistics(measurement.values_ms, pooled, levels, pooled_rates / pooled_s),
        each=np.array(each),
        each_variance=np.array(variance),
        widening=_widening(lengths),
    )


def _statistics(values: Floats, running: NDArray[Any], levels: Sequence[float], rates: Floats) -> Floats:
    logarithms = np.log(np.maximum(_cut(values, running, levels), 1e-6))
    return np.concatenate([logarithms, rates], axis=-1)


def _widening(lengths: Sequence[int]) -> float:
    """How much wider deviations must be than the bootstrap's: its variance is too small, and known to few degrees of
    freedom."""
    degrees = sum(map(_degrees, lengths))
    if degrees < 1:
        return math.nan
    kept = sum(length * _kept(length) for length in lengths) / sum(lengths)
    return student_t(degrees) / NormalDist().inv_cdf((1 + LEVEL) / 2) / math.sqrt(kept)


def _kept(seconds: int) -> float:
    """The share of the variance of independent seconds that resampling them in blocks keeps: a block of `length` lacks
    length / seconds of it, because it is measured from the mean; the last block is cut off (see `block_weights`)."""
    length = block_length(seconds)
    rest = seconds % length
    return ((seconds - rest) * (1 - length / seconds) + rest * (1 - rest / seconds)) / seconds


def _degrees(seconds: int) -> float:
    """Degrees of freedom of the block bootstrap's variance: a quadratic form's, by its eigenvalues (Satterthwaite
    1946). For blocks that wrap around those are Fejér's kernel at the frequencies of the series, less its mean."""
    angles = math.tau / seconds * np.outer(np.arange(1, seconds), np.arange(block_length(seconds)))
    eigenvalues = np.abs(np.exp(1j * angles).sum(axis=1)) ** 2
    return float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum()) if seconds > 1 else 0.0


def student_t(degrees: float, level: float = LEVEL) -> float:
    """The two-sided quantile of Student's t."""
    return float(stdtrit(degrees, (1 + level) / 2))


@dataclass(frozen=True)
class Spread:
    """How far repetitions lie apart beyond what chance within them explains: residuals [n × names] and degrees of
    freedom, both pooled over a run's measurements."""

    residuals: Floats
    degrees: int


def spread(measurements: Iterable[Resampled]) -> Spread:
    """Pool the repetitions' residuals over the measurements of a run.

    Residuals are scaled to the variance that is left after taking the variance within repetitions away (the method of
    moments of a one-way random-effects model); where none is left, they are zero. From what is left a chance of few
    degrees of freedom may be missing, which makes intervals too narrow more often than a chance surplus makes them too
    wide, so the pooled variance counts with a quarter of a standard error more (that of a χ², √(2 / degrees)).
    """
    residuals, within, degrees = [], [], 0
    for item in measurements:
        repetitions = len(item.each)
        if repetitions < 2:
            continue
        residuals.append((item.each - item.each.mean(axis=0)) * math.sqrt(repetitions / (repetitions - 1)))
        within.append(item.each_variance)
        degrees += repetitions - 1
    if not residuals:
        return Spread(np.zeros((1, 0)), 0)
    pooled, chance = np.concatenate(residuals), np.concatenate(within)
    known = np.isfinite(pooled).all(axis=1) & np.isfinite(chance).all(axis=1)
    pooled, chance = pooled[known], chance[known]
    if not len(pooled):
        return Spread(np.zeros((1, 0)), 0)
    total = (pooled**2).mean(axis=0)
    cautious = 1 + 0.25 * math.sqrt(2 / degrees)
    left = np.sqrt(np.clip(cautious - chance.mean(axis=0) / np.where(total > 0, total, 1), 0, None))
    return Spread(np.where(total > 0, pooled * left, 0.0), degrees)


def deviations(item: Resampled, between: Spread, seed: Sequence[int] = (0,)) -> Floats:
    """[draws × names] deviations from the estimate, of both sources of uncertainty together."""
    within = (item.draws - item.estimate) * item.widening
    if not between.degrees:
        return within
    rng = np.random.default_rng([*seed, 1])
    draws, repetitions = len(item.draws), len(item.each)
    chosen = rng.integers(0, len(between.residuals), size=(draws, repetitions))
    signs = rng.choice([-1.0, 1.0], size=(draws, repetitions, 1))
    widening = student_t(between.degrees) / NormalDist().inv_cdf((1 + LEVEL) / 2)
    mean: Floats = (between.residuals[chosen] * signs).mean(axis=1) * widening
    return within + mean


def interval(estimate: float, deviation: Floats) -> tuple[float, float] | None:
    """The 95 % interval (low, high) around an estimate; None where there is nothing to base it on.

    Symmetric on the scale of the deviations: with few blocks it covers closer to 95 % of the time than an equal-tailed
    interval (Hall 1988, "On Symmetric Bootstrap Confidence Intervals").
    """
    known = deviation[np.isfinite(deviation)]
    if not math.isfinite(estimate) or len(known) < len(deviation) * 0.99:
        return None
    reach = float(np.quantile(np.abs(known), LEVEL))
    return estimate - reach, estimate + reach
