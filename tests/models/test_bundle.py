from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from models import bundle as bundles
from models.problem import Problem


def _manifest(dataset="digits", seed=0, **more):
    return {
        "model": "net",
        "dataset": {"name": dataset, "class_names": ["a", "b"], "train_samples": 3, "test_samples": 2},
        "input": {"name": "images", "dtype": "uint8", "shape": [None, 8, 6, 3]},
        "output": {"name": "probabilities", "dtype": "float32", "shape": [None, 2]},
        "training": {"seed": seed, "epochs": 1},
        "libraries": {"torch": "2"},
        "sources": "abc",
        **more,
    }


def _write(artifacts, **more):
    with bundles.writing(artifacts, _manifest(**more)) as bundle:
        bundle.checkpoint.write_bytes(b"weights")
        bundle.onnx.parent.mkdir()
        bundle.onnx.write_bytes(b"graph")
        bundle.manifest["parity"] = {"samples": 2}
    return artifacts / "net" / str(bundle.version)


def test_bundle_is_written_whole_and_reads_back(tmp_path):
    folder = _write(tmp_path)
    assert folder == tmp_path / "net" / "1"
    bundle = bundles.load(folder)
    assert (bundle.model, bundle.version, bundle.input_shape, bundle.classes) == ("net", 1, (8, 6, 3), 2)
    assert bundle.class_names == ["a", "b"]
    assert bundle.manifest["parity"] == {"samples": 2}
    assert set(bundle.manifest["files"]) == {"checkpoint.pt", "onnx/model.onnx"}
    assert bundle.digest == bundles.sha256(folder / "manifest.json")
    assert bundle.archive == folder / "torchserve" / "net.mar"
    assert folder.stat().st_mode & 0o777 == 0o755


def test_versions_count_up_and_find_takes_the_newest_that_matches(tmp_path):
    _write(tmp_path)
    _write(tmp_path, seed=1)
    _write(tmp_path)
    _write(tmp_path, dataset="other")
    (tmp_path / "net" / "checkpoints").mkdir()
    assert bundles.versions(tmp_path, "net") == [1, 2, 3, 4]

    def version(**criteria):
        found = bundles.find(tmp_path, "net", "digits", **criteria)
        return found and found.version

    assert version() == 3
    assert version(training={"seed": 1}) == 2
    assert version(training={"seed": 0, "epochs": 1}, libraries={"torch": "2"}, sources="abc") == 3
    assert version(training={"seed": 9}) is None
    assert version(libraries={"torch": "3"}) is None
    assert version(sources="xyz") is None
    _write(tmp_path, aot_inductor={"cpu": "x86_64 AVX2", "compiler": "g++ 12", "seconds": 20.5})
    assert version(compiled_for="x86_64 AVX2") == version() == 5
    assert version(compiled_for="x86_64 AVX512") is None
    assert bundles.find(tmp_path, "other", "digits") is None
    assert bundles.find(tmp_path / "absent", "net", "digits") is None


def test_an_error_or_ctrl_c_leaves_nothing(tmp_path):
    def stopped_by(error):
        with bundles.writing(tmp_path, _manifest()) as bundle:
            bundle.checkpoint.write_bytes(b"half")
            raise error

    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            stopped_by(error)
    assert list(tmp_path.iterdir()) == []


def test_two_exports_at_once_do_not_overwrite_each_other(tmp_path):
    def slow():
        with bundles.writing(tmp_path, _manifest()) as bundle:
            bundle.checkpoint.write_bytes(b"slow")
            _write(tmp_path)

    with pytest.raises(Problem, match="net/1: another export wrote it meanwhile; export again"):
        slow()
    assert [path.name for path in (tmp_path / "net").iterdir()] == ["1"]
    assert bundles.load(tmp_path / "net" / "1").checkpoint.read_bytes() == b"weights"


def test_a_changed_missing_or_added_file_is_named(tmp_path):
    folder = _write(tmp_path)
    onnx = folder / "onnx" / "model.onnx"
    onnx.write_bytes(b"grapH")
    with pytest.raises(Problem, match=r"onnx/model.onnx: changed since the export; delete .*net/1 and export again"):
        bundles.load(folder)
    with pytest.raises(Problem, match=r"model.onnx: changed"):
        bundles.find(tmp_path, "net", "digits")
    onnx.unlink()
    with pytest.raises(Problem, match=r"onnx/model.onnx: missing from the bundle"):
        bundles.load(folder)
    onnx.write_bytes(b"graph")
    (folder / "savedmodel").mkdir()
    (folder / "savedmodel" / "extra").write_bytes(b"")
    with pytest.raises(Problem, match=r"savedmodel/extra: not part of the bundle"):
        bundles.load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a bundle's manifest"),
        ("[]", "not a bundle's manifest"),
        (json.dumps({"format": 2}), "format 2, this program reads 1"),
        (json.dumps({"format": 1, "model": "net"}), "not a bundle's manifest"),
    ],
)
def test_a_broken_manifest_is_named(tmp_path, content, message):
    folder = _write(tmp_path)
    (folder / "manifest.json").write_text(content)
    with pytest.raises(Problem, match=r"net/1/manifest.json: ") as caught:
        bundles.load(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_bundle_says_what_to_run(tmp_path):
    with pytest.raises(Problem, match=r"no bundle there .*run python -m models export"):
        bundles.load(tmp_path)


def test_reading_a_bundle_needs_no_deep_learning_library(bundle):
    code = (
        "import sys; from pathlib import Path; from models import bundle\n"
        f"print(bundle.load(Path({str(bundle.folder)!r})).version)\n"
        "print([name for name in ('torch', 'tensorflow', 'onnx', 'onnxruntime', 'keras') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1", "[]"]


def test_real_bundle_keeps_the_contract(bundle):
    manifest = bundle.manifest
    assert set(manifest) >= {
        *("format", "model", "version", "dataset", "input", "output", "training", "parity", "libraries"),
        *("git_commit", "files"),
    }
    assert manifest["input"] == {"name": "images", "dtype": "uint8", "shape": [None, 32, 32, 3]}
    assert manifest["output"] == {"name": "probabilities", "dtype": "float32", "shape": [None, 10]}
    assert manifest["training"]["test_accuracy"] > 0.95
    exports = manifest["parity"]["exports"]
    assert set(exports) == {"pytorch", "torchscript", "torch_export", "onnx", "savedmodel"}
    assert manifest["parity"]["samples"] == 360
    for name in ("torchscript", "torch_export", "onnx", "savedmodel"):
        assert exports[name]["max_abs_diff"] <= manifest["parity"]["tolerance"] == 1e-4
        assert exports[name]["top1_agreement"] == 1.0
        assert exports[name]["accuracy"] == exports["pytorch"]["accuracy"] == manifest["training"]["test_accuracy"]
    with np.load(bundle.reference) as reference:
        assert reference["images"].shape == (360, 32, 32, 3)
        assert reference["images"].dtype == np.uint8
        assert reference["labels"].dtype == np.int64
        assert reference["probabilities"].dtype == np.float32
        assert (reference["probabilities"].argmax(1) == reference["labels"]).mean() == exports["pytorch"]["accuracy"]
    for path in (bundle.checkpoint, bundle.torchscript, bundle.program, bundle.archive, bundle.onnx):
        assert path.is_file()
        assert path.stat().st_mode & 0o004, f"{path}: a server under another user could not read it"
    assert [path.name for path in bundle.savedmodel.iterdir()] == ["1"]
