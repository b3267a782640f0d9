"""Compile a torch.export program ahead of time to an AOTInductor package: machine code for this kind of CPU.

``python -m models.aot_inductor PROGRAM PACKAGE`` is the compilation alone, in a process of its own: it starts workers
and compilers, and leaves caches, none of which shall outlive it.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from models import child_environment
from models.problem import Problem

ROOT = Path(__file__).resolve().parent.parent


def compiler() -> str | None:
    """What the C++ compiler calls itself (``$CXX``, or g++, as PyTorch looks for it); None where there is none."""
    try:
        command = [os.environ.get("CXX", "g++"), "--version"]
        done = subprocess.run(
            command,
            env=child_environment.tool(),
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return next(iter(done.stdout.splitlines()), command[0])


def require_compiler() -> None:
    """Raises `Problem` where there is no C++ compiler."""
    if compiler() is None:
        name = os.environ.get("CXX", "g++")
        raise Problem(f"--aot: no C++ compiler ({name} does not start); install g++, or name another in CXX")


def cpu() -> str:
    """The kind of CPU that a package is compiled for, such as "x86_64 AVX512"."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def export(program: Path, package: Path) -> None:
    """Compile a program's file to a package's (.pt2). Raises `Problem` with the compiler's last words."""
    package.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tandem-aot-") as scratch:
        environment = {**child_environment.tool(), "TMPDIR": scratch, "TORCHINDUCTOR_CACHE_DIR": f"{scratch}/inductor"}
        command = [sys.executable, "-m", "models.aot_inductor", str(program.resolve()), str(package.resolve())]
        output = _run(command, environment)
    if not package.is_file():
        raise Problem(
            f"AOTInductor could not compile {program.name} with {compiler()}; export without --aot", output[-10:]
        )


def load(package: Path, made_for: str | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """Load what `export` wrote: uint8 images [N, H, W, C] -> float32 probabilities [N, classes].

    Raises `Problem` on another kind of CPU than ``made_for``, whose instructions this one may not have.
    """
    if made_for != cpu():
        raise Problem(f"{package}: compiled for {made_for}, and this is {cpu()}; export with --aot on this machine")
    from torch._inductor import aoti_load_package, config

    with config.patch({"cpp.vec_isa_ok": True}):  # else it compiles programs to find out what `cpu` has told already
        model: Callable[[torch.Tensor], torch.Tensor] = aoti_load_package(str(package))
    return model


def _run(command: list[str], environment: dict[str, str]) -> list[str]:
    """Lines of a command's output, from its own process group, which does not outlive this call."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return output.splitlines()


def _compile(program: str, package: str) -> None:
    torch._inductor.aoti_compile_and_package(torch.export.load(program), package_path=package)


if __name__ == "__main__":
    _compile(*sys.argv[1:])
