"""Data sets as uint8 images [N, 32, 32, 3], whatever form they come in."""

from __future__ import annotations

import contextlib
import gzip
import pickle
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.problem import Problem

IMAGE_SHAPE = (32, 32, 3)
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


@dataclass(frozen=True)
class Split:
    """``images`` uint8 [N, 32, 32, 3] with values 0-255, ``labels`` int64 [N]."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """A data set with its fixed training and test splits."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split


def names() -> list[str]:
    """The names that `load` knows."""
    return sorted(_LOADERS)


def load(name: str, folder: Path | None = None) -> Dataset:
    """Load the data set ``name``, from ``folder`` where given, else from its usual place.

    Raises `Problem` for an unknown name, and for files that are missing, damaged or cannot be downloaded.
    """
    if name not in _LOADERS:
        raise Problem(f"dataset {name!r} is unknown: use one of {', '.join(names())}")
    if folder is not None and not folder.is_dir():
        raise Problem(f"--data-folder {folder}: no such folder")
    class_names, splits = _LOADERS[name](folder)
    checked = [_checked(name, images, labels, len(class_names)) for images, labels in splits]
    return Dataset(name, tuple(class_names), *checked)


Loaded = tuple[tuple[str, ...], list[tuple[np.ndarray, np.ndarray]]]


def _checked(name: str, images: np.ndarray, labels: np.ndarray, classes: int) -> Split:
    images, labels = np.ascontiguousarray(images), labels.astype(np.int64).reshape(-1)
    if images.shape != (len(labels), *IMAGE_SHAPE) or images.dtype != np.uint8 or not len(labels):
        raise Problem(f"dataset {name}: {images.shape} {images.dtype} images for {len(labels)} labels; get it again")
    if labels.min() < 0 or labels.max() >= classes:
        raise Problem(f"dataset {name}: a label lies outside 0-{classes - 1}; get the files again")
    return Split(images, labels)


def _digits(folder: Path | None) -> Loaded:
    """scikit-learn's 1,797 digits of 8x8; every pixel becomes 4x4. 360 of them, drawn once for all, are the test."""
    from sklearn.datasets import load_digits

    if folder is not None:
        raise Problem("--data-folder: the digits data set is part of scikit-learn and takes no folder")
    digits = load_digits()
    gray = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = _three_channels(np.kron(gray, np.ones((1, 4, 4), np.uint8)))
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:360], order[360:]
    splits = [(images[rows], digits.target[rows]) for rows in (train, test)]
    return tuple(str(digit) for digit in range(10)), splits


def _fashion_mnist(folder: Path | None) -> Loaded:
    """Zalando's Fashion-MNIST: 60,000 + 10,000 gray images of 28x28, padded with black."""
    source = folder or (DEBIAN_FASHION_MNIST if DEBIAN_FASHION_MNIST.is_dir() else None)
    if source is not None:
        splits = [
            (_idx(source / f"{part}-images-idx3-ubyte.gz", 3), _idx(source / f"{part}-labels-idx1-ubyte.gz", 1))
            for part in ("train", "t10k")
        ]
    else:
        splits = _keras("fashion_mnist", "install the Debian package dataset-fashion-mnist")
    padded = [
        (_three_channels(np.pad(images, ((0, 0), (2, 2), (2, 2)))), labels)
        for images, labels in splits
        if images.ndim == 3
    ]
    return FASHION_MNIST_CLASSES, padded


def _cifar10(folder: Path | None) -> Loaded:
    """Krizhevsky's CIFAR-10, from Keras' downloader or a folder with its python or its binary version."""
    if folder is None:
        return CIFAR10_CLASSES, _keras("cifar10", "get cifar-10-python.tar.gz elsewhere, unpack it, pass --data-folder")
    for place in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        for suffix, read in (("", _cifar_python), (".bin", _cifar_binary)):
            if (place / f"test_batch{suffix}").exists():
                train = [read(place / f"data_batch_{number}{suffix}") for number in range(1, 6)]
                images, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
                return CIFAR10_CLASSES, [(images, labels), read(place / f"test_batch{suffix}")]
    raise Problem(f"--data-folder {folder}: no test_batch (python version) or test_batch.bin (binary version) in it")


_LOADERS: dict[str, Callable[[Path | None], Loaded]] = {
    "cifar10": _cifar10,
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
}


def _three_channels(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., np.newaxis], 3, axis=3)


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """Read a gzipped IDX file of bytes: 0, 0, 8, the number of dimensions, their sizes (big-endian), the values."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise Problem(f"{path}: missing; install the Debian package dataset-fashion-mnist") from None
    except (OSError, EOFError, zlib.error) as error:
        raise Problem(f"{path}: cannot be read ({error}); get the file again") from None
    header = 4 + 4 * dimensions
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], ">u4"))
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) - header != np.prod(shape):
        raise Problem(f"{path}: not a whole IDX file of bytes; get the file again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles CIFAR-10's batches and refuses to run any other code that a pickle could name."""

    _ALLOWED = frozenset(
        {("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module.removeprefix("numpy.core.").removeprefix("numpy._core."), name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


def _cifar_python(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        images = np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return images, np.asarray(batch[b"labels"], np.int64)
    except FileNotFoundError:
        raise Problem(f"{path}: missing; unpack cifar-10-python.tar.gz again") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise Problem(f"{path}: not a CIFAR-10 batch ({error}); unpack cifar-10-python.tar.gz again") from None


def _cifar_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Records of one label byte and 3,072 pixel bytes (channel, row, column)."""
    try:
        content = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise Problem(f"{path}: missing; unpack cifar-10-binary.tar.gz again") from None
    if not len(content) or len(content) % 3073:
        raise Problem(f"{path}: {len(content)} bytes are no whole records of 3073; unpack cifar-10-binary.tar.gz again")
    records = content.reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def _keras(name: str, instead: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Download with Keras, or read what it downloaded before."""
    from keras import datasets

    try:
        with contextlib.redirect_stdout(sys.stderr):  # its progress bar
            train, test = getattr(datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise Problem(f"dataset {name}: Keras could not download it ({error}); {instead}") from None
    return [train, test]
