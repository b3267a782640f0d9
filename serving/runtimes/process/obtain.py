"""Obtains an engine's own program from its published image, without a container engine, once for all checkouts."""

from __future__ import annotations

import errno
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from models import child_environment, whole_file
from models.problem import Problem
from serving.engines import registry
from serving.engines.engine import Download, Engine
from serving.runtimes.containers import image_file, oci
from serving.runtimes.containers.image_file import DamagedLayer
from serving.runtimes.containers.image_reference import ImageReference
from serving.runtimes.process import own_program
from serving.runtimes.process.download_bar import DownloadProgress
from serving.runtimes.process.one_at_a_time import alone
from serving.target import WhyStandIn

PLATFORMS = {"x86_64": oci.Platform("linux", "amd64"), "aarch64": oci.Platform("linux", "arm64")}
"""A kind of machine, as `platform.machine` says, in the words of images."""
ORIGIN = "origin.json"
_UNTRIED = ".untried"
_FULL = (errno.ENOSPC, errno.EDQUOT)
# What glibc's loader says of a program that needs a newer one.
_NEWER = re.compile(r"version `GLIBC_(\d+(?:\.\d+)*)' not found")


class NotObtained(Exception):
    """An engine's own program cannot be had, or does not run here; ``detail``: as the system or a registry says it."""

    def __init__(self, why: WhyStandIn, detail: str = "") -> None:
        super().__init__(f"{why.value}: {detail}")
        self.why, self.detail = why, detail


@dataclass(frozen=True)
class Absent:
    """An engine whose own program is not at hand, why, and what stands in for it."""

    engine: Engine
    stand_in: Engine
    why: WhyStandIn
    detail: str = ""


def provide(engines: Iterable[Engine], programs: Mapping[str, Path] = MappingProxyType({})) -> list[Absent]:
    """Have the own programs of ``engines`` at hand, obtained where need be; returns those that are not.

    ``programs``: those that the user named, by the engine's id. An engine that nothing stands in for, and one that is
    to be had nowhere, are left to whoever starts them.
    """
    absent = []
    for engine in {one.id: one for one in engines}.values():
        stand_in = registry.stand_in(engine)
        if not isinstance(engine.download, Download) or stand_in is None:
            continue
        found = own_program.find(engine, programs)
        if found and found != own_program.fetched(engine):
            continue
        if own_program.stand_in_is_wanted(engine):
            absent.append(Absent(engine, stand_in, WhyStandIn.ASKED))
            continue
        try:
            obtain(engine)
        except NotObtained as reason:
            absent.append(Absent(engine, stand_in, reason.why, reason.detail))
    return absent


def obtain(engine: Engine, progress: DownloadProgress | None = None, patience_s: float = oci.PATIENCE_S) -> Path:
    """The program of ``engine``, which has a `Download`: that in the cache, or fetched into it and tried.

    Raises `NotObtained`, at the latest ``patience_s`` seconds after the last news from the registry; what has come by
    then is kept, and the next call goes on with it. Raises `Problem` where the pinned image's name or the mirror's
    address is no such thing.
    """
    download = engine.download
    assert isinstance(download, Download)
    progress = progress or DownloadProgress()
    _require_machine(download)
    folder = own_program.folder(download)
    program, untried = folder / engine.program, folder / f"{engine.program}{_UNTRIED}"
    if own_program.fetched(engine) and _starts(engine, program):
        return program
    try:
        with alone(folder, progress):
            if own_program.fetched(engine) and _starts(engine, program):  # of another run just now
                return program
            if program.exists():  # it does not start any more
                program.replace(untried)
            elif not untried.exists():
                _fetch(engine, download, untried, progress, patience_s)
            version = _require_start(engine, untried)
            untried.replace(program)
            progress.say(f"{engine.title} {version} is in {program}")
    except OSError as error:
        if error.errno in _FULL:
            raise NotObtained(WhyStandIn.NO_SPACE, str(folder)) from None
        raise NotObtained(WhyStandIn.NOT_WRITABLE, f"{error.filename or folder}: {error.strerror or error}") from None
    return program


def _require_machine(download: Download) -> None:
    if platform.system() != "Linux" or platform.machine() != download.machine:
        raise NotObtained(WhyStandIn.MACHINE, f"{platform.system()} {platform.machine()}")
    library, version = platform.libc_ver()
    if library != "glibc":
        raise NotObtained(WhyStandIn.C_LIBRARY, f"{library or 'no glibc'} {version}".strip())


def _fetch(engine: Engine, download: Download, target: Path, progress: DownloadProgress, patience_s: float) -> None:
    """Write the program to ``target``: whole or, where this raises, not at all."""
    name = own_program.image(download)
    patience = oci.Patience(patience_s)
    with oci.Repository(ImageReference.parse(name), patience) as repository:
        try:
            image = repository.image(PLATFORMS[download.machine])
            for layer in image_file.candidates(image.layers, download.file):
                progress.say(
                    f"{engine.title}, once, from {name.partition('@')[0]} at {repository.host} "
                    f"({download.variable}={own_program.STAND_IN}: without it)"
                )
                kept = _layer(repository, layer.blob, target.parent, progress)
                if _taken(kept, download.file, target, progress):
                    origin = {"image": name, "digest": image.digest, "layer": layer.blob.digest}
                    whole_file.write_json(target.with_name(ORIGIN), {**origin, "fetched_at": time.time()})
                    return
                patience.renew()
        except oci.RegistryFault as fault:
            raise NotObtained(WhyStandIn(fault.why.value), fault.detail) from None
        except DamagedLayer as error:
            raise NotObtained(WhyStandIn.NOT_UNDERSTOOD, f"{name}: {error}") from None
    raise NotObtained(WhyStandIn.NOT_IN_IMAGE, f"{download.file} in {name}")


def _layer(repository: oci.Repository, blob: oci.Descriptor, folder: Path, progress: DownloadProgress) -> Path:
    """A layer as a file in ``folder``, from where an earlier attempt left it."""
    kept = folder / f"{blob.digest.replace(':', '-')}.layer"
    there = kept.stat().st_size if kept.exists() else 0
    of_it = f", of which {there / 1e6:,.0f} MB are here already" if there else ""
    progress.say(f"{blob.size / 1e6:,.0f} MB{of_it}, into {folder}")
    try:
        with progress.bar(blob.size, there) as bar:
            repository.fetch(blob, kept, bar.advance)
    except OSError as error:
        if error.errno in _FULL:  # so that others can write again
            kept.unlink(missing_ok=True)
        raise
    return kept


def _taken(layer: Path, file: str, target: Path, progress: DownloadProgress) -> bool:
    """Take a file out of ``layer``, which is gone afterwards, to ``target``; whether it was there."""
    progress.say(f"taking {file} out of it")
    partial = target.with_name(f"{target.name}.partial")
    try:
        found = image_file.extract(layer, file, partial)
        if found:
            partial.replace(target)
    except (DamagedLayer, OSError):  # such as of a full disk
        layer.unlink(missing_ok=True)
        raise
    finally:
        partial.unlink(missing_ok=True)
    layer.unlink()
    return found


def _starts(engine: Engine, program: Path) -> bool:
    try:
        engine.version(program)
    except Problem:
        return False
    return True


def _require_start(engine: Engine, program: Path) -> str:
    """The version that the program gives. Raises `NotObtained`."""
    try:
        return engine.version(program)
    except Problem:
        said = _loader_says(program)
        if needed := _NEWER.findall(said):
            newest = max(needed, key=lambda version: [int(part) for part in version.split(".")])
            have = platform.libc_ver()[1]
            raise NotObtained(WhyStandIn.C_LIBRARY, f"glibc {have}, and it needs {newest}") from None
        missing = next((line.strip() for line in said.splitlines() if "not found" in line), f"{program} --version")
        raise NotObtained(WhyStandIn.DOES_NOT_START, missing) from None


def _loader_says(program: Path) -> str:
    """What the dynamic loader says of a program and its libraries, as `ldd` asks it: nothing of the program runs."""
    environment = {**child_environment.measured(), "LD_TRACE_LOADED_OBJECTS": "1"}
    try:
        done = subprocess.run([program], env=environment, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stderr + done.stdout).decode("utf-8", "replace")
