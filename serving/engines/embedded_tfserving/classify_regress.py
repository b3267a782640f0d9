"""Classify and Regress: which signatures will do, and results from their outputs.

Checks, their order and their messages are the real server's (classifier.cc, regressor.cc and multi_inference.cc in
tensorflow_serving/servables/tensorflow). A signature's method name counts only with
--enable_signature_method_name_check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf import text_format
from google.protobuf.message import Message
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import classification_pb2, regression_pb2

from serving.engines.embedded_tfserving import tensors
from serving.engines.embedded_tfserving.servable import DEFAULT_SIGNATURE, Servable, Signature, TensorInfo
from serving.engines.embedded_tfserving.status import Code, ServingError, invalid

if TYPE_CHECKING:
    from serving.engines.embedded_tfserving.manager import Version
    from serving.engines.embedded_tfserving.predict import Predictor

FLOAT = types_pb2.DT_FLOAT
NUMBERS = {dtype: number for number, (dtype, _, _) in tensors.TYPES.items()}
INPUTS, OUTPUTS, CLASSES, SCORES = "inputs", "outputs", "classes", "scores"

Finish = Callable[[Any, ServingError | None], None]


@dataclass(frozen=True)
class Method:
    """One kind of inference on examples. `api` is its gRPC method, `name` the method name of its signatures, `result`
    makes its result message from a signature, its outputs and the number of examples."""

    api: str
    name: str
    kind: str
    request: type[Message]
    check: Callable[[Any], None]
    result: Callable[[Signature, list[np.ndarray], int], Any]

    def signature(self, servable: Servable, name: str) -> Signature:
        """The signature of that name (empty: the default one); raises `ServingError` unless this method can run it."""
        definition = servable.signature_defs.get(name or DEFAULT_SIGNATURE)
        if definition is None:
            raise invalid(f"No signature was found with the name: {name or DEFAULT_SIGNATURE}")
        if servable.check_method_names and definition.method_name != self.name:
            raise self._wrong_name(definition)
        self.check(definition)
        signature = servable.signature(name)
        if signature is None:  # only signatures of prediction methods are prepared to be called
            raise self._wrong_name(definition)
        return signature

    def _wrong_name(self, definition: Any) -> ServingError:
        return invalid(f"Expected {self.kind} signature method_name to be {self.name}. Was: {definition.method_name}")

    def run(
        self,
        predictor: Predictor,
        version: Version,
        signature: Signature,
        examples: np.ndarray,
        finish: Finish,
        api: str = "",
    ) -> None:
        """Call `finish(result, error)` on the event loop's thread once; raises `ServingError` for what is refused at
        once. `api` labels the run's metric, instead of the method's own."""
        signature.inputs[0].check(0, examples, tensors.STRING)

        def done(outputs: list[np.ndarray] | None, error: ServingError | None) -> None:
            result = None
            if outputs is not None:
                try:
                    result = self.result(signature, outputs, len(examples))
                except ServingError as refused:
                    error = refused
            finish(result, error)

        predictor.run(version, signature, [examples], done, api or self.api)


def _debug_string(definition: Any) -> str:
    """As C++ prints a message: map entries sorted, anything but ASCII escaped."""
    return text_format.MessageToString(definition, as_utf8=False)


def _check_classification(definition: Any) -> None:
    if len(definition.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(definition.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(definition.outputs)}")
    if INPUTS not in definition.inputs:
        raise invalid(f"No classification inputs found in SignatureDef: {_debug_string(definition)}")
    if CLASSES not in definition.outputs and SCORES not in definition.outputs:
        raise invalid(
            f'Expected classification signature outputs to contain at least one of "{CLASSES}" or "{SCORES}". '
            f"Signature was: {_debug_string(definition)}"
        )


def _check_regression(definition: Any) -> None:
    if len(definition.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(definition.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if INPUTS not in definition.inputs:
        raise invalid(f"No regression inputs found in SignatureDef: {_debug_string(definition)}")
    if OUTPUTS not in definition.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {_debug_string(definition)}")


def classification(signature: Signature, outputs: list[np.ndarray], examples: int) -> Any:
    """A ClassificationResult from classes, scores or both; raises `ServingError` when they do not fit."""
    classes = _matrix(signature, outputs, examples, CLASSES, tensors.STRING)
    scores = _matrix(signature, outputs, examples, SCORES, FLOAT)
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    width = next(matrix.shape[1] for matrix in (classes, scores) if matrix is not None)
    all_labels = classes.tolist() if classes is not None else [[b""] * width] * examples
    all_scores = scores.tolist() if scores is not None else [[0.0] * width] * examples
    result = classification_pb2.ClassificationResult()
    for labels, numbers in zip(all_labels, all_scores, strict=True):
        row = result.classifications.add()
        for label, score in zip(labels, numbers, strict=True):
            row.classes.add(label=label.decode("utf-8", "replace"), score=score)
    return result


def _matrix(
    signature: Signature, outputs: list[np.ndarray], examples: int, alias: str, dtype: int
) -> np.ndarray | None:
    """The output of that alias with one row for each example, or None when the signature has none."""
    position = next((number for number, info in enumerate(signature.outputs) if info.alias == alias), None)
    if position is None:
        return None
    info, array = signature.outputs[position], outputs[position]
    shape = np.shape(array)
    if len(shape) != 2:
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(shape)}")
    given = _dtype(info, array)
    if given != dtype:
        raise invalid(f"Expected {alias} Tensor of {_type_name(dtype)}. Got: {_type_name(given)}")
    if shape[0] != examples:
        raise invalid(f"Expected {alias} output batch size of {examples}. Got: {shape[0]}")
    return array


def regression(signature: Signature, outputs: list[np.ndarray], examples: int) -> Any:
    """A RegressionResult with one value for each example; raises `ServingError` when the output does not fit."""
    info, array = signature.outputs[0], outputs[0]
    shape = np.shape(array)
    if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        raise invalid(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(shape)}"
        )
    if shape[0] != examples:
        raise invalid(f"Input batch size did not match output batch size: {examples} vs. {shape[0]}")
    given = _dtype(info, array)
    if given != FLOAT:
        raise invalid(f"Expected output Tensor of {_type_name(FLOAT)}.  Got: {_type_name(given)}")
    result = regression_pb2.RegressionResult()
    for value in array.ravel().tolist():
        result.regressions.add(value=value)
    return result


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def _dtype(info: TensorInfo, array: np.ndarray) -> int:
    """The DataType of what came out, which need not be what the signature says."""
    return NUMBERS.get(array.dtype, info.dtype)


def _type_name(number: int) -> str:
    return types_pb2.DataType.Name(number)


CLASSIFY = Method(
    "Classify",
    "tensorflow/serving/classify",
    "classification",
    classification_pb2.ClassificationRequest,
    _check_classification,
    classification,
)
REGRESS = Method(
    "Regress",
    "tensorflow/serving/regress",
    "regression",
    regression_pb2.RegressionRequest,
    _check_regression,
    regression,
)
METHODS = {method.name: method for method in (CLASSIFY, REGRESS)}


def plan(servable: Servable, tasks: Iterable[Any]) -> list[tuple[Method, Signature]]:
    """What the tasks of a MultiInferenceRequest run; raises `ServingError` when they cannot go together."""
    planned: list[tuple[Method, Signature]] = []
    seen: set[str] = set()
    for task in tasks:
        spec = task.model_spec
        if not spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if spec.name != servable.name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = spec.signature_name or DEFAULT_SIGNATURE
        if name in seen:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
        if name not in servable.signature_defs:
            raise invalid(f"Requested signature not found in model graph: {name}")
        method = METHODS.get(task.method_name)
        if method is None:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        planned.append((method, method.signature(servable, name)))
        if planned[-1][1].inputs[0].name != planned[0][1].inputs[0].name:
            raise invalid("Input tensor must be the same for all Signatures.")
    return planned


def run_all(
    predictor: Predictor,
    version: Version,
    planned: list[tuple[Method, Signature]],
    examples: np.ndarray,
    finish: Finish,
) -> None:
    """Run what was planned on the same examples. Calls `finish(results, error)` on the event loop's thread once, when
    all have ended; the error is the first in the order of the plan."""
    results: list[Any] = [None] * len(planned)
    errors: list[ServingError | None] = [None] * len(planned)
    left = len(planned)

    def ended(position: int, result: Any, error: ServingError | None) -> None:
        nonlocal left
        results[position], errors[position] = result, error
        left -= 1
        if not left:
            first = next((error for error in errors if error), None)
            finish(None if first else results, first)

    for position, (method, signature) in enumerate(planned):
        try:
            method.run(predictor, version, signature, examples, partial(ended, position), "MultiInference")
        except ServingError as error:
            ended(position, None, error)
