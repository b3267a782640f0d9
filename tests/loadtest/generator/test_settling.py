"""The open part of a warm-up, on medians as a server showed them and on a real small server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from loadtest.experiment.phases import WarmUpPhase
from loadtest.generator import settling
from tests.loadtest.generator.small_servers import generator, small_server, write_plan

pytestmark = pytest.mark.slow

# Medians (ms) of TorchServe over gRPC at 1,700/s in chunks of 3 s, after its throughput had become steady.
RECORDED = [6.787, 4.668, 2.783, 3.096, 2.638]


def test_a_java_server_has_settled_once_its_median_falls_no_more():
    assert [settling.settled(RECORDED[:seen], 0.1) for seen in range(len(RECORDED) + 1)] == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("p50_ms", "expected"),
    [([2.0, 2.1], False), ([9.0, 2.0, 2.1, 1.9], True), ([2.0, 2.0, None], False), ([2.0, 2.1, 2.5], False)],
)
def test_three_medians_that_agree_are_enough(p50_ms, expected):
    assert settling.settled(p50_ms, 0.1) == expected


def test_it_follows_the_closed_loop_and_is_written_down(tmp_path):
    probe_phase = WarmUpPhase(
        id="probe",
        folder=Path(),
        protocol="rest",
        seed=1,
        concurrency=4,
        window_s=0.1,
        min_s=0.5,
        tolerance=0.5,
    )
    with small_server("rest", "delay:0.02") as (where, _):
        phases = [replace(probe_phase, id="whole", settle_s=3.5, min_requests=10_000), probe_phase]
        with generator(write_plan(tmp_path, where, phases)) as process:
            _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    whole, probe = (json.loads((tmp_path / "results" / one / "warm-up.json").read_text()) for one in ("whole", "probe"))
    assert "settling" not in probe
    found = whole["settling"]
    assert found["rate"] == pytest.approx(0.7 * whole["throughput"], rel=0.01)
    assert found["settled"]
    assert len(found["p50_ms"]) == 3
    assert all(20 <= median < 60 for median in found["p50_ms"])
