"""Which program runs for an engine that has one of its own: as the user says, else one that is installed, else the one
that `obtain` has fetched."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from serving.engines.engine import Download, Engine, Wheel
from serving.engines.programs import absolute, executable
from serving.runtimes.containers import base_images
from serving.runtimes.containers.image_reference import ImageReference

STAND_IN = "embedded"
"""What an engine's variable says (see `Download`) where what stands in for it is wanted."""


def find(engine: Engine, programs: Mapping[str, Path] = MappingProxyType({})) -> Path | None:
    """The program of ``engine``: the one named in ``programs`` (by the engine's id), else by its variable, else that on
    the PATH, else the fetched one. None where it has none of its own, where there is none, or where none is wanted.
    Raises `Problem` where the variable names none."""
    if engine.id in programs:
        return programs[engine.id]
    if isinstance(engine.download, Wheel):
        return fetched(engine)
    if not engine.program:
        return None
    if engine.download and (chosen := os.environ.get(engine.download.variable)):
        return None if chosen == STAND_IN else executable(Path(chosen), engine.download.variable)
    on_path = shutil.which(engine.program)
    return absolute(Path(on_path)) if on_path else fetched(engine)


def stand_in_is_wanted(engine: Engine) -> bool:
    """Whether the engine's variable asks for what stands in for it."""
    return isinstance(engine.download, Download) and os.environ.get(engine.download.variable) == STAND_IN


def fetched(engine: Engine) -> Path | None:
    """The program in the cache, of the image or the wheel that is pinned today; None where there is none."""
    if isinstance(engine.download, Wheel):
        program = unpacked(engine.download) / engine.download.program
    elif engine.download:
        program = folder(engine.download) / engine.program
    else:
        return None
    return program if os.access(program, os.X_OK) and program.is_file() else None


def image(download: Download) -> str:
    """The image that has the program, as it is pinned: with its tag, and its digest where that is known."""
    return base_images.reference(download.image, base_images.variables())


def folder(download: Download) -> Path:
    """The image's folder in the cache, which all checkouts of this user share."""
    reference = ImageReference.parse(image(download))
    name = f"{reference.repository}-{reference.tag}"
    digest = reference.digest.removeprefix("sha256:")[:16]
    return cache() / re.sub(r"[^A-Za-z0-9._-]", "-", f"{name}-{digest}" if digest else name)


def pinned(wheel: Wheel) -> str:
    """The requirement that a wheel's lock file pins: "nvidia-pytriton==0.7.0"."""
    lines = (line.partition("#")[0].split() for line in wheel.lock.read_text().splitlines())
    return next(words[0] for words in lines if words and "==" in words[0])


def unpacked(wheel: Wheel) -> Path:
    """The folder in the cache that holds what was in a wheel, which all checkouts of this user share."""
    return cache() / pinned(wheel).replace("==", "-")


def cache() -> Path:
    """~/.cache/tandem, or where XDG_CACHE_HOME says (https://specifications.freedesktop.org/basedir-spec)."""
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = Path("/", os.path.expanduser("~"))
    return (chosen if chosen.is_absolute() else home / ".cache") / "tandem"
