"""One version of one model: loading its SavedModel into a TensorFlow session, and calling its signatures.

The session is what TensorFlow Serving runs ("TF1" runtime), so both kinds of SavedModel work and errors read the
same. A call goes through a prepared callable, which skips the session's feed and fetch parsing.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from serving.engines.embedded_tfserving import tensors
from serving.engines.embedded_tfserving.flags import CPUS, Flags
from serving.engines.embedded_tfserving.identity import NAME
from serving.engines.embedded_tfserving.status import ServingError, invalid
from serving.wire.grpc_status import Code

log = logging.getLogger(NAME)

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHODS = ("tensorflow/serving/predict", "tensorflow/serving/classify", "tensorflow/serving/regress")

Call = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature. `shape` is None when the rank is unknown; an unknown size is -1."""

    alias: str
    name: str
    dtype: int
    shape: tuple[int, ...] | None

    @classmethod
    def of(cls, alias: str, info: Any) -> TensorInfo:
        """From the SavedModel's own message."""
        known = not info.tensor_shape.unknown_rank
        return cls(alias, info.name, info.dtype, tuple(dim.size for dim in info.tensor_shape.dim) if known else None)

    def check(self, position: int, array: np.ndarray, dtype: int) -> None:
        """Raises `ServingError` unless an array of DataType `dtype` fits this input."""
        if dtype != self.dtype:
            wanted, given = tensors.type_name(self.dtype), tensors.type_name(dtype)
            raise invalid(f"Expects arg[{position}] to be {wanted} but {given} is provided")
        if self.shape is None or array.shape == self.shape:
            return
        if array.ndim == len(self.shape):
            for size, wanted_size in zip(array.shape, self.shape, strict=True):
                if size != wanted_size and wanted_size >= 0:
                    break
            else:
                return
        raise invalid(f"input {self.alias} has shape {_shape(array.shape)}; the signature wants {_shape(self.shape)}")


def _shape(shape: Sequence[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


class Signature:
    """One named way to call the model; inputs and outputs in the order of their aliases."""

    def __init__(self, name: str, definition: Any) -> None:
        self.name = name
        self.inputs = [TensorInfo.of(alias, info) for alias, info in sorted(definition.inputs.items())]
        self.outputs = [TensorInfo.of(alias, info) for alias, info in sorted(definition.outputs.items())]
        self.input_names = {info.alias for info in self.inputs}

    def check_names(self, sent: Collection[str]) -> None:
        """Raises `ServingError` unless exactly this signature's inputs were sent."""
        if len(sent) != len(self.inputs) or not self.input_names.issuperset(sent):
            self._mismatch(sorted(sent))

    def _mismatch(self, sent: list[str]) -> None:
        wanted = sorted(self.input_names)
        if len(sent) != len(wanted):
            extra = sorted(set(sent) - self.input_names)
            missing = sorted(self.input_names - set(sent))
            raise invalid(
                f"input size does not match signature: {len(sent)}!={len(wanted)} len({{{','.join(sent)}}}) != "
                f"len({{{','.join(wanted)}}}). Sent extra: {{{','.join(extra)}}}. "
                f"Missing but required: {{{','.join(missing)}}}."
            )
        first = next(info for info in self.inputs if info.alias not in sent)
        raise invalid(
            f"Signature input alias: {first.alias}(feed name: {first.name}) not found in request and no default "
            f"value provided. Inputs expected to be in the request {{{','.join(sent)}}}, or default input alias set: "
        )

    def filter(self, aliases: Sequence[str]) -> list[int]:
        """Positions of the outputs that a client asked for; raises `ServingError`."""
        names = [info.alias for info in self.outputs]
        positions: list[int] = []
        for alias in aliases:
            if alias not in names:
                raise invalid(
                    f"output tensor alias not found in signature: {alias} "
                    f"Outputs expected to be in the set {{{','.join(names)}}}."
                )
            if names.index(alias) in positions:
                raise invalid(f"duplicate output tensor alias: {alias}")
            positions.append(names.index(alias))
        return sorted(positions)


class Servable:
    """A loaded version. Making one loads it and calls every signature once, so that the first client does not pay for
    the runtime's lazy work. Raises `ServingError`."""

    def __init__(self, name: str, version: int, path: Path, flags: Flags) -> None:
        self.name = name
        self.version = version
        self.path = path
        if not any((path / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt")):
            raise ServingError(
                Code.NOT_FOUND,
                "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
                f"`saved_model.pb`)\nSpecified file path: {path}",
            )
        self.graph = tf.Graph()
        config = _session_config(flags)
        # TensorFlow's default is as many as there are CPUs.
        self.one_inter_op_thread = (config.inter_op_parallelism_threads or CPUS) == 1
        started = time.perf_counter()
        with self.graph.as_default():
            self.session = tf.compat.v1.Session(graph=self.graph, config=config)
            try:
                meta_graph = tf.compat.v1.saved_model.load(self.session, flags.saved_model_tags.split(","), str(path))
            except tf.errors.OpError as error:
                raise serving_error(error) from None
            except RuntimeError as error:
                if "MetaGraphDef" not in str(error):
                    raise
                raise ServingError(
                    Code.NOT_FOUND,
                    f"Could not find meta graph def matching supplied tags: {{ {flags.saved_model_tags} }}. To inspect "
                    "available tag-sets in the SavedModel, please use the SavedModel CLI: `saved_model_cli`",
                ) from None
            except (OSError, ValueError) as error:
                code = Code.NOT_FOUND if isinstance(error, OSError) else Code.INVALID_ARGUMENT
                raise ServingError(code, " ".join(str(error).split())) from None
        self.load_micros = round((time.perf_counter() - started) * 1e6)
        self.signature_defs = dict(meta_graph.signature_def)
        self.signatures = {
            key: Signature(key, definition)
            for key, definition in self.signature_defs.items()
            if definition.method_name in PREDICT_METHODS
        }
        self.calls: dict[str, Call] = {}
        for signature in self.signatures.values():
            self.calls[signature.name] = self.callable(
                [info.name for info in signature.inputs], [info.name for info in signature.outputs]
            )
            self.warm_up(signature, self.calls[signature.name])

    def signature(self, name: str) -> Signature | None:
        """The signature of that name; the empty name means `serving_default`."""
        return self.signatures.get(name or DEFAULT_SIGNATURE)

    def has_op(self, kinds: Collection[str]) -> bool:
        """Whether the graph, or a function that it calls, has an operation of one of these types."""
        definition = self.graph.as_graph_def()
        functions = (function.node_def for function in definition.library.function)
        return any(node.op in kinds for nodes in (definition.node, *functions) for node in nodes)

    def callable(self, inputs: Sequence[str], outputs: Sequence[str]) -> Call:
        """A prepared call of the graph, from arrays for `inputs` to arrays of `outputs` (tensor names)."""
        options = config_pb2.CallableOptions(feed=inputs, fetch=outputs)
        if self.one_inter_op_thread:
            options.run_options.inter_op_thread_pool = -1  # the caller's own thread: one hand-over less
        run = self.session._make_callable_from_options(options)

        def call(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
            try:
                return list(run(*arrays))
            except tf.errors.OpError as error:
                raise serving_error(error) from None

        return call

    def run(self, signature: Signature, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Compute one request; raises `ServingError`.

        An empty batch is computed as one row of zeros that is then cut off: oneDNN's convolution fails on no rows.
        """
        call = self.calls[signature.name]
        if arrays and all(array.ndim and not len(array) for array in arrays):
            if any(math.prod(array.shape[1:]) * array.itemsize > tensors.MAX_FILLED_BYTES for array in arrays):
                raise invalid("a row of an empty batch is too large")
            rows = [np.full((1, *array.shape[1:]), _zero(array.dtype), array.dtype) for array in arrays]
            return [output[:0] if output.ndim else output for output in call(rows)]
        return call(arrays)

    def close(self) -> None:
        """Free the session and everything that it holds."""
        self.calls.clear()
        self.session.close()

    def warm_up(self, signature: Signature, call: Call, *more: np.ndarray) -> None:
        """One call with a row of zeros (and the arrays `more`), so that no client pays for the runtime's lazy work.

        Raises `ServingError` when the load is broken; a model may rightly refuse zeros.
        """
        arrays = []
        for info in signature.inputs:
            if info.shape is None or info.dtype not in tensors.TYPES:
                return
            shape = [1 if size < 0 else size for size in info.shape]
            dtype = tensors.TYPES[info.dtype][0]
            arrays.append(np.full(shape, _zero(dtype), dtype))
        try:
            call([*arrays, *more])
        except ServingError as error:
            if error.code not in (Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE):
                raise
            log.info("the warm-up call of %s %d, %s, was refused: %s", self.name, self.version, signature.name, error)


def _zero(dtype: np.dtype[Any]) -> Any:
    return b"" if dtype.kind == "O" else 0


def _session_config(flags: Flags) -> config_pb2.ConfigProto:
    parallelism = flags.tensorflow_session_parallelism
    return config_pb2.ConfigProto(
        intra_op_parallelism_threads=flags.tensorflow_intra_op_parallelism or parallelism,
        inter_op_parallelism_threads=flags.tensorflow_inter_op_parallelism or parallelism,
    )


def serving_error(error: tf.errors.OpError) -> ServingError:
    """The runtime's error as the client sees it."""
    return ServingError(Code(error.error_code), str(error.message))
