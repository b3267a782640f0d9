"""GPU and energy in a report: rows where the meters said something, and none where they did not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtest import report
from loadtest.analysis import summary
from loadtest.experiment import records
from loadtest.experiment.meter_records import (
    DeviceUse,
    Gpu,
    GpuMemory,
    Gpus,
    GpuUse,
    IdlePower,
    Meter,
    MigDevice,
    Sharing,
    WhyNoGpus,
)
from loadtest.report import device_words
from tests.loadtest.report.test_markdown import tables
from tests.loadtest.report.test_report import Page
from tests.loadtest.runs.build import TF_SERVING, TORCHSERVE, rendered, write_run

T4 = Gpu(index=0, name="NVIDIA T4", uuid="GPU-1", memory_bytes=16 * 2**30, power_limit_w=70.0, sharing=Sharing.SHARED)
GPUS = Gpus(found=(T4,), driver="580.82", cuda="13.0", used=0)
ON_GPU = {
    "pytorch": replace(TORCHSERVE, knobs=rendered("torchserve", device="gpu", instances=2)),
    "tensorflow": replace(TF_SERVING, knobs=rendered("tensorflow-serving", device="gpu")),
}
BUSY = GpuUse(
    utilisation=0.8, memory_bytes=3 * 2**30, clock_mhz=1500.0, power_w=61.0, energy_j=360.0, meter=Meter.GPU_COUNTER
)


def a_run(folder: Path, use: DeviceUse | None, environment: Mapping[str, Any], servers=ON_GPU) -> Path:
    write_run(folder, servers, rates={"grpc": [250.0]}, duration_s=3)
    known = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps({**known, **environment}))
    for trial in folder.glob("trials/*") if use else ():
        (trial / "devices.json").write_text(records.encode(use))  # type: ignore[arg-type]
    report.write(folder)
    return folder


def rows(run: Path) -> list[list[str]]:
    found = tables((run / "report.md").read_text())
    return next((table for table in found if "GPU busy" in table[0]), [])


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    environment = {
        "gpus": msgspec.to_builtins(GPUS),
        "idle": msgspec.to_builtins(IdlePower(seconds=4.0, gpu_w=10.0, cpu_w=8.0)),
        "gpu_memory": {
            "pytorch": msgspec.to_builtins(
                GpuMemory(processes=2, weights_bytes=100 * 2**20, context_bytes=400 * 2**20, share=0.4)
            )
        },
    }
    use = DeviceUse(seconds=3.0, gpu=BUSY, cpu_energy_j=90.0)
    return a_run(tmp_path_factory.mktemp("runs") / "gpu", use, environment)


def test_each_measurement_has_what_the_gpu_did_and_a_row_for_each_meter_of_energy(measured):
    heading, *found = rows(measured)
    assert len(found) == 4  # two targets, two meters
    first = dict(zip(heading, found[0], strict=True))
    assert (first["GPU busy"], first["memory"], first["clock"], first["power"]) == (
        *("80 %", "3.00 GiB", "1,500 MHz", "61.0 W"),
    )
    item = summary.read(measured).measurements[0]
    gpu, cpu = item.energy
    images = item.requests.ok
    assert gpu.joules == pytest.approx(2 * 360.0 / images * 1000, abs=0.001)
    assert gpu.above_idle == pytest.approx(2 * (360.0 - 30.0) / images * 1000, abs=0.001)
    assert cpu.above_idle == pytest.approx(2 * (90.0 - 24.0) / images * 1000, abs=0.001)
    assert first["energy of"] == "GPU (its energy counter)"
    assert first["whole"] == f"{gpu.joules:.0f} J"
    page = Page((measured / "report.html").read_text(encoding="utf-8"))
    for text in ("GPU and energy", "80 %", "1,500 MHz", "1,000 images, above idle", "CPU packages and memory"):
        assert text in page.text


def test_the_conditions_say_what_servers_were_given_and_how_they_differ(measured):
    values = {one["name"]: one["value"] for one in json.loads((measured / "report.json").read_text())["conditions"]}
    assert values["GPU"] == (
        "NVIDIA T4, 16.0 GiB, driver 580.82, CUDA up to 13.0, limit 70.0 W, CUDA_VISIBLE_DEVICES not set, no MIG, "
        "no MPS"
    )
    assert "PyTorch: Each of 2 TorchServe's workers has a CUDA context" in values["GPU memory"]
    assert "TensorFlow: TensorFlow takes memory as it needs it" in values["GPU memory"]
    assert "times none" in values["cuDNN"]
    assert "for each batch size" in values["cuDNN"]
    assert "every batch size once" in values["GPU warm-up"]
    assert values["GPU memory of PyTorch"] == (
        "expected at least 0.977 GiB: 2 processes, each with 100 MiB of weights and some 400 MiB of CUDA context, and "
        "may take 40 % of it beside contexts"
    )
    assert values["Idle"] == "GPU 10.0 W, CPUs 8.00 W before any server ran"


def test_without_meters_there_is_no_row_and_no_condition(tmp_path):
    run = a_run(tmp_path / "cpu", None, {}, {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING})
    assert rows(run) == []
    text = (run / "report.md").read_text()
    page = Page((run / "report.html").read_text(encoding="utf-8")).text
    for word in ("GPU and energy", "GPU memory", "cuDNN", "Idle:", "above idle", "gpu_memory_fraction"):
        assert word not in text
        assert word not in page
    assert summary.read(run).measurements[0].energy == ()


def test_of_a_machine_with_a_cpu_s_counter_alone_the_gpu_s_cells_are_empty(tmp_path):
    run = a_run(tmp_path / "cpu", DeviceUse(seconds=3.0, cpu_energy_j=90.0), {})
    _, *found = rows(run)
    assert [row[3:7] for row in found] == [["–"] * 4] * 2
    assert all(row[7].startswith("CPU packages") and row[8] == "–" and " J" in row[9] for row in found)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Gpus(why_none=WhyNoGpus.NO_DRIVER), "not known: NVIDIA's driver is not loaded"),
        (Gpus(why_none=WhyNoGpus.NO_LIBRARY), "not known: NVIDIA's library is not installed"),
        (Gpus(found=(T4, T4), visible=""), "none that servers see (2 GPUs, CUDA_VISIBLE_DEVICES empty)"),
        (msgspec.structs.replace(GPUS, mps=True, visible="0"), "CUDA_VISIBLE_DEVICES 0, no MIG, MPS runs"),
        (msgspec.structs.replace(GPUS, found=(T4, T4)), "the first of 2"),
        (
            Gpus(found=(msgspec.structs.replace(T4, mig=True, mig_devices=(MigDevice(uuid="MIG-a"),)),), used=0),
            "MIG: one of 1 parts, utilisation and energy are of the whole",
        ),
        (
            Gpus(found=(msgspec.structs.replace(T4, sharing=Sharing.EXCLUSIVE),), used=0),
            "for one process at a time",
        ),
    ],
)
def test_what_was_found_of_gpus_is_told(found, says):
    assert says in device_words.gpus(found)


def test_a_damaged_file_is_named(tmp_path):
    run = a_run(tmp_path / "run", DeviceUse(seconds=3.0, cpu_energy_j=90.0), {})
    broken = next(run.glob("trials/*/devices.json"))
    broken.write_text('{"seconds": "three"}')
    with pytest.raises(Exception, match=r"devices\.json: .*delete it and build the report again"):
        summary.build(run)
