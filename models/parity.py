"""The parity gate: every export answers the whole test split as eager PyTorch does, or the export fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models import (
    aot_inductor,
    layers,
    onnx_bisection,
    rounding,
    savedmodel_differences,
    torch_export,
    torchscript,
    training,
)
from models.architectures import ImageClassifier
from models.bundle import Bundle, WhyLeftOut
from models.precision import Precision
from models.problem import Problem
from models.progress import Progress

Predict = Callable[[np.ndarray], np.ndarray]


class NoKernel(Exception):
    """A runtime has no kernel for an operator in the bundle's precision; its own words."""


@dataclass(frozen=True)
class Comparison:
    """Figures of one export beside the reference.

    max_abs_diff     largest |Δp| of all samples and classes (nan where an answer is no number)
    top1_agreement   share of samples with the same best class
    first_different  first sample beyond the tolerance, or None
    """

    max_abs_diff: float
    top1_agreement: float
    first_different: int | None


def compare(
    probabilities: np.ndarray, reference: np.ndarray, tolerance: float = Precision.FP32.tolerance
) -> Comparison:
    """Compare probabilities [N, classes] with the reference's.

    A sample differs where any |Δp| exceeds the tolerance, or where the best class is another one although the
    reference's two best classes lie further apart than the tolerance.
    """
    difference = np.abs(probabilities.astype(np.float64) - reference).max(axis=1)
    same_class = probabilities.argmax(axis=1) == reference.argmax(axis=1)
    second, best = np.sort(reference.astype(np.float64), axis=1)[:, -2:].T
    different = ~(difference <= tolerance) | (~same_class & (best - second > tolerance))  # nan is different
    first = int(different.argmax()) if different.any() else None
    return Comparison(float(difference.max()), float(same_class.mean()), first)


def check(
    bundle: Bundle,
    classifier: ImageClassifier,
    images: np.ndarray,
    labels: np.ndarray,
    reference: np.ndarray,
    progress: Progress,
) -> dict[str, Any]:
    """Run ``images`` through every export of ``bundle``, whose manifest may be unfinished.

    ``classifier`` and ``reference``, its probabilities, are eager PyTorch's at the bundle's precision, to which the
    tolerance belongs. Returns the manifest's ``parity`` entry; what has no kernels for the precision is left out there.
    Raises `Problem` naming the export, the first sample and the first layer output that differ.
    """
    exports: dict[str, dict[str, float]] = {"pytorch": {"accuracy": _accuracy(reference, labels)}}
    left_out: dict[str, dict[str, str]] = {}
    tolerance = bundle.precision.tolerance
    names, size = _exports(bundle), training.images_at_once(images)
    with progress.bar("parity", total=len(names) * len(images), unit="images") as bar:
        for name in names:
            try:
                predict = RUNNERS[name](bundle)
            except NoKernel as error:
                left_out[name] = {"why": WhyLeftOut.NO_KERNEL.value, "detail": str(error)}
                bar.advance(len(images), name)
                continue
            parts = []
            for start in range(0, len(images), size):
                parts.append(predict(images[start : start + size]))
                bar.advance(len(parts[-1]), name)
            probabilities = np.concatenate(parts)
            result = compare(probabilities, reference, tolerance)
            if result.first_different is not None and name == "savedmodel" and name in bundle.own_files:
                raise savedmodel_differences.problem(
                    bundle, predict, images, reference, result.first_different, tolerance, _figures(result, tolerance)
                )
            if result.first_different is not None:
                raise _difference(name, bundle, classifier, images, result)
            exports[name] = {
                "accuracy": _accuracy(probabilities, labels),
                "max_abs_diff": result.max_abs_diff,
                "top1_agreement": result.top1_agreement,
            }
    return {"samples": len(images), "tolerance": tolerance, "exports": exports, "left_out": left_out}


def _exports(bundle: Bundle) -> list[str]:
    """What there is to compare: an older bundle has no torch.export program, and few have an AOTInductor package."""
    optional = {"torch_export": bundle.program, "aot_inductor": bundle.compiled_program}
    return [name for name in RUNNERS if name not in optional or optional[name].is_file()]


def _difference(
    name: str, bundle: Bundle, classifier: ImageClassifier, images: np.ndarray, result: Comparison
) -> Problem:
    sample = result.first_different
    assert sample is not None
    tolerance = bundle.precision.tolerance
    if isinstance(classifier.network, torch.jit.ScriptModule):
        layer = "and a TorchScript file shows no layers"
    else:
        layer = layers.first_difference(name, bundle, classifier, images[sample], tolerance)
    if name == "savedmodel":
        layer += _bisected(bundle, images[sample : sample + 1])
    if bundle.precision is not Precision.FP32:
        seen = f"as PyTorch and {name} do not on sample {sample} ({_figures(result, tolerance)})"
        if limit := rounding.limit(bundle.precision, classifier, images[sample : sample + 1], seen):
            return limit
    if name in bundle.own_files:
        file = bundle.own_files[name]["name"]
        return Problem(
            f"parity: {name.upper()}={file} is not the model of the PyTorch side: sample {sample} "
            f"of the reference, {layer}; {_figures(result, tolerance)}; nothing was exported"
        )
    return Problem(
        f"parity: {name} is not the model that was trained: sample {sample} of the test split, {layer}; "
        f"{_figures(result, tolerance)}; "
        "nothing was exported, report this line with the versions of torch, onnx and tensorflow"
    )


def _figures(result: Comparison, tolerance: float) -> str:
    return f"max |Δp| {result.max_abs_diff:.2g} (tolerance {tolerance:g}), top-1 agreement {result.top1_agreement:.2%}"


def _bisected(bundle: Bundle, images: np.ndarray) -> str:
    """Where the SavedModel leaves the ONNX graph that it was made from, in words; nothing where it does not."""
    try:
        _onnx(bundle)
    except NoKernel:
        return ""
    difference = onnx_bisection.first_difference(
        bundle.onnx, bundle.savedmodel / str(bundle.version), images, bundle.precision.tolerance
    )
    return "" if difference is None else f"; between ONNX Runtime and the SavedModel, {difference.words()}"


def _accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())


def _on_tensors(module: Callable[[torch.Tensor], torch.Tensor]) -> Predict:
    def predict(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            probabilities: np.ndarray = module(torch.from_numpy(images)).numpy()
        return probabilities

    return predict


def _torchscript(bundle: Bundle) -> Predict:
    return _on_tensors(torchscript.load(bundle.torchscript))


def _torch_export(bundle: Bundle) -> Predict:
    return _on_tensors(torch_export.load(bundle.program))


def _aot_inductor(bundle: Bundle) -> Predict:
    return _on_tensors(aot_inductor.load(bundle.compiled_program, made_for=bundle.compiled_for))


def _onnx(bundle: Bundle) -> Predict:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(bundle.onnx), providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        if bundle.precision is Precision.FP32:
            raise
        raise NoKernel(" ".join(str(error).split())) from None
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def _savedmodel(bundle: Bundle) -> Predict:
    from models import savedmodel

    return savedmodel.load(bundle.savedmodel / str(bundle.version))


# TensorFlow comes last: it takes seconds to import.
RUNNERS: dict[str, Callable[[Bundle], Predict]] = {
    "torchscript": _torchscript,
    "torch_export": _torch_export,
    "aot_inductor": _aot_inductor,
    "onnx": _onnx,
    "savedmodel": _savedmodel,
}
