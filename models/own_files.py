"""Files of a user's own model, before a deep-learning library opens them, and what was put around them."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.bundle import Around, sha256
from models.problem import Problem

SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
WRITE_SAVEDMODEL = "write one with model.export(folder) of Keras, or tf.saved_model.save(model, folder)"
WRITE_TORCHSCRIPT = "write one with torch.jit.trace(model, example).save(file)"


@dataclass(frozen=True)
class Files:
    """A file of the user's, or a folder: ``sha256`` by the name of each file, below ``path`` where that is a folder."""

    path: Path
    sha256: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 over the names and contents of all files."""
        lines = (f"{name} {self.sha256[name]}\n" for name in sorted(self.sha256))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def record(self, around: Sequence[Around] = ()) -> dict[str, Any]:
        """The manifest's entry: its name, its files, and what was put around it; nothing: it is served as it came."""
        return {"name": self.path.name, "sha256": dict(self.sha256), "around": [what.value for what in around]}


def savedmodel(folder: Path) -> Files:
    """A SavedModel's folder. Raises `Problem` for anything else."""
    label = f"SAVEDMODEL={folder}"
    if not folder.exists():
        raise Problem(f"{label}: no such folder")
    if not folder.is_dir():
        kind = "a file of Keras" if folder.suffix in KERAS_SUFFIXES else "a file"
        raise Problem(f"{label}: {kind} and no SavedModel's folder; {WRITE_SAVEDMODEL}")
    if not _is_savedmodel(folder):
        below = sorted(path.name for path in folder.iterdir() if path.is_dir() and _is_savedmodel(path))
        if below:
            raise Problem(
                f"{label}: a folder of versions ({', '.join(below)}); name one: SAVEDMODEL={folder / below[-1]}"
            )
        raise Problem(f"{label}: no SavedModel ({SAVED_MODEL[0]} is missing); {WRITE_SAVEDMODEL}")
    return Files(folder, hashes(folder))


def torchscript(path: Path) -> Files:
    """A TorchScript archive. Raises `Problem` for anything else, running none of it."""
    label = f"TORCHSCRIPT={path}"
    _check_file(label, path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError):  # the latter for a kind of archive that Python cannot read
        raise Problem(f"{label}: not a TorchScript archive, or a truncated one; {WRITE_TORCHSCRIPT}") from None
    if not any(name.startswith("code/") for name in names):
        kind = "a checkpoint (use CHECKPOINT=)" if "data.pkl" in names else "another archive"
        raise Problem(f"{label}: {kind} and no TorchScript archive; {WRITE_TORCHSCRIPT}")
    return Files(path, {path.name: sha256(path)})


def onnx(path: Path) -> Files:
    """An ONNX file, which `models.onnx_reading` reads. Raises `Problem` where there is none."""
    _check_file(f"ONNX={path}", path)
    return Files(path, {path.name: sha256(path)})


def copy(files: Files, path: Path) -> None:
    """Copy a file as it is. Raises `Problem` where it is not the one that was read any more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(files.path, path)
    if sha256(path) != files.sha256[files.path.name]:
        raise Problem(f"{files.path}: changed while it was read; start again")


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, by its name there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def _is_savedmodel(folder: Path) -> bool:
    return any((folder / name).is_file() for name in SAVED_MODEL)


def _check_file(label: str, path: Path) -> None:
    if not path.exists():
        raise Problem(f"{label}: no such file")
    if not path.is_file():
        raise Problem(f"{label}: a folder; name the file")
