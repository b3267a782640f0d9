"""Command-line flags that name engines' own programs, one for each engine that has one."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from models.problem import Problem
from serving.engines import registry


def add_flags(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Such as --tensorflow-model-server PROGRAM."""
    for engine in registry.all():
        if engine.program:
            known = f"{engine.title}'s program; default: that on the PATH, or fetched, else what stands in for it"
            parser.add_argument(_flag(engine.program), dest=engine.program, type=Path, metavar="PROGRAM", help=known)


def named(options: argparse.Namespace) -> dict[str, Path]:
    """The programs that were named, by the engine's id, each by its absolute path; raises `Problem` for one that is
    none."""
    found: dict[str, Path] = {}
    for engine in registry.all():
        program = getattr(options, engine.program, None) if engine.program else None
        if program:
            found[engine.id] = executable(program, _flag(engine.program))
    return found


def executable(given: Path, flag: str) -> Path:
    """The file that was meant: from the working folder, which servers do not run in, else, a mere name, on the PATH.
    Raises `Problem`, which says that ``flag`` (or a variable) names it."""
    found = shutil.which(str(given.expanduser().absolute())) or shutil.which(str(given))
    if not found:
        raise Problem(f"{flag} {given}: no executable file there")
    return absolute(Path(found))


def absolute(program: Path) -> Path:
    """The same file from any folder; the last part of its path may be a link, whose name decides what it does."""
    return program.parent.resolve() / program.name


def _flag(program: str) -> str:
    return f"--{program.replace('_', '-')}"
