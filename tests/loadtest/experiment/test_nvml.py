"""What NVIDIA's library says of GPUs, through NVIDIA's own bindings, and what is made of its errors."""

from __future__ import annotations

import pynvml
import pytest

from loadtest.experiment.meter_records import Gpu, MigDevice, Sharing, WhyNoGpus
from loadtest.experiment.nvml import Lost, Nvml, Reading, Unavailable, first_visible
from tests.loadtest.experiment import fake_nvml
from tests.loadtest.experiment.fake_nvml import Device, FakeNvml, Part


def opened(monkeypatch, *devices: Device) -> tuple[Nvml, FakeNvml]:
    library = FakeNvml(*devices)
    fake_nvml.install(monkeypatch, library)
    return Nvml(), library


def test_a_gpu_is_described_and_read(monkeypatch):
    nvml, library = opened(monkeypatch, Device())
    found = nvml.gpus(None, mps=False)
    assert (found.driver, found.cuda, found.used, found.visible, found.why_none) == ("580.82", "13.0", 0, None, None)
    assert found.found == (
        Gpu(
            index=0,
            name="NVIDIA T4",
            uuid="GPU-11",
            memory_bytes=16 * 2**30,
            power_limit_w=70.0,
            capability=(7, 5),
            sharing=Sharing.SHARED,
        ),
    )
    assert nvml.read() == Reading(0.8, 3 * 2**30, 1500.0, 60.0, 5000.0)
    assert library.open == 1
    nvml.close()
    assert library.open == 0


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, WhyNoGpus.NO_DRIVER),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, WhyNoGpus.NO_DRIVER),
        (pynvml.NVML_ERROR_NO_PERMISSION, WhyNoGpus.NO_PERMISSION),
        (pynvml.NVML_ERROR_UNKNOWN, WhyNoGpus.FAILED),
    ],
)
def test_a_library_that_does_not_start_says_why(monkeypatch, status, why):
    fake_nvml.install(monkeypatch, FakeNvml(starts=status))
    with pytest.raises(Unavailable) as none:
        Nvml()
    assert none.value.why is why


def test_a_machine_without_the_library(monkeypatch):
    fake_nvml.install(monkeypatch, None)
    with pytest.raises(Unavailable) as none:
        Nvml()
    assert none.value.why is WhyNoGpus.NO_LIBRARY


@pytest.mark.parametrize(
    ("fails", "without"),
    [
        ("energy", Reading(0.8, 3 * 2**30, 1500.0, 60.0, None)),  # before Volta
        ("power", Reading(0.8, 3 * 2**30, 1500.0, None, 5000.0)),
        ("utilisation", Reading(None, 3 * 2**30, 1500.0, 60.0, 5000.0)),  # of a divided GPU
        ("memory", Reading(0.8, None, 1500.0, 60.0, 5000.0)),
        ("clock", Reading(0.8, 3 * 2**30, None, 60.0, 5000.0)),
    ],
)
@pytest.mark.parametrize(
    "status",
    [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND],
)
def test_what_a_gpu_does_not_have_is_missing_and_nothing_else(monkeypatch, fails, without, status):
    nvml, _ = opened(monkeypatch, Device(fails={fails: status}))
    nvml.gpus(None, mps=False)
    assert nvml.read() == without


def test_an_old_driver_that_knows_no_parts(monkeypatch):
    nvml, _ = opened(monkeypatch, Device(fails={"mig": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}))
    assert not nvml.gpus(None, mps=False).found[0].mig


@pytest.mark.parametrize("status", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED])
def test_a_gpu_that_is_lost_is_told_from_one_that_does_not_say(monkeypatch, status):
    nvml, library = opened(monkeypatch, Device())
    nvml.gpus(None, mps=False)
    library.devices[0].fails["power"] = status
    with pytest.raises(Lost):
        nvml.read()


def test_of_a_divided_gpu_the_memory_is_that_of_the_part_that_servers_see(monkeypatch):
    parts = [Part("MIG-aa", 10 * 2**30), None, Part("MIG-bb", 20 * 2**30)]
    whole = Device(name="NVIDIA H200", parts=parts, fails={"utilisation": pynvml.NVML_ERROR_NOT_SUPPORTED})
    nvml, _ = opened(monkeypatch, Device(uuid="GPU-00"), whole)
    found = nvml.gpus("MIG-bb", mps=True)
    assert (found.used, found.mps, found.visible) == (1, True, "MIG-bb")
    assert found.found[1].mig
    assert found.found[1].mig_devices == (
        MigDevice(index=0, uuid="MIG-aa", memory_bytes=10 * 2**30),
        MigDevice(index=2, uuid="MIG-bb", memory_bytes=20 * 2**30),
    )
    read = nvml.read()
    assert read.memory_bytes == 10 * 2**30  # half of the part's
    assert read.utilisation is None


ONE, TWO = Gpu(index=0, name="a", uuid="GPU-1a"), Gpu(index=1, name="b", uuid="GPU-2b")
PARTS = (MigDevice(index=1, uuid="MIG-x"), MigDevice(index=3, uuid="MIG-y"))
DIVIDED = Gpu(index=2, name="c", uuid="GPU-3c", mig=True, mig_devices=PARTS)


@pytest.mark.parametrize(
    ("visible", "first"),
    [
        (None, (0, None)),
        ("0", (0, None)),
        ("1,0", (1, None)),
        (" 1", (1, None)),
        ("GPU-2b", (1, None)),
        ("GPU-2", (1, None)),
        ("2", (2, 1)),
        ("MIG-y", (2, 3)),
        ("", (None, None)),
        ("-1", (None, None)),
        ("7", (None, None)),
        ("nonsense", (None, None)),
        ("GPU-9", (None, None)),
    ],
)
def test_the_first_gpu_that_is_visible(visible, first):
    assert first_visible((ONE, TWO, DIVIDED), visible) == first
    assert first_visible((), visible) == (None, None)


@pytest.mark.parametrize(
    ("mode", "sharing"),
    [
        (pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS, Sharing.EXCLUSIVE),
        (pynvml.NVML_COMPUTEMODE_PROHIBITED, Sharing.PROHIBITED),
    ],
)
def test_who_may_share_it(monkeypatch, mode, sharing):
    nvml, _ = opened(monkeypatch, Device(compute_mode=mode))
    assert nvml.gpus(None, mps=False).found[0].sharing is sharing
