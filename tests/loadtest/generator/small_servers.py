"""Starts the small servers as processes, and the pieces that tests of the generator need around them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from loadtest.experiment.generator_process import LOCUSTFILE
from loadtest.experiment.phases import Phase, Plan
from loadtest.generator.answers import Payloads, Reference
from loadtest.generator.http1 import HttpClient
from loadtest.generator.http2 import GrpcClient, RestClient
from loadtest.generator.open_loop import OpenLoop
from loadtest.generator.tls_session import sessions
from loadtest.generator.tunnels import through
from serving.credentials import headers_of
from serving.requests import grpc_method
from serving.target import Target

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[2]
CLASSES = 10


@contextmanager
def small_server(protocol: str, mode: str, *arguments: str) -> Iterator[tuple[Target, subprocess.Popen[str]]]:
    """A running small server and the target that describes it; it is gone afterwards."""
    script = FOLDER / ("small_grpc_server.py" if protocol == "grpc" else "small_http_server.py")
    process = subprocess.Popen([sys.executable, str(script), mode, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield target(f"127.0.0.1:{process.stdout.readline().strip()}"), process
    finally:
        process.kill()
        process.communicate()


def target(address: str) -> Target:
    return Target(
        name="pytorch",
        engine="torchserve",
        engine_version="1",
        runtime="process",
        model="digits",
        version=1,
        input_shape=(32, 32, 3),
        classes=CLASSES,
        grpc=address,
        rest=address,
    )


def write_reference(path: Path, images: int = 64) -> Path:
    """A reference of random images whose right answer is 0.1 for each class, which is what the small servers say."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    probabilities = np.full((images, CLASSES), 0.1, dtype=np.float32)
    np.savez_compressed(path, images=pixels, labels=np.zeros(images, np.int64), probabilities=probabilities)
    return path


class Load:
    """An open loop against a target, run in this process: `recording` and `kinds` say what came of it."""

    def __init__(
        self,
        where: Target,
        protocol: str,
        due: np.ndarray,
        *,
        max_in_flight: int = 1024,
        timeout_s: float = 10.0,
        keep: bool = False,
        payload: bytes | None = None,
        choice: int = 0,
        tick: Callable[[OpenLoop], None] = lambda loop: None,
    ) -> None:
        loop = OpenLoop(
            due,
            [payload if payload is not None else request(where, protocol)],
            np.full(len(due), choice, dtype=np.int64),
            np.full(len(due), keep),
            lead_in_s=0.0,
            max_in_flight=max_in_flight,
            timeout_s=timeout_s,
        )
        self.recording = loop.recording
        client: GrpcClient | HttpClient
        if protocol == "grpc":
            client = GrpcClient(
                *(where.grpc, grpc_method(where), loop.recording.finish, loop.between),
                sessions(where, protocol),
                headers_of(where),
                through(where, protocol),
            )
        else:
            of_rest = RestClient if where.http2 else HttpClient
            client = of_rest(
                *(where.rest, loop.recording.finish, loop.between, sessions(where, protocol)),
                through=through(where, protocol),
            )
        try:
            if isinstance(client, GrpcClient):
                client.open()
            else:
                client.open(4)
            self.busy = loop.run(client, lambda now: tick(loop))
        finally:
            client.close()
        self.started = loop.started
        self.due, self.sent, self.done, self.status = (view.copy() for view in self.recording.arrays())
        self.latency = self.done - self.due

    def kinds(self) -> dict[str, int]:
        """How the requests ended: "ok", "dropped" or a kind of error → count."""
        names = {0: "pending", 1: "ok", 2: "dropped", **self.recording.kinds()}
        codes, counts = np.unique(self.status, return_counts=True)
        return {names[int(code)]: int(count) for code, count in zip(codes, counts, strict=True)}


def request(where: Target, protocol: str) -> bytes:
    """One encoded request with a random image."""
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    reference = Reference.__new__(Reference)
    reference.images, reference.probabilities = images, np.full((1, CLASSES), 0.1, dtype=np.float32)
    return Payloads(reference, where, protocol, 1, 1, np.random.default_rng(0)).encoded[0]


@contextmanager
def generator(plan: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The generator as users run it: Locust in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        str(LOCUSTFILE),
        "--headless",
    ]
    command += ["-u", "1", "-r", "1", "--only-summary", "--plan", str(plan), *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=plan.parent, env={**os.environ}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def write_plan(folder: Path, where: Target, phases: Sequence[Phase], exporter_port: int = 0) -> Path:
    """A plan file whose phases write below `folder`: those without a folder of their own, into one of their name."""
    placed = [
        phase if phase.folder != Path() else replace(phase, folder=folder / "results" / phase.id) for phase in phases
    ]
    plan = Plan(
        target=where,
        reference=write_reference(folder / "reference.npz"),
        phases=tuple(placed),
        payloads=32,
        exporter_port=exporter_port,
    )
    plan.write(folder / "plan.json")
    return folder / "plan.json"
