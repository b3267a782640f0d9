"""The bundle: one model's artifacts and the manifest that vouches for them. Imports no deep-learning library."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from models import whole_file
from models.encoding import Encoding
from models.precision import Precision
from models.problem import Problem

FORMAT = 1
MANIFEST = "manifest.json"


class Weights(StrEnum):
    """Where a bundle's weights come from: training, a seed (untrained), the user's checkpoint, the user's factory
    (trained or not), or the file that the user's whole model is in."""

    TRAINED = "trained"
    SEEDED = "seeded"
    CHECKPOINT = "checkpoint"
    FACTORY = "factory"
    FILE = "file"


class Kind(StrEnum):
    """What a file of the user's is."""

    SAVEDMODEL = "savedmodel"
    TORCHSCRIPT = "torchscript"
    ONNX = "onnx"


class Around(StrEnum):
    """What a graph of Tandem's does around a file's own, which it calls unchanged.

    RENAMED      input and output go by the names of the wire
    CAST         pixels become the number type that it takes, or its answers float32
    NORMALISED   pixels are scaled as it was trained with
    TRANSPOSED   channels first
    SOFTMAX      its answers are logits
    """

    RENAMED = "renamed"
    CAST = "cast"
    NORMALISED = "normalised"
    TRANSPOSED = "transposed"
    SOFTMAX = "softmax"


class WhyLeftOut(StrEnum):
    """Why the parity gate could not ask an export.

    NO_KERNEL  its runtime has no kernel for an operator in the bundle's precision, on a CPU
    """

    NO_KERNEL = "no-kernel"


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder and its manifest. `load` gives one whose files are proven unchanged."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def model(self) -> str:
        """The model's name, which is the servable's name."""
        return str(self.manifest["model"])

    @property
    def version(self) -> int:
        """The servable's version, 1 or more."""
        return int(self.manifest["version"])

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one uint8 image."""
        height, width, channels = self.manifest["input"]["shape"][1:]
        return height, width, channels

    @property
    def classes(self) -> int:
        """Class probabilities in one answer."""
        return int(self.manifest["output"]["shape"][1])

    @property
    def class_names(self) -> list[str]:
        """The classes' names, in the order of the probabilities."""
        return list(self.manifest["dataset"]["class_names"])

    @property
    def dataset(self) -> str:
        """The name of the data set, or of the folder of images, that proves and loads it."""
        return str(self.manifest["dataset"]["name"])

    @property
    def weights(self) -> Weights:
        """Where the weights come from; bundles of before that was said were trained."""
        return Weights(self.manifest.get("weights", Weights.TRAINED))

    @property
    def own_files(self) -> dict[str, Any]:
        """Files of the user's own that are part of it, by kind, as `models.own_files.Files.record` tells of each."""
        return dict(self.manifest.get("own_files", {}))

    @property
    def precision(self) -> Precision:
        """What its graphs compute in; those of bundles of before that was said, in float32."""
        return Precision(self.manifest.get("precision", Precision.FP32))

    @property
    def encoding(self) -> Encoding:
        """The files that its images come in; those of most bundles are tensors."""
        return Encoding(self.manifest.get("encoding", {}).get("format", Encoding.NONE))

    @property
    def left_out(self) -> Mapping[str, WhyLeftOut]:
        """The exports that the parity gate could not ask, and why."""
        found = self.manifest.get("parity", {}).get("left_out", {})
        return {name: WhyLeftOut(entry["why"]) for name, entry in found.items()}

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest file, which holds the SHA-256 of every other file."""
        return sha256(self.folder / MANIFEST)

    @property
    def checkpoint(self) -> Path:
        """The weights, as PyTorch saves them."""
        return self.folder / "checkpoint.pt"

    @property
    def torchscript(self) -> Path:
        """The traced and frozen TorchScript file."""
        return self.folder / "torchscript" / "model.pt"

    @property
    def program(self) -> Path:
        """The torch.export program; bundles of an earlier Tandem have none."""
        return self.folder / "torch_export" / "model.pt2"

    @property
    def compiled_program(self) -> Path:
        """The AOTInductor package, machine code for one kind of CPU; there where the export was asked for it."""
        return self.folder / "aot_inductor" / "model.pt2"

    @property
    def compiled_for(self) -> str | None:
        """The kind of CPU that the AOTInductor package is for; None in a bundle without one."""
        cpu: str | None = self.manifest.get("aot_inductor", {}).get("cpu")
        return cpu

    @property
    def archive(self) -> Path:
        """The TorchServe archive."""
        return self.folder / "torchserve" / f"{self.model}.mar"

    @property
    def onnx(self) -> Path:
        """The ONNX file."""
        return self.folder / "onnx" / "model.onnx"

    @property
    def savedmodel(self) -> Path:
        """TensorFlow Serving's base path: the folder that holds ``<version>/saved_model.pb``."""
        return self.folder / "savedmodel"

    @property
    def reference(self) -> Path:
        """``images``, ``labels`` and eager PyTorch's ``probabilities`` of the whole test split (NumPy archive);
        where clients send files also these, ``encoded`` and ``offsets``."""
        return self.folder / "reference.npz"


def load(folder: Path) -> Bundle:
    """Open a bundle and check the hash of every file; raises `Problem` that names the file at fault."""
    bundle = _read(folder)
    hashes = bundle.manifest["files"]
    present = set(_files(folder))
    for name in sorted(set(hashes) | present):
        if name not in present:
            raise Problem(f"{folder / name}: missing from the bundle; delete {folder} and export again")
        if name not in hashes:
            raise Problem(f"{folder / name}: not part of the bundle; delete the file")
        if sha256(folder / name) != hashes[name]:
            raise Problem(f"{folder / name}: changed since the export; delete {folder} and export again")
    return bundle


def versions(artifacts: Path, model: str) -> list[int]:
    """The versions of ``model`` in ``artifacts``, oldest first."""
    folders = (artifacts / model).glob("[1-9]*")
    return sorted(int(folder.name) for folder in folders if folder.name.isdecimal() and (folder / MANIFEST).is_file())


def find(
    artifacts: Path,
    model: str,
    dataset: str,
    *,
    training: Mapping[str, Any] | None = None,
    libraries: Mapping[str, str] | None = None,
    sources: str | None = None,
    compiled_for: str | None = None,
    precision: Precision | None = None,
) -> Bundle | None:
    """The newest bundle of ``model`` trained on ``dataset``, or None.

    training      settings that must agree, such as ``{"seed": 0}``; others do not matter
    libraries     the libraries' versions that must agree
    sources       digest of the code that exports and serves it
    compiled_for  the kind of CPU that it must hold an AOTInductor package for
    precision     what its graphs must compute in
    Raises `Problem` where the bundle found is damaged.
    """
    for version in reversed(versions(artifacts, model)):
        bundle = _read(artifacts / model / str(version))
        manifest = bundle.manifest
        if (
            manifest["dataset"]["name"] == dataset
            and _agrees(manifest["training"], training)
            and _agrees(manifest["libraries"], libraries)
            and sources in (None, manifest["sources"])
            and compiled_for in (None, bundle.compiled_for)
            and precision in (None, bundle.precision)
        ):
            return load(bundle.folder)
    return None


@contextmanager
def writing(artifacts: Path, manifest: dict[str, Any]) -> Iterator[Bundle]:
    """Write a new bundle: the ``with`` block fills the folder of the `Bundle` that it gets and may add to its manifest.

    ``manifest`` names at least "model"; "version" is added, the next free one. At the end of the block the hashes and
    the manifest are written and the folder appears under its final name; after an error nothing is left.
    """
    with whole_file.within(artifacts / manifest["model"]) as parent, _staged(parent, manifest) as bundle:
        yield bundle


@contextmanager
def _staged(parent: Path, manifest: dict[str, Any]) -> Iterator[Bundle]:
    manifest = {"format": FORMAT, **manifest}
    manifest["version"] = version = _next_version(parent)
    staging = Path(tempfile.mkdtemp(prefix=".export-", dir=parent))
    try:
        staging.chmod(0o755)  # mkdtemp's folders are private; servers may run as another user
        bundle = Bundle(staging, manifest)
        yield bundle
        manifest["files"] = {name: sha256(staging / name) for name in _files(staging)}
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        try:
            os.rename(staging, parent / str(version))
        except OSError:
            raise Problem(f"{parent / str(version)}: another export wrote it meanwhile; export again") from None
    except OSError as error:  # of a folder that is gone, or of none: a write that fails names no file
        if str(staging) in str(error.filename or staging):
            error.filename, error.filename2 = str(parent / str(version)), None
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _next_version(parent: Path) -> int:
    taken = [int(folder.name) for folder in parent.iterdir() if folder.name.isdecimal()]
    return max(taken, default=0) + 1


def _files(folder: Path) -> list[str]:
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if path != MANIFEST)


def _agrees(values: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    return all(values.get(key) == value for key, value in (wanted or {}).items())


def _read(folder: Path) -> Bundle:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        if manifest["format"] != FORMAT:
            raise Problem(f"{path}: format {manifest['format']}, this program reads {FORMAT}; export again")
        bundle = Bundle(folder, manifest)
        _ = (bundle.model, bundle.version, bundle.input_shape, bundle.classes, bundle.class_names, bundle.compiled_for)
        _ = (bundle.weights, bundle.own_files, bundle.precision, bundle.left_out, bundle.encoding)
        _ = (
            manifest["files"].items(),
            manifest["training"].items(),
            manifest["libraries"].items(),
            manifest["sources"],
        )
    except FileNotFoundError:
        raise Problem(f"{folder}: no bundle there (no {MANIFEST}); run python -m models export") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Problem(f"{path}: not a bundle's manifest ({error!r}); delete {folder} and export again") from None
    return bundle
