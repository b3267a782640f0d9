"""The Python packages of an image, fetched by this machine's pip: its mirrors, proxy and certificates apply, and none
of them gets into a layer. The build itself then needs no network."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from models import child_environment
from models.problem import Problem

DOCKER = Path(__file__).resolve().parents[3] / "docker"
TORCH_INDEX = "https://download.pytorch.org/whl"
TORCH_BUILDS = ("cpu", "cu126", "cu130")
STAMP = ".complete"


def fetch(image: str, torch: str = "cpu") -> Path:
    """Have the wheels of ``docker/requirements/<image>.lock`` in ``docker/wheels/<image>``; returns that folder.

    ``torch``: PyTorch's build, one of TORCH_BUILDS. Raises `Problem`, with pip's last words, where a package is not to
    be had.
    """
    lock = DOCKER / "requirements" / f"{image}.lock"
    folder = DOCKER / "wheels" / image
    pins = lock.read_text()
    needs_torch = "\ntorch==" in pins
    digest = hashlib.sha256(f"{pins}{torch if needs_torch else ''}".encode()).hexdigest()
    stamp = folder / STAMP
    if stamp.is_file() and stamp.read_text() == digest:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    print(f"fetching the packages of {image}", file=sys.stderr, flush=True)
    attempts: list[list[str]] = [[]]
    if needs_torch:
        # Where this machine's pip knows the build already, PyTorch's own index need not be reached.
        pins = "\n".join(f"{line}+{torch}" if line.startswith("torch==") else line for line in pins.splitlines())
        attempts.append(["--extra-index-url", f"{TORCH_INDEX}/{torch}"])
    # The lock is complete, but for the libraries that a CUDA build of torch brings.
    complete = [] if needs_torch and torch != "cpu" else ["--no-deps"]
    for options in attempts:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--progress-bar=off"]
        command += [*complete, *options, "--wheel-dir", str(folder), "--requirement", "/dev/stdin"]
        done = subprocess.run(
            command, env=child_environment.pip(), input=pins, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            stamp.write_text(digest)
            return folder
    last = done.stderr.splitlines()[-8:]
    raise Problem(f"the packages of {lock} cannot be fetched; pip's last words are above", last)
