"""Command-line flags that name engines' own programs, one for each engine that has one."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from models.problem import Problem
from serving.engines import registry


def add_flags(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Such as --tensorflow-model-server PROGRAM."""
    for engine in registry.all():
        if engine.program:
            known = f"{engine.title}'s program; default: the one on the PATH, else what stands in for it"
            parser.add_argument(_flag(engine.program), dest=engine.program, type=Path, metavar="PROGRAM", help=known)


def named(options: argparse.Namespace) -> dict[str, Path]:
    """The programs that were named, by the engine's id; raises `Problem` for one that is none."""
    found: dict[str, Path] = {}
    for engine in registry.all():
        program = getattr(options, engine.program, None) if engine.program else None
        if program:
            if not os.access(program, os.X_OK):
                raise Problem(f"{_flag(engine.program)} {program}: no executable file there")
            found[engine.id] = program
    return found


def _flag(program: str) -> str:
    return f"--{program.replace('_', '-')}"
