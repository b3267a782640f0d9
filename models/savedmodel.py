"""Export to a TensorFlow SavedModel: an importer of ONNX graphs, whatever the architecture."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from models import encoding as encodings
from models import (  # noqa: F401  they fill the table of operators
    onnx_activations,
    onnx_convolutions,
    onnx_elementwise,
    onnx_folding,
    onnx_matrices,
    onnx_normalisations,
    onnx_pooling,
    onnx_reading,
    onnx_reductions,
    onnx_resize,
    onnx_selections,
    onnx_shapes,
    tensorflow_decoding,
)
from models.onnx_nodes import Node, look_up
from models.onnx_values import Value
from models.problem import Problem
from models.tensorflow_quietly import tf

SIGNATURE, BYTES_SIGNATURE, ENCODED_SIGNATURE = "serving_default", "serving_bytes", "serving_encoded"
INPUT, BYTES_INPUT, OUTPUT = "images", "image_bytes", "probabilities"
# Which tensor holds which ONNX value, for the parity gate. TF Serving ignores what it does not know in this folder.
VALUES = Path("assets.extra") / "onnx-values.json"
LARGEST_GRAPH = 2**31 - 2**20  # protobuf's limit, less room for everything but weights


class Importer:
    """An ONNX model whose operators and opset are all known; builds the same computation of TensorFlow operations."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Raises `Problem` naming operator, node and opset for the first node that cannot be imported.

        So it does, naming tensor or value, for a model that is damaged.
        """
        copy = onnx.ModelProto()
        copy.CopyFrom(onnx_reading.inlined(model))
        onnx_reading.check_order(copy.graph)
        model = onnx_folding.fold_batch_normalizations(copy)
        self._nodes = list(_nodes(model))
        self.constants = {tensor.name: onnx_reading.array(tensor) for tensor in model.graph.initializer}
        graph = onnx_reading.with_shapes(model)
        self.inputs = {value.name: value for value in graph.input if value.name not in self.constants}
        self.outputs = [value.name for value in graph.output]
        self._shapes = {value.name: _dimensions(value) for value in [*graph.value_info, *graph.output]}

    def build(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Value]:
        """Add the graph's operations to the current TensorFlow graph; returns every ONNX value by name."""
        values = {name: Value.of(array) for name, array in self.constants.items()}
        values.update((name, Value.of(tensor)) for name, tensor in inputs.items())
        for proto, node in self._nodes:
            arguments = [values[name] if name else None for name in proto.input]
            results = _apply(node, arguments)
            for name, result in zip(proto.output, results, strict=False):
                self._refine(name, result)
                values[name] = result
        return values

    def _refine(self, name: str, value: Value) -> None:
        """Tell TensorFlow the sizes that ONNX knows and its own inference may have lost."""
        sizes = self._shapes.get(name)
        if sizes is not None and value.constant is None and len(sizes) == value.rank:
            known = value.tensor.shape  # where both know, TensorFlow is right: ONNX's ceil_mode rule changed over time
            value.tensor.set_shape(
                [own if own is not None else sizes[axis] for own, axis in zip(known, value.axes, strict=True)]
            )


def _nodes(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, Node]]:
    """The nodes of a model without local functions; raises `Problem` for the first that cannot be imported."""
    opsets = {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in model.opset_import}
    for proto in model.graph.node:
        node = Node.read(proto, opsets)
        look_up(node)
        yield proto, node


def require_operators(model: onnx.ModelProto) -> None:
    """Raise `Problem` naming node and opset for the first operator or attribute that the importer does not know."""
    for _ in _nodes(model):
        pass


def require_importable(model: onnx.ModelProto) -> None:
    """Raise `Problem` for a model on ``images`` that `export` would refuse while it builds the graph."""
    importer = Importer(model)
    with tf.Graph().as_default():
        importer.build({INPUT: tf.compat.v1.placeholder(tf.uint8, _dimensions(importer.inputs[INPUT]))})


def export(source: Path, folder: Path, *, encoded: bool = False) -> None:
    """Import the ONNX file ``source`` (images uint8 [N, H, W, C] -> probabilities) into the SavedModel ``folder``.

    Signatures: ``serving_default`` on ``images``; ``serving_bytes`` on ``image_bytes``, strings [N] of H*W*C raw bytes
    each; with ``encoded`` also ``serving_encoded`` on ``encoded_images``, strings [N] of JPEG or PNG files. All answer
    ``probabilities`` float32 [N, classes], and refuse other shapes, lengths and files with InvalidArgument.
    Raises `Problem` for a graph that cannot be imported.
    """
    model = onnx_reading.read(source)
    with _naming(source):
        importer = Importer(model)
    if sum(array.nbytes for array in importer.constants.values()) > LARGEST_GRAPH:
        raise Problem(f"{source}: more than 2 GB of weights do not fit into one SavedModel graph; use a smaller model")
    if list(importer.inputs) != [INPUT] or importer.outputs != [OUTPUT]:
        raise Problem(f"{source}: inputs {list(importer.inputs)}, outputs {importer.outputs}; use {INPUT} and {OUTPUT}")
    shape = _image_shape(source, importer)
    for name, weights in importer.constants.items():
        if weights.dtype.kind in "fV" and np.isnan(weights.astype(np.float32)).any():
            raise Problem(f"{source}: weights {name} hold NaN; train the model again, or mend its checkpoint")
    table: dict[str, Any] = {}

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8, INPUT)], autograph=False)
    def network(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # A server's feed is not checked against the signature: other sizes could pass for a larger batch.
        values = importer.build({INPUT: tf.ensure_shape(images, shape)})
        for name, value in values.items():
            if value.constant is None:
                table[name] = {"tensor": value.tensor.name, "axes": value.axes}
        return {OUTPUT: tf.identity(values[OUTPUT].logical(), OUTPUT)}

    module = tf.Module()
    with _naming(source):
        module.network = network.get_concrete_function()
    write(module, shape, folder, encoded=encoded)
    (folder / VALUES).parent.mkdir(exist_ok=True)
    (folder / VALUES).write_text(json.dumps(table, indent=1) + "\n")


def write(module: tf.Module, shape: list[int | None], folder: Path, *, encoded: bool = False) -> None:
    """Write a SavedModel with the signatures of `export` around ``module.network``, a concrete function from images
    uint8 ``shape`` ([None, H, W, C]) to {"probabilities": …}; with it all that the module holds."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, BYTES_INPUT)], autograph=False)
    def network_on_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs: dict[str, tf.Tensor] = module.network(_decode(tf.ensure_shape(image_bytes, [None]), shape))
        return outputs

    signatures = {SIGNATURE: module.network, BYTES_SIGNATURE: network_on_bytes.get_concrete_function()}
    if encoded:
        signatures[ENCODED_SIGNATURE] = _on_files(module, shape)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _quiet():
        tf.saved_model.save(
            module,
            str(folder),
            signatures=signatures,
        )


def _on_files(module: tf.Module, shape: list[int | None]) -> Any:
    """The signature for files; what decodes them stays with the module as ``decode``, to be timed alone."""
    specification = tf.TensorSpec([None], tf.string, encodings.INPUT)

    @tf.function(input_signature=[specification], autograph=False)
    def decode(encoded_images: tf.Tensor) -> tf.Tensor:
        return tensorflow_decoding.decoded(encoded_images, [int(side or 0) for side in shape[1:]])

    @tf.function(input_signature=[specification], autograph=False)
    def network_on_files(encoded_images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs: dict[str, tf.Tensor] = module.network(decode(tf.ensure_shape(encoded_images, [None])))
        return outputs

    module.decode = decode
    return network_on_files.get_concrete_function()


def load(folder: Path, signature: str = SIGNATURE) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a signature's input to probabilities [N, classes], run by TensorFlow from the SavedModel."""
    loaded = tf.saved_model.load(str(folder))
    function = loaded.signatures[signature]
    (name,) = function.structured_input_signature[1]

    def predict(batch: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = function(**{name: tf.constant(batch)})[OUTPUT].numpy()
        return probabilities

    predict.keep = loaded  # type: ignore[attr-defined]  # the signature lives as long as what it was loaded from
    return predict


def intermediate(folder: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Every ONNX value as the SavedModel computes it for ``images``, in ONNX's axis order, in the graph's order."""
    table = json.loads((folder / VALUES).read_text())
    network = tf.saved_model.load(str(folder)).network
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(network.graph.as_graph_def(), name="")
        with tf.compat.v1.Session(graph=graph) as session:
            tensors = {name: entry["tensor"] for name, entry in table.items() if name != INPUT}
            arrays = session.run(tensors, {f"{INPUT}:0": images})
    return {name: Value(_numbers(array), tuple(table[name]["axes"])).logical() for name, array in arrays.items()}


def _numbers(array: np.ndarray) -> np.ndarray:
    """float32 of a type that NumPy does not have."""
    return array.astype(np.float32) if array.dtype == tf.bfloat16.as_numpy_dtype else array


def is_imported(folder: Path) -> bool:
    """Whether the SavedModel is one of `export`, with the table that `intermediate` reads."""
    return (folder / VALUES).is_file()


def every_tensor(folder: Path, images: np.ndarray, signature: str = SIGNATURE) -> dict[str, np.ndarray]:
    """Every tensor that any SavedModel's ``signature`` computes from ``images``, by name, in the order of computation;
    its function calls are taken apart."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    loaded = tf.saved_model.load(str(folder))
    frozen = convert_variables_to_constants_v2(loaded.signatures[signature], lower_control_flow=False)
    (given,) = frozen.inputs
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.graph.as_graph_def(), name="")
        wanted = [
            tensor
            for operation in graph.get_operations()
            if operation.type not in ("Const", "Placeholder", "NoOp")
            for tensor in operation.outputs
            if tensor.dtype.is_floating and tensor.dtype.is_numpy_compatible
        ]
        with tf.compat.v1.Session(graph=graph) as session:
            arrays = session.run(wanted, {given.name: images})
    return {tensor.name.removesuffix(":0"): array for tensor, array in zip(wanted, arrays, strict=True)}


def _apply(node: Node, arguments: list[Value | None]) -> tuple[Value, ...]:
    """Run a node's function; where all its inputs are constants, now rather than at every request."""
    function = look_up(node)
    try:
        with tf.name_scope(re.sub(r"[^A-Za-z0-9_.\-/]", "_", node.name).lstrip("_-/") or "node"):
            if all(value is None or value.constant is not None for value in arguments):
                with tf.init_scope():
                    return tuple(_folded(result) for result in _as_tuple(function(node, *arguments)))
            return _as_tuple(function(node, *arguments))
    except (TypeError, ValueError, IndexError, tf.errors.OpError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Problem(f"{node}: cannot be imported ({first})") from error


def _as_tuple(results: Value | tuple[Value, ...]) -> tuple[Value, ...]:
    return results if isinstance(results, tuple) else (results,)


def _folded(value: Value) -> Value:
    array = value.logical()
    return Value.of(np.asarray(array if isinstance(array, np.ndarray) else array.numpy()))


def _decode(image_bytes: tf.Tensor, shape: list[int | None]) -> tf.Tensor:
    """Strings [N] of raw pixels -> uint8 [N, H, W, C]; any other length is InvalidArgument."""
    size = int(np.prod([int(side or 0) for side in shape[1:]]))
    sides = "x".join(map(str, shape[1:]))
    lengths = tf.strings.length(image_bytes)
    right = tf.debugging.Assert(
        tf.reduce_all(tf.equal(lengths, size)),
        [f"{BYTES_INPUT}: every element must hold {size} bytes ({sides} uint8); lengths sent:", lengths],
        summarize=8,
    )
    with tf.control_dependencies([right]):
        pixels = tf.io.decode_raw(image_bytes, tf.uint8)
    return tf.reshape(pixels, [tf.size(image_bytes), *shape[1:]])


def _image_shape(source: Path, importer: Importer) -> list[int | None]:
    """[None, H, W, C]; the batch, and nothing else, must be free."""
    shape = _dimensions(importer.inputs[INPUT]) or []
    if len(shape) != 4 or None in shape[1:] or shape[0] is not None:
        sizes = ", ".join("?" if size is None else str(size) for size in shape)
        raise Problem(
            f"{source}: input {INPUT} is [{sizes}]; export it as [N, H, W, C] with a free batch size N, "
            "and height, width and channels fixed"
        )
    return shape


def _dimensions(value: onnx.ValueInfoProto) -> list[int | None] | None:
    if not value.type.tensor_type.HasField("shape"):
        return None
    return [size.dim_value if size.HasField("dim_value") else None for size in value.type.tensor_type.shape.dim]


@contextlib.contextmanager
def _naming(source: Path) -> Iterator[None]:
    """Put the file's name before a problem of its graph."""
    try:
        yield
    except Problem as problem:
        raise Problem(f"{source}: {problem}", problem.details) from problem


class _quiet:
    """Keep TensorFlow's informational lines ("Assets written to ...") off the terminal."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger("tensorflow")
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)
