"""One version of one model: loading its SavedModel into a TensorFlow session, and calling its signatures.

The session is what TensorFlow Serving runs ("TF1" runtime), so both kinds of SavedModel work and errors read the
same. A call goes through a prepared callable, which skips the session's feed and fetch parsing.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from google.protobuf.message import Message
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
from tensorflow.python.saved_model import loader_impl

from serving.engines.embedded_tfserving import large_constants, tensors
from serving.engines.embedded_tfserving.flags import CPUS, Flags
from serving.engines.embedded_tfserving.identity import NAME
from serving.engines.embedded_tfserving.signature import DEFAULT_SIGNATURE, Signature
from serving.engines.embedded_tfserving.status import ServingError, invalid
from serving.wire.grpc_status import Code

log = logging.getLogger(NAME)

PREDICT_METHODS = ("tensorflow/serving/predict", "tensorflow/serving/classify", "tensorflow/serving/regress")
# What a warm-up call says where the version's state has not been loaded: no variables, no tables, no files.
NOT_LOADED = (Code.FAILED_PRECONDITION, Code.NOT_FOUND, Code.DATA_LOSS)
# oneDNN's convolutions and poolings end the process (a failed CHECK) on an input of another number of dimensions.
CONVOLUTIONS = re.compile("Conv|Pool|BatchNorm")

AnyMessage = TypeVar("AnyMessage", bound=Message)
Call = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def _brackets(shape: Sequence[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


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
        self.sessions: list[tf.compat.v1.Session] = []
        self.config = _session_config(flags)
        # TensorFlow's default is as many as there are CPUs.
        self.one_inter_op_thread = (self.config.inter_op_parallelism_threads or CPUS) == 1
        started = time.perf_counter()
        with self.graph.as_default():
            self.session = self._session(self.graph, self.config)
            try:
                meta_graph = self._load(flags.saved_model_tags.split(","))
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
        # Copies: a part of a message keeps the whole of it in memory, the graph and its constants as well.
        self.signature_defs = {key: _copy(definition) for key, definition in meta_graph.signature_def.items()}
        del meta_graph
        self.signatures = {
            key: Signature(key, definition)
            for key, definition in self.signature_defs.items()
            if definition.method_name in PREDICT_METHODS
        }
        self.fixed_ranks = any(map(CONVOLUTIONS.search, self.operations))
        self.calls: dict[str, Call] = {}
        self.uncallable: set[str] = set()  # names of signatures, each of which refuses every call
        for signature in self.signatures.values():
            self.calls[signature.name] = self._prepared(signature)
            self.warm_up(signature, self.calls[signature.name])

    def _load(self, tags: Sequence[str]) -> meta_graph_pb2.MetaGraphDef:
        """Load the SavedModel into the session, but for its large constants; returns what is left of its message.

        As `tf.compat.v1.saved_model.load`, which reads the file a second time for its statistics.
        """
        loader = loader_impl.SavedModelLoader(str(self.path))
        meta_graph = loader.get_meta_graph_def_from_tags(tags)
        self.operations = _operations(meta_graph.graph_def)
        self.networks = large_constants.take_out(meta_graph.graph_def)
        if self.networks:
            loader._saved_model = _copy(loader._saved_model)  # the message keeps the memory of what is taken out
            del meta_graph
            for network in self.networks:
                network.prepare(self._prepare_network)
        saver, _ = loader.load_graph(self.graph, tags)
        loader.restore_variables(self.session, saver)
        loader.run_init_ops(self.session, tags)
        return loader.get_meta_graph_def_from_tags(tags)

    def _session(self, graph: tf.Graph, config: config_pb2.ConfigProto) -> tf.compat.v1.Session:
        session = tf.compat.v1.Session(graph=graph, config=config)
        self.sessions.append(session)
        return session

    def _prepare_network(
        self, graph: tf.Graph, inputs: Sequence[str], outputs: Sequence[str], targets: Sequence[str]
    ) -> Call:
        config = _copy(self.config)
        # Threads of its own: those of the calls that wait for it are taken.
        config.use_per_session_threads = True
        # Of no use where nothing is trained, and it copies the graph several times.
        config.graph_options.rewrite_options.memory_optimization = rewriter_config_pb2.RewriterConfig.NO_MEM_OPT
        return self._callable(self._session(graph, config), inputs, outputs, targets)

    def signature(self, name: str) -> Signature | None:
        """The signature of that name; the empty name means `serving_default`."""
        return self.signatures.get(name or DEFAULT_SIGNATURE)

    def has_op(self, kinds: Collection[str]) -> bool:
        """Whether the graph, or a function that it calls, has an operation of one of these types."""
        return not self.operations.isdisjoint(kinds)

    def check_ranks(self, signature: Signature, arrays: Sequence[np.ndarray]) -> None:
        """Raises `ServingError` for an input of another number of dimensions than the signature's where that could end
        the process. Otherwise the runtime is asked, whatever the shape."""
        if self.fixed_ranks:
            for info, array in zip(signature.inputs, arrays, strict=True):
                if info.shape is not None and array.ndim != len(info.shape):
                    raise invalid(
                        f"input {info.alias} has shape {_brackets(array.shape)}; "
                        f"the signature wants {_brackets(info.shape)}"
                    )

    def _prepared(self, signature: Signature) -> Call:
        """A call of a signature. One that cannot be called (with a sparse input, say) refuses, and harms no other."""
        try:
            return self.callable([info.name for info in signature.inputs], [info.name for info in signature.outputs])
        except ServingError as error:
            code, message = error.code, error.message
        log.warning(
            "signature %s of %s version %d cannot be called: %s", signature.name, self.name, self.version, message
        )
        self.uncallable.add(signature.name)

        def refuse(_: Sequence[np.ndarray]) -> list[np.ndarray]:
            raise ServingError(code, message)

        return refuse

    def callable(self, inputs: Sequence[str], outputs: Sequence[str]) -> Call:
        """A prepared call of the graph, from arrays for `inputs` to arrays of `outputs` (tensor names).

        Raises `ServingError` where the graph cannot be called so.
        """
        return self._callable(self.session, inputs, outputs)

    def _callable(
        self, session: tf.compat.v1.Session, inputs: Sequence[str], outputs: Sequence[str], targets: Sequence[str] = ()
    ) -> Call:
        options = config_pb2.CallableOptions(feed=inputs, fetch=outputs, target=targets)
        if self.one_inter_op_thread:
            options.run_options.inter_op_thread_pool = -1  # the caller's own thread: one hand-over less
        try:
            run = session._make_callable_from_options(options)
        except tf.errors.OpError as error:
            raise serving_error(error) from None

        def call(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
            try:
                return list(run(*arrays))
            except tf.errors.OpError as error:
                raise serving_error(error) from None
            except (TypeError, ValueError) as error:  # an output that no array can hold
                raise ServingError(Code.INTERNAL, str(error)) from None

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
        for session in self.sessions:
            session.close()

    def warm_up(self, signature: Signature, call: Call, *more: np.ndarray) -> None:
        """One call with a row of zeros (and the arrays `more`), so that no client pays for the runtime's lazy work.

        Raises `ServingError` when the load is broken; a model may rightly refuse zeros, and one broken signature does
        not make the others so.
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
            if error.code in NOT_LOADED:
                raise
            log.info("the warm-up call of %s %d, %s, was refused: %s", self.name, self.version, signature.name, error)


def _operations(definition: graph_pb2.GraphDef) -> frozenset[str]:
    """The types of the operations of a graph and of the functions in it."""
    functions = (function.node_def for function in definition.library.function)
    return frozenset(node.op for nodes in (definition.node, *functions) for node in nodes)


def _copy(message: AnyMessage) -> AnyMessage:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _zero(dtype: np.dtype[Any]) -> Any:
    return b"" if dtype.kind == "O" else 0


def _session_config(flags: Flags) -> config_pb2.ConfigProto:
    parallelism = flags.tensorflow_session_parallelism
    return config_pb2.ConfigProto(
        # As TensorFlow Serving has it: else every prepared call keeps its graph.
        experimental=config_pb2.ConfigProto.Experimental(disable_output_partition_graphs=True),
        intra_op_parallelism_threads=flags.tensorflow_intra_op_parallelism or parallelism,
        inter_op_parallelism_threads=flags.tensorflow_inter_op_parallelism or parallelism,
        # 0: all of it. Of all sessions of a process the first one decides.
        gpu_options=config_pb2.GPUOptions(per_process_gpu_memory_fraction=flags.per_process_gpu_memory_fraction),
    )


def serving_error(error: tf.errors.OpError) -> ServingError:
    """The runtime's error as the client sees it."""
    message = str(error.message)
    return large_constants.error_of(message) or ServingError(Code(error.error_code), message)
