"""Histograms, quantiles and intervals against known answers, HdrHistogram's own and simulated ones."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.analysis import statistics
from models.problem import Problem
from tests.loadtest.runs.build import write_trial

LEVELS = {"p50": 0.5, "p99": 0.99}
ALL_BUCKETS = np.arange(HdrHistogram(1, 60_000_000, 3).counts_len)
EDGES = statistics.bucket_ms(ALL_BUCKETS)
SECONDS_OF_LATENCIES = st.lists(st.lists(st.floats(0.001, 59_000), max_size=40).map(np.array), min_size=1, max_size=6)


def saved(folder: Path, seconds: list[np.ndarray]) -> Path:
    record = {"target": "pytorch", "protocol": "grpc", "offered_rate": 1.0}
    write_trial(folder, record, seconds)
    return folder / "latency.hlog"


def intervals(latencies_ms: np.ndarray, second: np.ndarray, seconds: int) -> statistics.Intervals:
    """Latencies as histograms by the second, without the detour over a file."""
    index = np.searchsorted(EDGES, latencies_ms)
    buckets, position = np.unique(index, return_inverse=True)
    counts = np.zeros((seconds, len(buckets)), dtype=np.int64)
    np.add.at(counts, (second, position), 1)
    return statistics.Intervals(counts, buckets)


def test_every_bucket_stands_for_the_value_that_hdrhistogram_says():
    histogram = HdrHistogram(1, 60_000_000, 3)
    expected = [histogram.get_highest_equivalent_value(histogram.get_value_from_index(int(i))) for i in ALL_BUCKETS]
    assert np.abs(EDGES * 1000 - expected).max() < 1e-6


@settings(max_examples=20, deadline=None)
@given(seconds=SECONDS_OF_LATENCIES, level=st.floats(0.001, 1))
def test_a_saved_log_gives_the_percentiles_of_hdrhistogram(tmp_path_factory, seconds, level):
    log = saved(tmp_path_factory.mktemp("run") / "trial", seconds)
    whole = HdrHistogram(1, 60_000_000, 3)
    for value in np.concatenate(seconds):
        whole.record_value(max(1, round(value * 1000)))
    measured = statistics.combine([statistics.read_intervals(log, len(seconds))])
    assert measured.merged.sum() == whole.get_total_count()
    assert [counts.sum() for counts in measured.repetitions[0]] == [len(values) for values in seconds]
    got = statistics.quantiles(measured.values_ms, measured.merged, [level])[0]
    if whole.get_total_count():
        assert got * 1000 == pytest.approx(whole.get_value_at_percentile(level * 100), abs=1e-6)
    else:
        assert math.isnan(got)


def test_seconds_that_the_log_leaves_out_are_rows_without_answers(tmp_path):
    log = saved(tmp_path / "trial", [np.array([1.0]), np.array([]), np.array([2.0, 3.0])])
    lines = [line for line in log.read_text().splitlines() if ",1.000000," not in line or "HIST" in line]
    kept = [line for number, line in enumerate(lines) if number != len(lines) - 2]
    log.write_text("\n".join(kept) + "\n")
    read = statistics.read_intervals(log, 5)
    assert read.counts.sum(axis=1).tolist() == [1, 0, 2, 0, 0]


@pytest.mark.parametrize("text", [None, "0.0,1.0,1.0,HISTFAAAAnonsense\n", "0.0,1.0,1.0,%%%\n"])
def test_a_missing_or_damaged_log_is_named(tmp_path, text):
    log = tmp_path / "latency.hlog"
    if text:
        log.write_text(text)
    with pytest.raises(Problem, match=r"latency\.hlog.*run"):
        statistics.read_intervals(log, 3)


def test_percentiles_are_merged_and_not_averaged():
    # 900 answers of 1 ms in one repetition, 100 of 100 ms in the other: p95 of everything is 100 ms, not their mean.
    quick = intervals(np.full(900, 1.0), np.zeros(900, dtype=int), 1)
    slow = intervals(np.full(100, 100.0), np.zeros(100, dtype=int), 1)
    measured = statistics.combine([quick, slow])
    p50, p95 = statistics.quantiles(measured.values_ms, measured.merged, [0.5, 0.95])
    assert p50 == pytest.approx(1.0, rel=1e-3)
    assert p95 == pytest.approx(100.0, rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(seconds=st.integers(1, 60), seed=st.integers(0, 2**32))
def test_block_resamples_keep_the_length_and_favour_no_second(seconds, seed):
    weights = statistics.block_weights(seconds, 4000, np.random.default_rng(seed))
    assert (weights.sum(axis=1) == seconds).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(seconds), abs=0.2)


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.706), (2, 4.303), (4, 2.776), (6, 2.447), (10, 2.228), (30, 2.042), (1e6, 1.960)]
)
def test_students_t_is_that_of_the_tables(degrees, expected):
    assert statistics.student_t(degrees) == pytest.approx(expected, rel=2e-4)


def test_the_same_seed_gives_the_same_interval_and_another_seed_nearly_the_same():
    rng = np.random.default_rng(5)
    measured = statistics.combine([intervals(rng.lognormal(1, 0.4, 3000), rng.integers(0, 10, 3000), 10)])

    def bounds(seed: int) -> tuple[float, float] | None:
        resampled = statistics.resample(measured, LEVELS, seed=[seed])
        deviations = statistics.deviations(resampled, statistics.spread([resampled]), [seed])
        return statistics.interval(float(resampled.estimate[1]), deviations[:, 1])

    assert bounds(1) == bounds(1)
    assert bounds(1) == pytest.approx(bounds(2), abs=0.02)


def test_one_second_alone_gives_no_interval():
    measured = statistics.combine([intervals(np.full(10, 2.0), np.zeros(10, dtype=int), 1)])
    resampled = statistics.resample(measured, LEVELS)
    deviations = statistics.deviations(resampled, statistics.spread([resampled]))
    assert statistics.interval(float(resampled.estimate[0]), deviations[:, 0]) is None


def test_repetitions_that_differ_widen_the_interval():
    rng = np.random.default_rng(7)

    def width(offsets: list[float]) -> float:
        sampled = []
        for _ in range(4):
            repetitions = [
                intervals(offset * rng.lognormal(1, 0.3, 1200), rng.integers(0, 6, 1200), 6) for offset in offsets
            ]
            sampled.append(statistics.resample(statistics.combine(repetitions), LEVELS, draws=500))
        between = statistics.spread(sampled)
        low, high = statistics.interval(0.0, statistics.deviations(sampled[0], between)[:, 0]) or (0, 0)
        return high - low

    assert width([0.9, 1.1]) > 3 * width([1.0, 1.0])


def noise(rng: np.random.Generator, tails: str, count: int) -> np.ndarray:
    """Latencies around 1: light (lognormal, σ = 0.3), heavy (lognormal, σ = 1.5) or Pareto's (α = 3)."""
    if tails == "pareto":
        return 1 + rng.pareto(3, count)
    return np.exp(rng.normal(0, {"light": 0.3, "heavy": 1.5}[tails], count))


def simulate(
    rng: np.random.Generator, seconds: int, *, tails: str, wander: float, correlation: float, apart: float
) -> statistics.Intervals:
    """One repetition: latencies of ~200 requests/s whose level wanders from second to second (AR(1), on a log scale)
    and, ``apart``, from repetition to repetition."""
    level = np.empty(seconds)
    level[0] = rng.normal(0, wander)
    for second in range(1, seconds):
        level[second] = correlation * level[second - 1] + rng.normal(0, wander * math.sqrt(1 - correlation**2))
    level += rng.normal(0, apart)
    due = np.repeat(np.arange(seconds), rng.poisson(200, seconds))
    return intervals(5 * noise(rng, tails, len(due)) * np.exp(level[due]), due, seconds)


SHAPES: dict[str, dict[str, Any]] = {
    "independent": {"tails": "light", "wander": 0.0, "correlation": 0.0, "apart": 0.0},
    "heavy tails": {"tails": "heavy", "wander": 0.0, "correlation": 0.0, "apart": 0.0},
    "Pareto's tails": {"tails": "pareto", "wander": 0.0, "correlation": 0.0, "apart": 0.0},
    "autocorrelated": {"tails": "light", "wander": 0.1, "correlation": 0.5, "apart": 0.0},
    "strongly autocorrelated": {"tails": "light", "wander": 0.1, "correlation": 0.8, "apart": 0.0},
    "heavy and autocorrelated": {"tails": "heavy", "wander": 0.1, "correlation": 0.5, "apart": 0.0},
    "repetitions apart": {"tails": "light", "wander": 0.0, "correlation": 0.0, "apart": 0.05},
}
# Each takes a twentieth of a second; more of them: TANDEM_SIMULATIONS=1000 pytest -s -k covers
RUNS = int(os.environ.get("TANDEM_SIMULATIONS", "20"))
SECONDS, MEASUREMENTS = 5, 16  # as in the default experiment
CHANCE = math.sqrt(0.05 * 0.95 / (RUNS * MEASUREMENTS))  # the standard error of a coverage of 95 %


@functools.cache
def simulated(shape: str) -> tuple[dict[str, float], dict[str, float]]:
    """(the share of intervals that cover the truth, the share of comparisons of equals that show a difference), of p50
    and p99, in runs of 16 measurements of two repetitions."""
    settings_ = SHAPES[shape]
    truth_rng = np.random.default_rng(99)
    draws = 1_000_000
    levels = truth_rng.normal(0, math.hypot(settings_["wander"], settings_["apart"]), draws)
    truth = np.log(np.quantile(5 * noise(truth_rng, settings_["tails"], draws) * np.exp(levels), list(LEVELS.values())))
    covered: dict[str, list[bool]] = {name: [] for name in LEVELS}
    told_apart: dict[str, list[bool]] = {name: [] for name in LEVELS}
    for run in range(RUNS):
        rng = np.random.default_rng([run, list(SHAPES).index(shape)])
        sampled = [
            statistics.resample(
                statistics.combine([simulate(rng, SECONDS, **settings_) for _ in range(2)]),
                LEVELS,
                seed=[run, n],
                draws=150,
            )
            for n in range(MEASUREMENTS)
        ]
        between = statistics.spread(sampled)
        deviations = [statistics.deviations(item, between, [run, n]) for n, item in enumerate(sampled)]
        for column, name in enumerate(LEVELS):
            for item, deviation in zip(sampled, deviations, strict=True):
                low, high = statistics.interval(item.estimate[column], deviation[:, column]) or (math.nan, math.nan)
                covered[name].append(bool(low <= truth[column] <= high))
            for one in range(0, MEASUREMENTS, 2):
                difference = sampled[one].estimate[column] - sampled[one + 1].estimate[column]
                apart = deviations[one][:, column] - deviations[one + 1][:, column]
                low, high = statistics.interval(difference, apart) or (math.nan, math.nan)
                told_apart[name].append(not low <= 0 <= high)
    shares = tuple({name: float(np.mean(of[name])) for name in LEVELS} for of in (covered, told_apart))
    print(f"\n{shape}: covered {shares[0]}, told apart {shares[1]}, {len(covered['p99'])} intervals each")
    return shares[0], shares[1]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_interval_covers_the_truth_and_equal_servers_are_not_told_apart(shape):
    covered, told_apart = simulated(shape)
    for share in covered.values():
        assert 0.93 - 2 * CHANCE <= share <= 0.97 + 2 * CHANCE
    assert max(told_apart.values()) <= 0.05 + 2 * CHANCE


def test_over_all_shapes_the_95_percent_interval_covers_the_truth_93_to_97_times_in_a_hundred():
    results = [simulated(shape) for shape in SHAPES]
    for name in LEVELS:
        assert 0.93 <= np.mean([covered[name] for covered, _ in results]) <= 0.97
        assert np.mean([told_apart[name] for _, told_apart in results]) <= 0.05


@pytest.mark.parametrize("seconds", [2, 3, 5, 6, 27])
def test_block_resampling_keeps_the_share_of_the_variance_that_it_is_said_to(seconds):
    rng = np.random.default_rng(seconds)
    series = rng.normal(0, 1, (400, seconds))
    weights = statistics.block_weights(seconds, 400, rng)
    means = series @ weights.T / seconds
    assert statistics._kept(seconds) == pytest.approx(means.var(axis=1).mean() * seconds, rel=0.1)


@pytest.mark.parametrize("seconds", [2, 3, 5, 6, 27])
def test_the_bootstrap_s_variance_of_independent_seconds_has_the_degrees_of_freedom_that_it_is_given(seconds):
    """Twice its mean squared over its variance, for which the mean of the series is resampled in blocks."""
    rng = np.random.default_rng(seconds)
    series = rng.normal(0, 1, (40_000, seconds))
    length = statistics.block_length(seconds)
    blocks = np.stack([np.roll(series, -shift, axis=1) for shift in range(length)]).mean(axis=0)
    variance = ((blocks - series.mean(axis=1, keepdims=True)) ** 2).mean(axis=1)
    degrees = 2 * variance.mean() ** 2 / variance.var()
    assert statistics._degrees(seconds) == pytest.approx(degrees, rel=0.05)


def test_a_faster_server_is_told_apart_by_its_true_ratio():
    rng = np.random.default_rng(11)
    sampled = [
        statistics.resample(
            statistics.combine(
                [intervals(median * rng.lognormal(0, 0.3, 1200), rng.integers(0, 6, 1200), 6) for _ in range(2)]
            ),
            LEVELS,
            seed=[n],
        )
        for n, median in enumerate((4.0, 5.0, 4.0, 5.0))
    ]
    between = statistics.spread(sampled)
    deviations = [statistics.deviations(item, between, [n]) for n, item in enumerate(sampled)]
    low, high = statistics.interval(
        sampled[0].estimate[0] - sampled[1].estimate[0], deviations[0][:, 0] - deviations[1][:, 0]
    ) or (0, 0)
    assert low < math.log(0.8) < high < 0


def test_the_log_is_in_microseconds(tmp_path):
    log = saved(tmp_path / "trial", [np.array([12.5])])
    read = statistics.combine([statistics.read_intervals(log, 1)])
    assert read.values_ms == pytest.approx([12.5], rel=1e-3)
