from __future__ import annotations

import gzip
import pickle
import struct

import numpy as np
import pytest

from models import datasets
from models.problem import Problem


def test_digits_split_is_fixed_and_whole():
    first, second = datasets.load("digits"), datasets.load("digits")
    assert first.train.images.shape == (1437, 32, 32, 3)
    assert first.test.images.shape == (360, 32, 32, 3)
    assert first.test.images.dtype == np.uint8
    assert first.test.labels.dtype == np.int64
    assert first.test.images.max() == 255
    assert first.class_names == tuple("0123456789")
    assert np.array_equal(first.test.images, second.test.images)
    assert set(first.test.labels) == set(range(10))


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(Problem, match=r"dataset 'mnist' is unknown: use one of cifar10, digits, fashion-mnist"):
        datasets.load("mnist")


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(Problem, match=r"--data-folder .*nowhere: no such folder"):
        datasets.load("cifar10", tmp_path / "nowhere")


def _write_idx(path, array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def fashion(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("t10k", 5)):
        _write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        _write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", rng.integers(0, 10, count, dtype=np.uint8))
    return tmp_path


def test_fashion_mnist_is_padded_to_32_and_three_channels(fashion):
    data = datasets.load("fashion-mnist", fashion)
    assert data.train.images.shape == (20, 32, 32, 3)
    assert data.test.images.shape == (5, 32, 32, 3)
    with gzip.open(fashion / "t10k-images-idx3-ubyte.gz") as file:
        original = np.frombuffer(file.read()[16:], np.uint8).reshape(5, 28, 28)
    for channel in range(3):
        assert np.array_equal(data.test.images[:, 2:30, 2:30, channel], original)
    assert not data.test.images[:, :2].any()
    assert not data.test.images[:, :, 30:].any()


def test_fashion_mnist_names_the_file_at_fault(fashion):
    images = fashion / "t10k-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Problem, match=r"t10k-images-idx3-ubyte.gz: cannot be read"):
        datasets.load("fashion-mnist", fashion)
    images.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    with pytest.raises(Problem, match="not a whole IDX file"):
        datasets.load("fashion-mnist", fashion)
    images.unlink()
    with pytest.raises(Problem, match="missing; install the Debian package dataset-fashion-mnist"):
        datasets.load("fashion-mnist", fashion)


def test_more_labels_than_images_is_refused(fashion):
    _write_idx(fashion / "t10k-labels-idx1-ubyte.gz", np.zeros(6, np.uint8))
    with pytest.raises(Problem, match="images for 6 labels"):
        datasets.load("fashion-mnist", fashion)


def test_no_network_says_what_to_install(monkeypatch, tmp_path):
    import keras

    def refuse():
        raise Exception("URL fetch failure on https://example.org: None -- no route to host")

    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", refuse)
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "absent")
    with pytest.raises(Problem, match=r"could not download it .*no route.*install the Debian package dataset-fashion"):
        datasets.load("fashion-mnist")


def _cifar(folder, *, binary):
    """Six batches of 4 records; returns the test batch as NHWC images and labels."""
    rng = np.random.default_rng(1)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        pixels = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        labels = rng.integers(0, 10, 4, dtype=np.uint8)
        if binary:
            (folder / f"{name}.bin").write_bytes(np.hstack([labels[:, None], pixels]).tobytes())
        else:
            # As in the published files: protocol 2, keys that Python 3 reads as bytes.
            content = pickle.dumps({b"data": pixels, b"labels": labels.tolist()}, protocol=2)
            (folder / name).write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    return pixels.reshape(4, 3, 32, 32).transpose(0, 2, 3, 1), labels


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_cifar10_reads_both_versions(tmp_path, binary, nested):
    folder = tmp_path / ("cifar-10-batches-bin" if binary else "cifar-10-batches-py") if nested else tmp_path
    folder.mkdir(exist_ok=True)
    images, labels = _cifar(folder, binary=binary)
    data = datasets.load("cifar10", tmp_path)
    assert data.train.images.shape == (20, 32, 32, 3)
    assert np.array_equal(data.test.images, images)
    assert np.array_equal(data.test.labels, labels)
    assert data.class_names[0] == "airplane"


def test_cifar10_runs_no_code_of_a_pickle(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("this must not run",)

    _cifar(tmp_path, binary=False)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}))
    with pytest.raises(Problem, match=r"test_batch: not a CIFAR-10 batch \(it names builtins.print\)"):
        datasets.load("cifar10", tmp_path)


def test_cifar10_names_the_file_at_fault(tmp_path):
    with pytest.raises(Problem, match="no test_batch"):
        datasets.load("cifar10", tmp_path)
    _cifar(tmp_path, binary=True)
    (tmp_path / "data_batch_3.bin").write_bytes(b"x" * 3072)
    with pytest.raises(Problem, match=r"data_batch_3.bin: 3072 bytes are no whole records"):
        datasets.load("cifar10", tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(Problem, match=r"data_batch_3.bin: missing"):
        datasets.load("cifar10", tmp_path)
