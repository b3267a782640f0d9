"""A user's ONNX file in place of Tandem's export: what the SavedModel is made of. Where it does not speak the wire,
nodes that do are put before and after its own, which stay as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from models import answers, onnx_reading, own_files
from models.architectures import ImageClassifier
from models.bundle import Around
from models.declaration import ChannelOrder, Layout
from models.onnx_export import INPUT, OUTPUT
from models.own_files import Files
from models.problem import Problem

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
ANTIALIAS = 18  # the opset that brought it to Resize
SILENT = 4  # ONNX Runtime writes to stderr what it raises as well
OWN = "own_"  # before the names of the user's values, which may be those of the wire


@dataclass(frozen=True)
class _Tensor:
    """An input or output: its name, number type, and sizes (None: free)."""

    name: str
    kind: int
    sizes: tuple[int | None, ...]

    @classmethod
    def of(cls, value: onnx.ValueInfoProto) -> _Tensor:
        tensor = value.type.tensor_type
        sizes = tuple(size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim)
        return cls(value.name, tensor.elem_type, sizes)

    @property
    def shown(self) -> str:
        """The sizes in brackets."""
        return f"[{', '.join('?' if size is None else str(size) for size in self.sizes)}]"


class OwnOnnx:
    """An ONNX file with one input of images and one output [N, classes], ready to be written so that it speaks the
    wire."""

    def __init__(self, files: Files, classifier: ImageClassifier, images: np.ndarray, classes: int) -> None:
        """Read it, and ask ONNX Runtime about a few of ``images``, uint8 [N, H, W, C].

        Floats get what the PyTorch side's ``classifier`` does to pixels; answers that are no probabilities, a softmax.
        Raises `Problem`, one line with the way out, for one that is damaged or hostile, has operators that cannot be
        imported, takes or gives anything else, whose weights hold NaN, keeps state, or lets an image's answer depend on
        the others of its batch.
        """
        self.files, self.label = files, f"ONNX={files.path}"
        self._classifier, self._classes = classifier, classes
        from models import savedmodel  # takes seconds to import TensorFlow: only once it is needed

        model = onnx_reading.read(files.path)
        with self._naming():
            model = onnx_reading.inlined(model)
            savedmodel.require_operators(model)
            onnx_reading.check_order(model.graph)
            graph = onnx_reading.with_shapes(model)
            self._check_weights(model.graph)
        constants = {tensor.name for tensor in graph.initializer}
        self._input = self._only("input", [value for value in graph.input if value.name not in constants])
        self._output = self._only("output", list(graph.output))
        self.around = self._before()
        self._check_output()
        self.model = self._wrapped(model, softmax=False)
        with self._naming():
            savedmodel.require_importable(self.model)
        if not answers.are_probabilities(answers.steady(self.label, self._ask, images[: answers.FEW])):
            self.around = (*self.around, Around.SOFTMAX)
            self.model = self._wrapped(model, softmax=True)

    def write(self, path: Path) -> None:
        """Write it: the file as it is where nothing has to be around it and its weights are in it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        own = onnx.load(str(self.files.path), load_external_data=False)
        external = any(map(onnx.external_data_helper.uses_external_data, own.graph.initializer))
        if self.around or external:
            onnx.save(self.model, str(path))
        else:
            own_files.copy(self.files, path)

    def _only(self, what: str, values: list[onnx.ValueInfoProto]) -> _Tensor:
        if len(values) != 1:
            names = f" ({', '.join(value.name for value in values)})" if values else ""
            raise Problem(
                f"{self.label}: has {len(values)} {what}s{names}; export it with one: images in, [N, classes] out"
            )
        return _Tensor.of(values[0])

    def _before(self) -> tuple[Around, ...]:
        """What has to be done to images for its input, and to the number type and names of its output."""
        given, (height, width, channels) = self._input, self._classifier.image_shape
        around = [Around.RENAMED] if (given.name, self._output.name) != (INPUT, OUTPUT) else []
        if given.kind not in (TensorProto.UINT8, *FLOATS):
            raise Problem(f"{self.label}: input {given.name} is {_kind(given.kind)}; use uint8 or float32")
        if given.kind == TensorProto.UINT8:
            if not _fits(given.sizes, (height, width, channels)):
                self._refuse_input((height, width, channels))
            if self._output.kind != TensorProto.FLOAT:
                around.append(Around.CAST)
            return tuple(around)
        steps = self._classifier.steps
        height, width = steps.crop or steps.resize or (height, width)
        first = _fits(given.sizes, (channels, height, width))
        if first and _fits(given.sizes, (height, width, channels)):
            first = steps.layout is Layout.NCHW
        elif not first and not _fits(given.sizes, (height, width, channels)):
            self._refuse_input((channels, height, width))
        around += [Around.CAST, Around.NORMALISED]
        return (*around, Around.TRANSPOSED) if first else tuple(around)

    def _refuse_input(self, sides: tuple[int, int, int]) -> None:
        given, wanted = self._input, ", ".join(map(str, sides))
        if len(given.sizes) == 4 and given.sizes[0] is not None:
            raise Problem(
                f"{self.label}: input {given.name} takes batches of {given.sizes[0]} alone; export it with a "
                'free batch size (dynamic_shapes, or dynamic_axes={"' + given.name + '": {0: "batch"}})'
            )
        raise Problem(
            f"{self.label}: input {given.name} is {given.shown}, and the model's images come as [N, {wanted}]; export "
            "it for these, with height, width and channels fixed, or mend INPUT"
        )

    def _check_output(self) -> None:
        given = self._output
        if given.kind not in FLOATS:
            raise Problem(
                f"{self.label}: output {given.name} is {_kind(given.kind)}; export float32 scores [N, classes]"
            )
        if given.sizes and len(given.sizes) != 2:
            raise Problem(f"{self.label}: output {given.name} is {given.shown}; export one float tensor [N, classes]")
        if given.sizes and given.sizes[1] not in (None, self._classes):
            self._refuse_classes(given.sizes[1])

    def _refuse_classes(self, classes: object) -> None:
        raise Problem(
            f"{self.label}: output {self._output.name} has {classes} classes, and the PyTorch side has "
            f"{self._classes}; bring two sides of one model"
        )

    def _check_weights(self, graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            numbers = onnx_reading.array(tensor)
            if numbers.dtype.kind in "fV" and np.isnan(numbers.astype(np.float32)).any():
                raise Problem(f"weights {tensor.name} hold NaN; mend the checkpoint")

    def _ask(self, images: np.ndarray) -> np.ndarray:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = SILENT
        try:
            content = self.model.SerializeToString()
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            found: np.ndarray = session.run([OUTPUT], {INPUT: images})[0]
        except Exception as error:  # of ONNX Runtime's own kinds
            sides = "x".join(map(str, self._classifier.image_shape))
            raise Problem(
                f"{self.label}: cannot answer {len(images)} images of {sides} ({_line(error)}); export it with a free "
                "batch size for images of this size"
            ) from None
        if found.ndim != 2 or len(found) != len(images):
            raise Problem(
                f"{self.label}: output {self._output.name} is {list(found.shape)} for {len(images)} images; export one "
                "float tensor [N, classes]"
            )
        if found.shape[1] != self._classes:
            self._refuse_classes(found.shape[1])
        return found

    def _wrapped(self, model: onnx.ModelProto, softmax: bool) -> onnx.ModelProto:
        """The model between nodes that make its input of the wire's and the wire's output of its own."""
        if not self.around and not softmax:
            return model
        made = onnx.compose.add_prefix(model, OWN, rename_nodes=False)
        graph, own = made.graph, [*made.graph.node]
        first, last = OWN + self._input.name, OWN + self._output.name
        weights, before = self._nodes_before(made, first)
        floats = "scores" if softmax else OUTPUT
        after = [helper.make_node("Cast", [last], [floats], "wire_floats", to=TensorProto.FLOAT)]
        if softmax:
            after.append(helper.make_node("Softmax", [floats], [OUTPUT], "wire_softmax", axis=-1))
        del graph.node[:]
        graph.node.extend([*before, *own, *after])
        graph.initializer.extend(weights)
        kept = [value for value in graph.input if value.name != first]
        del graph.input[:]
        sides = self._classifier.image_shape
        graph.input.extend([helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", *sides]), *kept])
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", self._classes]))
        return made

    def _nodes_before(self, model: onnx.ModelProto, last: str) -> tuple[list[TensorProto], list[NodeProto]]:
        """Constants and nodes from the wire's images to the value ``last``, as `ImageClassifier` treats images."""
        weights: list[TensorProto] = []
        nodes: list[NodeProto] = []
        value = INPUT

        def constant(name: str, array: np.ndarray) -> str:
            weights.append(numpy_helper.from_array(array, f"wire_{name}"))
            return f"wire_{name}"

        def add(operator: str, name: str, *more: str, **attributes: object) -> None:
            nonlocal value
            nodes.append(helper.make_node(operator, [value, *more], [f"wire_{name}_out"], f"wire_{name}", **attributes))
            value = f"wire_{name}_out"

        if self._input.kind != TensorProto.UINT8:
            steps = self._classifier.steps
            add("Cast", "cast", to=TensorProto.FLOAT)
            add("Transpose", "channels_first", perm=[0, 3, 1, 2])
            if steps.resize:
                opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
                if opset < ANTIALIAS:
                    raise Problem(
                        f"{self.label}: opset {opset} cannot resize with antialias; export it with {ANTIALIAS}"
                    )
                sizes = constant("sizes", np.array(steps.resize, np.int64))
                add("Resize", "resize", "", "", sizes, mode="linear", antialias=1, axes=[2, 3])
            if steps.crop:
                whole, cut = steps.resize or self._classifier.image_shape[:2], steps.crop
                starts = [round((side - part) / 2) for side, part in zip(whole, cut, strict=True)]
                ends = [start + part for start, part in zip(starts, cut, strict=True)]
                edges = [constant(name, np.array(at, np.int64)) for name, at in (("starts", starts), ("ends", ends))]
                add("Slice", "crop", *edges, constant("axes", np.array([2, 3], np.int64)))
            if steps.channel_order is ChannelOrder.BGR:
                add("Gather", "bgr", constant("order", np.array([2, 1, 0], np.int64)), axis=1)
            add("Sub", "mean", constant("means", self._classifier.mean.numpy()))
            add("Div", "std", constant("stds", self._classifier.std.numpy()))
            if Around.TRANSPOSED not in self.around:
                add("Transpose", "channels_last", perm=[0, 2, 3, 1])
            if self._input.kind != TensorProto.FLOAT:
                add("Cast", "kind", to=self._input.kind)
        nodes.append(helper.make_node("Identity", [value], [last], "wire_input"))
        return weights, nodes

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except Problem as problem:
            raise Problem(f"{self.label}: {problem}", problem.details) from problem


def _fits(sizes: tuple[int | None, ...], sides: tuple[int, int, int]) -> bool:
    """Whether an input takes any number of images of these sides; those that are free fit, too."""
    return len(sizes) == 4 and sizes[0] is None and all(a in (None, b) for a, b in zip(sizes[1:], sides, strict=True))


def _kind(number: int) -> str:
    try:
        return str(TensorProto.DataType.Name(number)).lower()
    except ValueError:
        return f"of type {number}"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
