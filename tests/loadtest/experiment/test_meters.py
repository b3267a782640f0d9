"""What meters counted in a stretch of time, from samples around it; and the thread that takes them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pynvml
import pytest

from loadtest.experiment import meters
from loadtest.experiment.meter_records import DeviceUse, GpuUse, Meter, WhyNoGpus
from loadtest.experiment.meters import Sample, use
from loadtest.experiment.nvml import Reading
from tests.loadtest.experiment import fake_nvml
from tests.loadtest.experiment.fake_nvml import Device, FakeNvml
from tests.loadtest.experiment.test_rapl import zone

T0 = 1_760_000_000.0


def reading(at: float, watts: float = 60.0) -> Reading:
    return Reading(0.5, 2 * 2**30, 1500.0, watts, 1000.0 + watts * at)


def samples(seconds: float = 10.0, gpu: Callable[[float], Reading | None] = reading) -> list[Sample]:
    """One every 0.1 s: a GPU of 60 W, and CPUs of 25 W."""
    return [Sample(T0 + k / 10, gpu(k / 10), 25.0 * k / 10) for k in range(round(seconds * 10) + 1)]


def seen(found: Sequence[Sample], began: float = 2.03, ended: float = 7.06) -> DeviceUse:
    it = use(found, T0 + began, T0 + ended)
    assert it is not None
    return it


def gpu_of(found: DeviceUse) -> GpuUse:
    assert found.gpu is not None
    return found.gpu


def test_a_stretch_has_what_the_counters_grew_by_between_its_own_ends():
    found = seen(samples())
    assert found == DeviceUse(
        seconds=5.03,
        gpu=GpuUse(
            utilisation=0.5,
            memory_bytes=2 * 2**30,
            clock_mhz=1500.0,
            power_w=60.0,
            energy_j=pytest.approx(60 * 5.03, abs=0.01),  # type: ignore[arg-type]
            meter=Meter.GPU_COUNTER,
        ),
        cpu_energy_j=pytest.approx(25 * 5.03, abs=0.01),  # type: ignore[arg-type]
    )


def test_without_a_counter_power_is_integrated_and_said_to_be():
    uncounted = samples(gpu=lambda at: replace(reading(at, 40.0 + 10 * at), energy_j=None))
    found = gpu_of(seen(uncounted, 2.0, 6.0))
    assert (found.energy_j, found.meter) == (pytest.approx(4 * (40 + 10 * 4), rel=0.001), Meter.GPU_POWER)


def test_what_a_gpu_does_not_say_is_missing_and_never_zero():
    silent = samples(gpu=lambda at: Reading(None, None, None, None, None))
    assert gpu_of(seen(silent)) == GpuUse()
    alone = [replace(one, gpu=None) for one in samples()]
    assert (seen(alone).gpu, seen(alone).cpu_energy_j) == (None, pytest.approx(25 * 5.03, abs=0.01))
    without = [replace(one, cpu_j=None) for one in samples()]
    assert seen(without).cpu_energy_j is None
    assert use([Sample(T0 + k / 10, None, None) for k in range(100)], T0 + 2, T0 + 7) is None


def test_a_counter_that_began_anew_says_nothing_of_that_stretch():
    """As after the driver was loaded again."""
    anew = samples(gpu=lambda at: replace(reading(at), energy_j=60 * at if at > 4 else 1000 + 60 * at))
    found = gpu_of(seen(anew))
    assert (found.energy_j, found.meter, found.power_w) == (None, None, 60.0)
    assert gpu_of(seen(anew, 5.0, 8.0)).energy_j == pytest.approx(180.0)


def test_a_gpu_that_is_lost_says_nothing_from_then_on():
    lost = samples(gpu=lambda at: reading(at) if at < 5 else None)
    assert gpu_of(seen(lost)).energy_j is None
    assert gpu_of(seen(lost, 1.0, 4.0)).energy_j == pytest.approx(180.0)
    assert seen(lost, 6.0, 8.0).gpu is None


@pytest.mark.parametrize(("began", "ended"), [(-3.0, 5.0), (5.0, 13.0), (20.0, 25.0), (5.0, 5.0)])
def test_a_stretch_that_was_not_watched_from_end_to_end_has_no_energy(began, ended):
    found = use(samples(), T0 + began, T0 + ended)
    assert found is None or (gpu_of(found).energy_j, found.cpu_energy_j) == (None, None)


def test_samples_too_far_apart_at_an_end_leave_it_open():
    gap = [one for one in samples() if not T0 + 1.5 < one.at < T0 + 3.0]
    assert use(gap, T0 + 2.03, T0 + 7.0) is None or seen(gap).cpu_energy_j is None
    assert seen(gap, 3.5, 7.0).cpu_energy_j == pytest.approx(25 * 3.5)


def test_a_clock_that_was_set_leaves_nothing_to_say():
    back = [replace(one, at=one.at - 3600) if k > 40 else one for k, one in enumerate(samples())]
    assert use(back, T0 + 2, T0 + 7) is None


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with a GPU and a readable counter of its package."""
    library = FakeNvml(Device())
    fake_nvml.install(monkeypatch, library)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    return library, tmp_path


def test_the_thread_samples_all_meters_until_it_is_stopped(machine):
    library, powercap = machine
    found = meters.find(powercap, on_gpu=True)
    assert found.gpus.found[0].name == "NVIDIA T4"
    found.start()
    began = time.time()

    def whole() -> DeviceUse | None:
        return found.use(began + 0.15, began + 0.35)

    until(lambda: (it := whole()) is not None and it.cpu_energy_j is not None)
    counted = whole()
    found.stop()
    assert counted is not None
    assert gpu_of(counted).power_w == 60.0
    assert (gpu_of(counted).energy_j, counted.cpu_energy_j) == (0.0, 0.0)  # counters that stand still
    assert library.open == 0


def test_idle_power_is_measured_where_something_counts_energy(machine, monkeypatch):
    _, powercap = machine
    package = powercap / "intel-rapl:0" / "energy_uj"
    found = meters.find(powercap, on_gpu=False)
    assert found.gpus.asked is False
    found.start()

    def grow(*_: object) -> float:
        package.write_text(str(int(package.read_text()) + 1_000_000))
        return clock()

    clock = time.time
    monkeypatch.setattr(time, "time", grow)
    idle = found.idle(0.5)
    monkeypatch.undo()
    found.stop()
    assert idle is not None
    assert (idle.gpu_w, idle.seconds) == (None, 0.5)
    assert idle.cpu_w is not None
    assert idle.cpu_w > 0


def test_a_gpu_that_is_lost_meanwhile_ends_its_samples_and_not_the_run(machine):
    library, powercap = machine
    found = meters.find(powercap, on_gpu=True)
    found.start()
    library.devices[0].fails["power"] = pynvml.NVML_ERROR_GPU_IS_LOST
    until(lambda: found.lost_at is not None)
    began = time.time()
    until(lambda: (it := found.use(began + 0.1, began + 0.3)) is not None and it.cpu_energy_j is not None)
    found.stop()


def test_a_machine_without_meters_has_no_thread(tmp_path, monkeypatch):
    fake_nvml.install(monkeypatch, None)
    found = meters.find(tmp_path, on_gpu=True)
    assert (found.any, found.gpus.why_none) == (False, WhyNoGpus.NO_LIBRARY)
    found.start()
    assert found.idle(0.0) is None
    found.stop()


def test_where_no_gpu_is_visible_none_is_sampled(machine, monkeypatch):
    library, powercap = machine
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "-1")
    found = meters.find(powercap, on_gpu=True)
    assert (found.gpus.used, found.gpus.visible, library.open) == (None, "-1", 0)
    assert found.any  # the package's counter


def test_for_servers_of_the_cpu_the_gpu_is_not_asked(machine):
    library, powercap = machine
    assert meters.find(powercap, on_gpu=False).any
    assert library.open == 0
