"""From a data set to a bundle: train, export, prove, write; whatever exists already is reused."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from models import aot_inductor, datasets, onnx_export, parity, torch_export, torchscript, torchserve_archive, training
from models import bundle as bundles
from models.bundle import Bundle
from models.datasets import Dataset
from models.problem import Problem
from models.progress import Progress
from models.training import Settings, Trained

LIBRARIES = ("torch", "tensorflow", "onnx", "onnxruntime", "onnxscript", "numpy", "torch-model-archiver")


def checkpoint_path(artifacts: Path, model: str, dataset: str, settings: Settings) -> Path:
    """Where the checkpoint of these settings lies."""
    return artifacts / model / "checkpoints" / f"{dataset}-seed{settings.seed}-epochs{settings.epochs}.pt"


def train(
    model: str, dataset: str, settings: Settings, artifacts: Path, data_folder: Path | None, progress: Progress
) -> Path:
    """Train, unless a checkpoint of the same settings is there; returns the checkpoint's path."""
    path = checkpoint_path(artifacts, model, dataset, settings)
    if _reusable(path, model, dataset, settings) is None:
        _train(model, datasets.load(dataset, data_folder), settings, path, progress)
    else:
        progress.say("training", f"reused {path}")
    return path


def export(
    model: str,
    dataset: str,
    settings: Settings,
    artifacts: Path,
    data_folder: Path | None,
    progress: Progress,
    *,
    compiled: bool = False,
) -> Bundle:
    """Train if needed, export to both worlds, prove parity and write the bundle; returns it.

    A bundle of the same model, data set, settings, library versions and exporting code is returned as it is.
    ``compiled``: it must hold an AOTInductor package for this machine's kind of CPU.
    Raises `Problem` for bad input, a damaged bundle, an operator that cannot be imported, a compiler that is missing or
    fails, or a failed parity gate.
    """
    handler = torchserve_archive.handler_path()
    found = bundles.find(
        artifacts,
        model,
        dataset,
        training=settings.to_dict(),
        libraries=libraries(),
        sources=sources(handler),
        compiled_for=aot_inductor.cpu() if compiled else None,
    )
    if found is not None:
        progress.say("export", f"reused {found.folder}")
        return found

    if compiled:  # what cannot be is said before minutes of training
        aot_inductor.require_compiler()
    path = checkpoint_path(artifacts, model, dataset, settings)
    trained = _reusable(path, model, dataset, settings)
    data = datasets.load(dataset, data_folder)
    if trained is None:
        trained = _train(model, data, settings, path, progress)
    manifest = _manifest(model, data, trained, sources(handler))
    with bundles.writing(artifacts, manifest) as bundle:
        _write(bundle, trained, data, handler, compiled, progress)
    return bundles.load(artifacts / model / str(bundle.version))


def verify(bundle: Bundle, progress: Progress) -> dict[str, Any]:
    """Run the parity gate again on a finished bundle; returns the figures. Raises `Problem` where it fails."""
    trained = training.load(bundle.checkpoint)
    with np.load(bundle.reference) as reference:
        images, labels, expected = reference["images"], reference["labels"], reference["probabilities"]
    now = training.predict(trained.classifier, images)
    if parity.compare(now, expected).first_different is not None:
        raise Problem(
            f"{bundle.checkpoint}: eager PyTorch no longer gives the probabilities of {bundle.reference.name}"
        )
    return parity.check(bundle, trained.classifier, images, labels, now, progress)


def libraries() -> dict[str, str]:
    """Versions of what makes and runs a bundle."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}}


def sources(handler: Path) -> str:
    """SHA-256 over this package's modules and the TorchServe handler: what a bundle's content depends on."""
    digest, room = hashlib.sha256(), Path(__file__).resolve().parent
    for path in [*sorted(room.rglob("*.py")), handler]:
        digest.update(f"{path.name} {bundles.sha256(path)}\n".encode())
    return digest.hexdigest()


def git_commit() -> str | None:
    """The commit of this program's checkout, or None outside git."""
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _reusable(path: Path, model: str, dataset: str, settings: Settings) -> Trained | None:
    if not path.exists():
        return None
    trained = training.load(path)
    wanted = {**settings.to_dict(), "model": model, "dataset": dataset}
    return trained if all(trained.record.get(key) == value for key, value in wanted.items()) else None


def _train(model: str, data: Dataset, settings: Settings, path: Path, progress: Progress) -> Trained:
    trained = training.train(model, data, settings, progress)
    training.save(trained, path)
    record = trained.record
    progress.say("training", f"{record['seconds']:.0f} s, test accuracy {record['test_accuracy']:.4f}, {path}")
    return trained


def _manifest(model: str, data: Dataset, trained: Trained, digest: str) -> dict[str, Any]:
    return {
        "model": model,
        "dataset": {
            "name": data.name,
            "class_names": list(data.class_names),
            "train_samples": len(data.train.labels),
            "test_samples": len(data.test.labels),
        },
        "input": {"name": onnx_export.INPUT, "dtype": "uint8", "shape": [None, *datasets.IMAGE_SHAPE]},
        "output": {"name": onnx_export.OUTPUT, "dtype": "float32", "shape": [None, len(data.class_names)]},
        "training": trained.record,
        "libraries": libraries(),
        "git_commit": git_commit(),
        "sources": digest,
    }


def _write(bundle: Bundle, trained: Trained, data: Dataset, handler: Path, compiled: bool, progress: Progress) -> None:
    """Fill the bundle's folder and add ``parity`` to its manifest, and ``aot_inductor`` where that is asked for."""
    started = time.monotonic()
    classifier = trained.classifier
    training.save(trained, bundle.checkpoint)
    torchscript.export(classifier, bundle.torchscript)
    torchserve_archive.export(
        bundle.torchscript,
        bundle.archive,
        version=bundle.version,
        input_shape=bundle.input_shape,
        class_names=bundle.class_names,
        handler=handler,
    )
    progress.say("export", "TorchScript and TorchServe archive")
    torch_export.export(classifier, bundle.program)
    progress.say("export", "torch.export program")
    if compiled:
        _compile(bundle, progress)
    onnx_export.export(classifier, bundle.onnx)
    progress.say("export", "ONNX")
    from models import savedmodel  # takes seconds to import TensorFlow: only once it is needed

    savedmodel.export(bundle.onnx, bundle.savedmodel / str(bundle.version))
    progress.say("export", f"SavedModel ({time.monotonic() - started:.0f} s for all)")

    images, labels = data.test.images, data.test.labels
    reference = training.predict(classifier, images)
    bundle.manifest["parity"] = parity.check(bundle, classifier, images, labels, reference, progress)
    np.savez_compressed(bundle.reference, images=images, labels=labels, probabilities=reference)
    progress.say("parity", describe(bundle.manifest["parity"]))


def _compile(bundle: Bundle, progress: Progress) -> None:
    started = time.monotonic()
    cpu, compiler = aot_inductor.cpu(), aot_inductor.compiler()
    progress.say("export", f"AOTInductor package: compiling with {compiler}")
    aot_inductor.export(bundle.program, bundle.compiled_program)
    seconds = round(time.monotonic() - started, 1)
    bundle.manifest["aot_inductor"] = {"cpu": cpu, "compiler": compiler, "seconds": seconds}
    progress.say("export", f"AOTInductor package for {cpu} ({seconds:.0f} s)")


def describe(figures: dict[str, Any]) -> str:
    """The parity figures in one line."""
    exports = {name: figure for name, figure in figures["exports"].items() if "max_abs_diff" in figure}
    worst = ", ".join(f"{name} {figure['max_abs_diff']:.1e}" for name, figure in exports.items())
    agreement = min(figure["top1_agreement"] for figure in exports.values())
    return f"max |Δp| over {figures['samples']:,} images: {worst}; top-1 agreement {agreement:.2%}"
