"""How long the model takes without a server, measured by the run itself, on the server's cores and before any load."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from models import child_environment
from models.bundle import Bundle
from serving.engines import variables
from serving.engines.model_time import Times
from serving.profile import ServingProfile

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120


class ModelTime(msgspec.Struct, frozen=True, kw_only=True):
    """Images in a batch → mean milliseconds of one call, on these cores and with so many threads; `decoding_ms`: of
    decoding as many files, where clients send such, else empty."""

    ms: dict[int, float]
    cores: tuple[int, ...]
    threads: int
    decoding_ms: dict[int, float] = {}


class NotTimed(msgspec.Struct, frozen=True):
    """Why there is no time."""

    problem: str


def measure(bundle: Bundle, engine: str, profile: ServingProfile, cores: Sequence[int]) -> ModelTime | NotTimed:
    """The time of a bundle's model as the workers of ``engine`` (its id) would call it.

    In a process of its own: the load test imports neither torch nor tensorflow. Its failure is no reason to stop a run.
    """
    batches = [size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size <= profile.max_batch_size]
    command = [sys.executable, "-m", "serving.engines.model_time", str(bundle.folder.absolute()), engine]
    command += ["--threads", str(profile.threads), "--onednn", str(profile.onednn).lower()]
    command += ["--precision", profile.precision, "--device", profile.device]
    command += ["--batches", *map(str, batches)]
    command += ["--cores", *map(str, cores)]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**variables.tuning(os.environ), **child_environment.measured()},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
            start_new_session=True,  # Ctrl-C is for this program
        )
        times = msgspec.json.decode(done.stdout.splitlines()[-1], type=Times)
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        return NotTimed(f"the model's own time could not be measured: {error}")
    return ModelTime(ms=times.ms, decoding_ms=times.decoding_ms, cores=tuple(cores), threads=profile.threads)


def mean(times: Sequence[ModelTime | NotTimed], shares: Sequence[float]) -> ModelTime | NotTimed:
    """What `measure` found of several models as that of a request of the mix: the mean of their times, weighted by the
    models' shares of the requests. The only model's own where there is one; the first problem where one failed."""
    known: list[ModelTime] = []
    for one in times:
        if isinstance(one, NotTimed):
            return one
        known.append(one)
    first, total = known[0], sum(shares)
    if len(known) == 1:
        return first
    weights = [share / total for share in shares]
    ms = _weighted([one.ms for one in known], weights)
    return msgspec.structs.replace(first, ms=ms, decoding_ms=_weighted([one.decoding_ms for one in known], weights))


def _weighted(times: Sequence[Mapping[int, float]], weights: Sequence[float]) -> dict[int, float]:
    return {size: sum(one[size] * weight for one, weight in zip(times, weights, strict=True)) for size in times[0]}
