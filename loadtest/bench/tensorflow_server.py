"""A TensorFlow server for a benchmark: the model, the process, and the load generator's plan."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from loadtest.bench import cpu_clock
from loadtest.bench.tools import ROOT
from loadtest.experiment.phases import WarmUpPhase
from models import child_environment
from models.problem import Problem
from serving import ports
from serving.engines import embedded_tfserving, registry
from serving.engines.engine import ONEDNN
from serving.engines.tensorflow_serving import onednn as switch
from serving.engines.tensorflow_serving.engine import TensorFlowServing
from serving.profile import OneDnn, ServingProfile
from serving.runtimes.answering import Awaited
from serving.runtimes.process import launch
from serving.runtimes.process.server_process import ServerProcess
from serving.target import Target

EMBEDDED = embedded_tfserving.ENGINE
MODEL = "cnn"
SHAPE = (32, 32, 3)
CLASSES = 10
BATCHING = "max_batch_size { value: 64 }\nbatch_timeout_micros { value: 1000 }\n"
START_S = 90.0
_TIMED_WINDOWS = 4


class BenchServer:
    """A running server: where it listens, the process, and whether it says that it computes with oneDNN."""

    def __init__(self, engine: str, version: str, process: ServerProcess, address: tuple[int, int]) -> None:
        self.process = process
        self.onednn: bool | None = None
        self._usage = psutil.Process(process.pid)
        grpc, rest = (f"{ports.LOOPBACK}:{port}" for port in address)
        self.target = Target(
            name=engine,
            engine=engine,
            engine_version=version,
            runtime="process",
            model=MODEL,
            version=1,
            input_shape=SHAPE,
            classes=CLASSES,
            grpc=grpc,
            rest=rest,
        )

    def cpu_seconds(self) -> float:
        """CPU time that the server has used so far."""
        return cpu_clock.seconds(self._usage.pid)

    def resident_mib(self) -> float:
        """Its resident memory (RSS)."""
        return float(self._usage.memory_info().rss / 2**20)


def at_hand(named: Mapping[str, Path]) -> TensorFlowServing:
    """The real server where its program is ``named`` (by the engine's id) or on the PATH, else the embedded one. Raises
    `Problem` where that program is something else."""
    real = registry.engine(EMBEDDED.stands_in_for)
    launch.require([real], named)
    engine = launch.at_hand(real, named)
    assert isinstance(engine, TensorFlowServing)
    return engine


@contextmanager
def started(
    engine: TensorFlowServing,
    base_path: Path,
    folder: Path,
    cores: Sequence[int],
    *flags: str,
    program: Path | None = None,
    onednn: OneDnn = "default",
) -> Iterator[BenchServer]:
    """A server on `cores` that answers predictions when this is entered; stopped in the end. Raises `Problem`."""
    profile = ServingProfile(onednn=onednn)
    address = grpc, rest = ports.free(2)
    runs = engine.runs(program)
    command = [*runs.command, f"--port={grpc}", f"--rest_api_port={rest}", f"--model_name={MODEL}"]
    command += [f"--model_base_path={base_path}", "--grpc_max_threads=128", "--rest_api_num_threads=64", *flags]
    process = ServerProcess(
        engine.title,
        command,
        folder / f"{engine.id}-{grpc}.log",
        environment=switch.VARIABLE.variables(profile),
        cores=cores,
        folder=ROOT,
    )
    try:
        server = BenchServer(engine.id, runs.version, process, (address[0], address[1]))
        # Its answers hold the class beside the probabilities.
        process.wait_until(partial(Awaited(any_answer=True).answers, server.target), START_S)
        said = {one.name: one.value for one in engine.in_force(process.log.read_text(errors="replace"))}.get(ONEDNN)
        server.onednn = said if isinstance(said, bool) else None
        yield server
    finally:
        process.stop()


def make_model(folder: Path, width: int = 1) -> None:
    """Write the small CNN's version 1, with `width` times its channels, under `folder`. Raises `Problem`."""
    # In a process of its own: the load test loads no deep learning.
    command = [sys.executable, "-m", "models.small_cnn", str(folder), str(width)]
    done = subprocess.run(
        command, cwd=ROOT, env=child_environment.export(), capture_output=True, text=True, timeout=240, check=False
    )
    if done.returncode:
        raise Problem("the benchmark's model could not be made", done.stderr.splitlines()[-5:])


def write_reference(path: Path) -> Path:
    """Images to send. The answers of a closed loop are not compared, so the right ones are not here."""
    images = np.random.default_rng(0).integers(0, 256, (256, *SHAPE), dtype=np.uint8)
    np.savez(path, images=images, probabilities=np.zeros((len(images), CLASSES), np.float32))
    return path


def closed_loop(protocol: str, concurrency: int, seconds: float, folder: Path) -> WarmUpPhase:
    """A phase of the load generator that counts all of its `seconds`: a warm-up that is never steady."""
    window = seconds / _TIMED_WINDOWS
    return WarmUpPhase(
        id=folder.name,
        folder=folder,
        protocol=protocol,
        seed=1,
        concurrency=concurrency,
        window_s=window,
        min_s=2 * seconds,
        max_s=seconds - window / 2,  # within the last window, which is then measured to its end
    )
