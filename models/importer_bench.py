"""How fast the imported SavedModel is beside a twin written by hand in Keras (`make bench-importer`).

All in one process, in turns: the imported SavedModel and the twin's, eager PyTorch and TorchScript, and ONNX Runtime as
the floor, each with as many threads. Times are medians of the rounds; ratios are of the same rounds. Exits with status
1 where the imported SavedModel takes more than 1.05 times as long as its twin.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from models import problem
from models.problem import Problem
from models.progress import Bar, Progress

MODELS = ("resnet50", "mobilenet_v2")
SHAPE, CLASSES = (224, 224, 3), 1000
MOST = 1.05
WARM_UP = 3
RATIOS = (("imported", "keras"), ("torchscript", "eager"), ("imported", "onnxruntime"))

Run = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Row:
    """A model at a batch size: median milliseconds of each way to run it, by name."""

    model: str
    batch: int
    ms: Mapping[str, float]

    def ratio(self, first: str, second: str) -> float:
        """How many times as long as the second the first takes."""
        return self.ms[first] / self.ms[second]

    @property
    def holds(self) -> bool:
        """Whether the imported SavedModel is as fast as its twin."""
        return self.ratio("imported", "keras") <= MOST


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 1 where a ratio does not hold. Raises `Problem`."""
    options = _parser().parse_args(arguments)
    if min(options.batches) < 1 or options.rounds < 1 or options.threads < 1:
        raise Problem("--batches, --rounds and --threads: use whole numbers of 1 or more")
    progress, rows = Progress(), []
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            runs = prepare(name, Path(folder), options.threads, progress)
            total = len(options.batches) * (options.rounds + WARM_UP) * len(runs)
            with progress.bar("timing", total, "runs") as bar:
                for batch in options.batches:
                    rows.append(Row(name, batch, interleaved(runs, batch, options.rounds, bar)))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    Console(width=max(Console().width, 120)).print(table(rows, options.threads))
    return 0 if all(row.holds for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-importer", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32], metavar="N")
    parser.add_argument("--rounds", type=int, default=15, help="timed runs of each (%(default)s)")
    cpus = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cpus, help="of each runtime (%(default)s)")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    return parser


def prepare(name: str, folder: Path, threads: int, progress: Progress) -> dict[str, Run]:
    """What is timed, by name: each takes uint8 images [N, 224, 224, 3] and computes probabilities."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)  # read when TensorFlow starts
    import onnxruntime
    import torch

    from models import architectures, onnx_export, savedmodel, torchscript
    from models.keras_twins import TWINS
    from models.tensorflow_quietly import tf

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    classifier = architectures.build(name, CLASSES).eval()
    onnx_export.export(classifier, folder / "model.onnx")
    savedmodel.export(folder / "model.onnx", folder / "imported")
    torchscript.export(classifier, folder / "model.pt")
    progress.say("export", f"{name}: ONNX, SavedModel, TorchScript")

    twin = TWINS[name](CLASSES)

    @tf.function(input_signature=[tf.TensorSpec([None, *SHAPE], tf.uint8, savedmodel.INPUT)], autograph=False)
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {savedmodel.OUTPUT: tf.nn.softmax(twin(tf.cast(images, tf.float32) / 255.0, training=False))}

    module = tf.Module()
    module.twin = twin
    tf.saved_model.save(module, str(folder / "keras"), signatures=serve.get_concrete_function())
    progress.say("export", f"{name}: its twin in Keras")

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), settings, providers=["CPUExecutionProvider"])

    def of_torch(called: Callable[[torch.Tensor], torch.Tensor]) -> Run:
        def run(images: np.ndarray) -> torch.Tensor:
            with torch.inference_mode():
                return called(torch.from_numpy(images))

        return run

    return {
        "imported": savedmodel.load(folder / "imported"),
        "keras": savedmodel.load(folder / "keras"),
        "eager": of_torch(classifier),
        "torchscript": of_torch(torchscript.load(folder / "model.pt")),
        "onnxruntime": lambda images: session.run(None, {savedmodel.INPUT: images}),
    }


def interleaved(runs: Mapping[str, Run], batch: int, rounds: int, bar: Bar) -> dict[str, float]:
    """Median milliseconds of each run; all take turns, forth and back, after rounds that do not count."""
    images = np.random.default_rng(0).integers(0, 256, (batch, *SHAPE), dtype=np.uint8)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + WARM_UP):
        for name in list(runs) if turn % 2 else list(runs)[::-1]:
            started = time.perf_counter()
            runs[name](images)
            if turn >= WARM_UP:
                times[name].append((time.perf_counter() - started) * 1e3)
            bar.advance(1, f"batch {batch}")
    return {name: statistics.median(values) for name, values in times.items()}


def table(rows: Sequence[Row], threads: int) -> Table:
    """A line a row: milliseconds, then ratios."""
    made = Table(title=f"Milliseconds a batch ({threads} threads), medians of interleaved rounds; ratios of times")
    for heading in ("model", "batch", *rows[0].ms, *(f"{first} / {second}" for first, second in RATIOS), "holds"):
        made.add_column(heading, justify="left" if heading in ("model", "holds") else "right")
    for row in rows:
        made.add_row(
            row.model,
            str(row.batch),
            *(f"{value:,.1f}" for value in row.ms.values()),
            *(f"{row.ratio(first, second):.2f}" for first, second in RATIOS),
            "yes" if row.holds else f"no: more than {MOST}",
        )
    return made


if __name__ == "__main__":
    sys.exit(problem.run(main))
