"""How long the model takes without a server, measured by the run itself, on the server's cores and before any load."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.bundle import Bundle
from serving.profile import ServingProfile

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120


def measure(bundle: Bundle, stack: str, profile: ServingProfile, cores: Sequence[int]) -> dict[str, Any]:
    """{"ms": images in a batch → mean milliseconds of one call, "cores", "threads"}; or {"problem": why there is none}.

    In a process of its own: the load test imports neither torch nor tensorflow. Its failure is no reason to stop a run.
    """
    batches = [size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size <= profile.max_batch_size]
    command = [sys.executable, "-m", "serving.bench.model_time", str(bundle.folder), stack]
    command += ["--threads", str(profile.threads), "--batches", *map(str, batches)]
    command += ["--cores", *map(str, cores)]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
            start_new_session=True,  # Ctrl-C is for this program
        )
        milliseconds = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        return {"problem": f"the model's own time could not be measured: {error}"}
    return {"ms": milliseconds, "cores": list(cores), "threads": profile.threads}


def mean(times: Sequence[dict[str, Any]], shares: Sequence[float]) -> dict[str, Any]:
    """What `measure` found of several models as that of a request of the mix: the mean of their times, weighted by the
    models' shares of the requests. The only model's own where there is one; the first problem where one failed."""
    failed = [one for one in times if "ms" not in one]
    if failed or len(times) == 1:
        return failed[0] if failed else times[0]
    total = sum(shares)
    ms = {
        size: sum(share * one["ms"][size] for one, share in zip(times, shares, strict=True)) / total
        for size in times[0]["ms"]
    }
    return {**times[0], "ms": ms}
