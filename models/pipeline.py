"""From a data set to a bundle: train, export, prove, write; whatever exists already is reused."""

from __future__ import annotations

import hashlib
import io
import platform
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models import (
    aot_inductor,
    brought,
    child_environment,
    datasets,
    disk_room,
    encoded_parity,
    examination,
    exporting,
    image_encoding,
    onnx_export,
    own_files,
    own_torchscript,
    parity,
    reduced_precision,
    rounding,
    torch_export,
    torchscript,
    torchserve_archive,
    training,
    weights,
    whole_file,
)
from models import bundle as bundles
from models import recipe as recipes
from models.architectures import ImageClassifier
from models.bundle import Bundle, Kind, Weights
from models.datasets import Dataset
from models.encoding import Encoding
from models.own_onnx import OwnOnnx
from models.precision import Precision
from models.problem import Problem
from models.progress import Progress
from models.recipe import Own, Recipe, Reference
from models.training import Settings, Trained

if TYPE_CHECKING:
    from models.own_savedmodel import OwnSavedModel

LIBRARIES = ("torch", "tensorflow", "onnx", "onnxruntime", "onnxscript", "numpy", "torch-model-archiver")
NOTHING_OWN = Own()


@dataclass(frozen=True)
class _Parts:
    """Files of the user's own in place of exports."""

    savedmodel: OwnSavedModel | None
    onnx: OwnOnnx | None

    def records(self, recipe: Recipe) -> dict[str, Any]:
        """The manifest's entries, but for that of the SavedModel, which has to be asked first."""
        records = {}
        if recipe.brought is not None and recipe.brought.files is not None:
            records[Kind.TORCHSCRIPT.value] = recipe.brought.files.record(recipe.brought.around)
        if self.onnx is not None:
            records[Kind.ONNX.value] = self.onnx.files.record(self.onnx.around)
        return records


def export(
    model: str,
    dataset: str,
    settings: Settings,
    artifacts: Path,
    data_folder: Path | None,
    progress: Progress,
    *,
    own: Own = NOTHING_OWN,
    compiled: bool = False,
    precision: Precision = Precision.FP32,
    encoding: Encoding = Encoding.NONE,
) -> Bundle:
    """Have weights, export to both worlds, prove parity and write the bundle; returns it.

    The weights are the user's (``own``), trained, or drawn from the seed, see `Recipe`.
    A bundle of the same model, data set, settings, library versions and exporting code is returned as it is.
    ``compiled``: it must hold an AOTInductor package for this machine's kind of CPU.
    ``precision``: what its graphs compute in.
    ``encoding``: what its clients send; with files its servers take them beside tensors, and its reference is of files.
    Raises `Problem` for bad input, a damaged bundle, a disk without room, a network that cannot be exported or imported
    (of one that is to be trained, before that), a compiler that is missing or fails, or a failed parity gate.
    """
    handler = torchserve_archive.handler_path()
    recipe = recipes.read(model, dataset, settings, own, encoding)
    _check_precision(recipe, precision)
    found = bundles.find(
        artifacts,
        recipe.model,
        recipe.images_of,
        training=recipe.to_dict(),
        libraries=libraries(),
        sources=sources(handler),
        compiled_for=aot_inductor.cpu() if compiled else None,
        precision=precision.exported,
    )
    if found is not None:
        progress.say("export", f"reused {found.folder}")
        return found

    if compiled and recipe.brought and recipe.brought.files:
        raise Problem(f"--aot: {recipe.brought.said} cannot be compiled, as it is no Python module; leave --aot out")
    # What cannot be is said before minutes of training.
    torchserve_archive.require_name(recipe.model)
    if compiled:
        aot_inductor.require_compiler()
    data = datasets.load(dataset, data_folder) if recipe.needs_dataset else None
    reference = recipe.reference(data)
    disk_room.require(artifacts, recipe, len(reference.class_names), precision)
    port = _port(recipe, reference)
    trained = weights.obtain(recipe, data, reference, artifacts, progress, precision)
    graph = _graph(recipe, reference, trained)
    manifest = {
        **_manifest(recipe, data, reference, trained, sources(handler)),
        "precision": precision.exported.value,
        **_encoding(recipe, reference),
    }
    with bundles.writing(artifacts, manifest) as bundle:
        _write(bundle, recipe, trained, reference, handler, compiled, _Parts(port, graph), progress)
    return bundles.load(artifacts / recipe.model / str(bundle.version))


def verify(bundle: Bundle, progress: Progress) -> dict[str, Any]:
    """Run the parity gate again on a finished bundle; returns the figures. Raises `Problem` where it fails."""
    own = bundle.manifest["training"].get("own")
    if own is None:
        classifier = training.load(bundle.checkpoint).classifier
    elif Kind.TORCHSCRIPT in bundle.own_files:
        classifier = own_torchscript.served(bundle)
    else:
        classifier = brought.load(bundle.checkpoint, own).classifier
    classifier = reduced_precision.at(classifier, bundle.precision)
    with np.load(bundle.reference) as reference:
        images, labels, expected = reference["images"], reference["labels"], reference["probabilities"]
        files = encoded_parity.files(reference)
    now = training.predict(classifier, images)
    if parity.compare(now, expected, bundle.precision.tolerance).first_different is not None:
        raise Problem(
            f"{bundle.checkpoint}: eager PyTorch no longer gives the probabilities of {bundle.reference.name}"
        )
    figures = parity.check(bundle, classifier, images, labels, now, progress)
    if files:
        figures["exports"][encoded_parity.EXPORT] = encoded_parity.check(bundle, files, labels, now, progress)
    return figures


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
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=folder,
            env=child_environment.tool(),
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _manifest(
    recipe: Recipe, data: Dataset | None, reference: Reference, trained: Trained, digest: str
) -> dict[str, Any]:
    trained_on = data.train.labels if data is not None and recipe.weights is Weights.TRAINED else ()
    return {
        "model": recipe.model,
        "weights": recipe.weights.value,
        "dataset": {
            "name": recipe.images_of,
            "class_names": list(reference.class_names),
            "train_samples": len(trained_on),
            "test_samples": len(reference.labels),
        },
        "reference": {**reference.record, "labelled": reference.labelled},
        "input": {"name": onnx_export.INPUT, "dtype": "uint8", "shape": [None, *trained.classifier.image_shape]},
        "output": {"name": onnx_export.OUTPUT, "dtype": "float32", "shape": [None, len(reference.class_names)]},
        "training": {**trained.record, **recipe.to_dict()},
        "libraries": libraries(),
        "git_commit": git_commit(),
        "sources": digest,
    }


def _write(
    bundle: Bundle,
    recipe: Recipe,
    trained: Trained,
    reference: Reference,
    handler: Path,
    compiled: bool,
    parts: _Parts,
    progress: Progress,
) -> None:
    """Fill the bundle's folder and add ``parity`` to its manifest, and ``aot_inductor`` where that is asked for.

    ``parts``: the user's own, which take the place of exports."""
    started = time.monotonic()
    classifier = reduced_precision.at(trained.classifier, bundle.precision)
    expected = training.predict(classifier, reference.images)
    _hold(recipe.said, classifier, reference.images, expected, bundle.precision)
    training.save(trained, bundle.checkpoint)
    own = bundle.manifest["own_files"] = parts.records(recipe)
    file = recipe.brought.files if recipe.brought else None
    if file is not None and not own[Kind.TORCHSCRIPT.value]["around"]:
        own_files.copy(file, bundle.torchscript)
    else:
        with exporting.quietly(recipe.said, exporting.TORCHSCRIPT):
            torchscript.export(classifier, bundle.torchscript)
    torchserve_archive.export(
        bundle.torchscript,
        bundle.archive,
        version=bundle.version,
        input_shape=bundle.input_shape,
        class_names=bundle.class_names,
        handler=handler,
        encoded=bundle.encoding is not Encoding.NONE,
    )
    progress.say("export", "TorchScript and TorchServe archive")
    if file is not None:
        progress.say("export", "no torch.export program: it is made of Python, not of TorchScript")
    else:
        with exporting.quietly(recipe.said, exporting.TORCH_EXPORT):
            torch_export.export(classifier, bundle.program)
        progress.say("export", "torch.export program")
    if compiled:
        _compile(bundle, progress)
    with exporting.quietly(recipe.said, exporting.ONNX):
        if parts.onnx is not None:
            parts.onnx.write(bundle.onnx)
        elif file is not None:
            onnx_export.export_torchscript(bundle.torchscript, bundle.onnx, classifier.example())
        else:
            onnx_export.export(classifier, bundle.onnx)
    progress.say("export", "ONNX")
    from models import savedmodel  # takes seconds to import TensorFlow: only once it is needed

    if parts.savedmodel is None:
        with exporting.importing(f"ONNX={recipe.onnx.path}" if recipe.onnx else recipe.said, bundle.onnx):
            savedmodel.export(
                bundle.onnx, bundle.savedmodel / str(bundle.version), encoded=bundle.encoding is not Encoding.NONE
            )
    else:
        fit = parts.savedmodel.fit(expected, classifier, bundle.precision.tolerance, bundle.onnx)
        parts.savedmodel.write(fit, bundle.savedmodel / str(bundle.version))
        own[Kind.SAVEDMODEL.value] = parts.savedmodel.record(fit)
        progress.say("savedmodel", f"{parts.savedmodel.files.path}, {fit.words()}")
    progress.say("export", f"SavedModel ({time.monotonic() - started:.0f} s for all)")

    _prove(bundle, trained, classifier, reference, expected, progress)


def _hold(
    whose: str, classifier: ImageClassifier, images: np.ndarray, expected: np.ndarray, precision: Precision
) -> None:
    """Hold a classifier against itself and ``expected``, its answers. Raises `Problem`, which in a shorter precision
    names the layer that does not bear it."""
    short = precision is not Precision.FP32
    if short and not np.isfinite(expected).all():
        layer = rounding.out_of_range(classifier, images[~np.isfinite(expected).all(axis=1)][:1])
        where, other = layer or "between its modules", "bf16 or fp32" if precision is Precision.FP16 else "fp32"
        raise Problem(
            f"precision = '{precision}': the model's numbers leave its range, first in layer {where}; use {other}"
        )
    try:
        examination.hold(whose, classifier, images, expected, precision.tolerance)
    except Problem:
        seen = "as PyTorch does not with itself in batches of another size"
        if short and (limit := rounding.limit(precision, classifier, images[:1], seen)):
            raise limit from None
        raise


def _prove(
    bundle: Bundle,
    trained: Trained,
    classifier: ImageClassifier,
    reference: Reference,
    expected: np.ndarray,
    progress: Progress,
) -> None:
    """Run the parity gate, and write its figures and the reference, ``expected`` of ``classifier``."""
    images, labels = reference.images, reference.labels
    figures = parity.check(bundle, classifier, images, labels, expected, progress)
    if reference.encoded:
        found = encoded_parity.check(bundle, reference.encoded, labels, expected, progress)
        figures["exports"][encoded_parity.EXPORT] = found
    if not reference.labelled:
        for figure in figures["exports"].values():
            figure["accuracy"] = None
    if classifier is not trained.classifier:
        figures["from_fp32"] = _distance(expected, training.predict(trained.classifier, images))
    bundle.manifest["parity"] = figures
    # Whoever checks answers under load allows ten times fp32's tolerance where the file says none.
    arrays: dict[str, Any] = {"images": images, "labels": labels, "probabilities": expected}
    if reference.encoded:
        arrays |= encoded_parity.arrays(reference.encoded)
    if (tolerance := bundle.encoding.tolerance(bundle.precision)) != Precision.FP32.tolerance:
        arrays["tolerance"] = tolerance
    buffer = io.BytesIO()  # on a full disk zipfile tells of it twice, once with a traceback
    np.savez_compressed(buffer, **arrays)
    whole_file.write_bytes(bundle.reference, buffer.getbuffer())
    progress.say("parity", describe(bundle.manifest["parity"]))


def _port(recipe: Recipe, reference: Reference) -> OwnSavedModel | None:
    """The user's SavedModel, which fits the other side's images and classes."""
    if recipe.savedmodel is None:
        return None
    from models.own_savedmodel import OwnSavedModel

    return OwnSavedModel(recipe.savedmodel, reference.images, len(reference.class_names))


def _graph(recipe: Recipe, reference: Reference, trained: Trained) -> OwnOnnx | None:
    """The user's ONNX file, which fits the PyTorch side's images and classes."""
    if recipe.onnx is None:
        return None
    return OwnOnnx(recipe.onnx, trained.classifier, reference.images, len(reference.class_names))


def _check_precision(recipe: Recipe, precision: Precision) -> None:
    """Raise `Problem` where files of the user's own, which are served as they come, are to compute in another one."""
    files = {Kind.SAVEDMODEL: recipe.savedmodel, Kind.ONNX: recipe.onnx}
    given = [kind for kind, file in files.items() if file is not None]
    given += [Kind.TORCHSCRIPT] if recipe.brought and recipe.brought.files else []
    if given and precision.exported is not Precision.FP32:
        raise Problem(
            f"precision = '{precision}': {given[0].upper()}= is served as it comes, and only what is exported "
            "here can be given another precision; use fp32"
        )


def _encoding(recipe: Recipe, reference: Reference) -> dict[str, Any]:
    """The manifest's entry of what clients send, where that is no tensor."""
    if recipe.encoding is Encoding.NONE:
        return {}
    written = image_encoding.options(recipe.encoding) if recipe.folder is None else {}
    return {"encoding": encoded_parity.record(recipe.encoding, reference.encoded, written)}


def _distance(probabilities: np.ndarray, fp32: np.ndarray) -> dict[str, float]:
    """How far eager PyTorch at the bundle's precision lies from itself in float32."""
    found = parity.compare(probabilities, fp32)
    return {"max_abs_diff": found.max_abs_diff, "top1_agreement": found.top1_agreement}


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
    said = f"max |Δp| over {figures['samples']:,} images: {worst}; top-1 agreement {agreement:.2%}"
    if left_out := figures.get("left_out"):
        said += f"; left out, without kernels for it on this CPU: {', '.join(left_out)}"
    if distance := figures.get("from_fp32"):
        said += f"; from float32 up to {distance['max_abs_diff']:.1e}, top-1 agreement {distance['top1_agreement']:.2%}"
    return said
