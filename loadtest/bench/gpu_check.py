"""The first minutes on a machine with a GPU (`make gpu-check`): do both servers compute on it, rightly, without stalls,
and together? At most twelve minutes, without network.

At each precision the model is exported and proven, each server started on the GPU, asked for every batch size, proven
over the wire, and loaded with 32 requests in flight. Then both are up on the GPU at once, and asked for their largest
batches at the same time. Without a GPU the same goes its way on the CPU with a small network, as far as that says
anything; each step that is left out says why. Exit status: 1 where a step failed.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loadtest.bench.gpu_checks import (
    BUDGET_S,
    IN_FLIGHT,
    PUBLISHED,
    Checked,
    GpuCheck,
    Outcome,
    Setup,
    Step,
    Why,
    setup,
)
from loadtest.experiment import meters
from loadtest.experiment.verb import Verb
from loadtest.report import device_words, wording
from serving.engines import registry
from serving.runtimes.process import launch

_STEPS = {
    Step.PACKAGES: "packages for the GPU",
    Step.EXPORT: "export and parity gate",
    Step.SERVED: "served, and right over the wire",
    Step.STALLS: "no request stalls",
    Step.THROUGHPUT: f"throughput, {IN_FLIGHT} in flight",
    Step.TOGETHER: "both servers on one GPU",
}
_OUTCOMES = {Outcome.PASSED: "passed", Outcome.FAILED: "FAILED", Outcome.LEFT_OUT: "left out"}
_WHY = {
    Why.NO_GPU: "this machine shows no NVIDIA GPU",
    Why.CPU_TORCH: "there is a GPU, and this PyTorch is a build for CPUs: install one for CUDA (CONTRIBUTING.md)",
    Why.GPU_ONLY: "a way in which GPUs multiply",
    Why.OTHER_MODEL: "what is published is of resnet50 on a GPU",
    Why.NOT_EXPORTED: "the model could not be exported at this precision",
    Why.TIME: "the time was spent",
}


def introduced(here: Setup) -> str:
    """What is about to be checked on what."""
    where = f"on the {here.device.upper()} with {here.model}"
    found = device_words.gpus(here.gpus)
    mismatched = f"\n{_WHY[Why.CPU_TORCH]} (torch {here.torch})" if here.is_mismatched else ""
    return f"GPU: {found}\ntorch {here.torch}; checking {where}{mismatched}"


def table(found: Sequence[Checked]) -> str:
    """All checks, and how many came out how."""
    made = Table("check", "precision", "server", "outcome", "what", box=None, pad_edge=False)
    for one in found:
        made.add_row(
            _STEPS[one.step], one.precision or "", wording.target_name(one.target), _OUTCOMES[one.outcome], says(one)
        )
    out = io.StringIO()
    Console(file=out, width=160, highlight=False, markup=False).print(made)
    counts = ", ".join(
        f"{sum(one.outcome is outcome for one in found)} {word.lower()}" for outcome, word in _OUTCOMES.items()
    )
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join(["", *lines, "", counts])


def says(one: Checked) -> str:
    """What a check measured, or why it failed or was left out."""
    parts = [_WHY[one.why] if one.why else "", one.said]
    if one.figure is not None:
        parts.append(_figure(one))
    if one.use and one.use.gpu:
        gpu = one.use.gpu
        parts.append(f"GPU busy {wording.share(gpu.utilisation)}" if gpu.utilisation is not None else "")
        parts.append(f"{wording.gibibytes(gpu.memory_bytes)} in use" if gpu.memory_bytes is not None else "")
        parts.append(f"{wording.number(gpu.power_w)} W" if gpu.power_w is not None else "")
    return "; ".join(part for part in parts if part)


def _figure(one: Checked) -> str:
    if one.step is Step.SERVED:
        return f"largest |Δp| {wording.scientific(one.figure)}, allowed {wording.scientific(one.allowed)}"
    if one.step is Step.STALLS:
        return f"the longest took {wording.number(one.figure)} times the median, allowed {wording.number(one.allowed)}"
    beside = ", ".join(f"{name} {wording.count(rate)}" for name, rate in PUBLISHED.items())
    return f"{wording.images(one.figure)}" + (f" (Triton, fp16: {beside})" if one.allowed is not None else "")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--artifacts", type=Path, default=Path("artifacts"), help="where bundles are kept (%(default)s)"
    )
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds that it may take (%(default)g)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the servers' logs and the trials there")


def _run(options: argparse.Namespace) -> int:
    began = time.monotonic()
    watching = meters.find(on_gpu=True)
    here = setup(watching.gpus)
    print(introduced(here), flush=True)

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {line}", flush=True)

    folder = options.keep or Path(tempfile.mkdtemp(prefix="tandem-gpu-check-"))
    folder.mkdir(parents=True, exist_ok=True)
    watching.start()
    try:
        launch.require([registry.of_target(name) for name in registry.DEFAULT_TARGETS])
        found = GpuCheck(here, watching, options.artifacts, folder.resolve(), options.budget, say).run()
    finally:
        watching.stop()
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(table(found), flush=True)
    return int(any(one.outcome is Outcome.FAILED for one in found))


VERB = Verb("gpu-check", "whether both servers compute rightly on this machine's GPU", _add_arguments, _run, __doc__)
