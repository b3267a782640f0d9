"""Joules for 1,000 images, from what meters counted in trials; whole, and without what the machine draws when idle."""

from __future__ import annotations

import pytest

from loadtest.analysis import energy
from loadtest.analysis.records import Energy
from loadtest.experiment.meter_records import DeviceUse, GpuUse, IdlePower, Meter

IDLE = IdlePower(seconds=4.0, gpu_w=20.0, cpu_w=10.0)


def used(seconds: float, gpu_j: float | None = None, cpu_j: float | None = None) -> DeviceUse:
    gpu = GpuUse(energy_j=gpu_j, meter=Meter.GPU_COUNTER) if gpu_j is not None else None
    return DeviceUse(seconds=seconds, gpu=gpu, cpu_energy_j=cpu_j)


def test_repetitions_are_summed_before_they_are_divided_and_idle_is_taken_off():
    found = energy.of([(used(10.0, 500.0, 300.0), 1000), (used(10.0, 900.0, 300.0), 3000)], IDLE)
    assert found == (
        Energy(meter=Meter.GPU_COUNTER, joules=350.0, above_idle=250.0, idle_w=20.0, least=233.3333, most=300.0),
        Energy(meter=Meter.CPU_COUNTER, joules=150.0, above_idle=100.0, idle_w=10.0, least=66.6667, most=200.0),
    )


def test_where_idle_is_not_known_the_whole_is_all_that_is_told():
    (found,) = energy.of([(used(10.0, cpu_j=300.0), 2000)], None)
    assert found == Energy(meter=Meter.CPU_COUNTER, joules=150.0, above_idle=None, idle_w=None, least=150.0, most=150.0)
    (found,) = energy.of([(used(10.0, gpu_j=300.0), 2000)], IdlePower(seconds=4.0, cpu_w=3.0))
    assert (found.meter, found.above_idle) == (Meter.GPU_COUNTER, None)


@pytest.mark.parametrize(
    "uses",
    [
        [],
        [(used(10.0), 1000)],
        [(used(10.0, gpu_j=100.0, cpu_j=100.0), 0)],  # nothing was answered
        [(DeviceUse(seconds=10.0, gpu=GpuUse(utilisation=0.5)), 1000)],
    ],
)
def test_no_counter_and_no_image_give_nothing_and_no_zero(uses):
    assert energy.of(uses, IDLE) == ()


def test_a_repetition_without_figures_is_left_out_with_its_images():
    (found,) = energy.of([(used(10.0, gpu_j=500.0), 1000), (used(10.0), 9000)], None)
    assert found.joules == 500.0
