"""A user's SavedModel as the TensorFlow side: refused where it cannot be served, otherwise left as it is.

Where its signature has other names or number types than the wire, or wants scaled pixels or gives logits, a thin graph
of Tandem's is put around it, which calls the user's own unchanged.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models import answers, checkpoints, onnx_bisection, own_files, savedmodel
from models.answers import FEW
from models.architectures import ImageClassifier
from models.bundle import Around
from models.declaration import ChannelOrder
from models.own_files import Files
from models.problem import Problem
from models.savedmodel import INPUT, OUTPUT, SIGNATURE
from models.tensorflow_quietly import tf

# A server has no Python beside it; and what reads or writes files when it is asked is no classifier.
REFUSED = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles"})
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclass(frozen=True)
class Scaling:
    """(pixels - mean) / std, a value a channel, in 0-255; ``bgr``: once red and blue have changed places."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False


@dataclass(frozen=True)
class Fit:
    """What has to be around a SavedModel for it to speak the wire; ``scaling`` where pixels are to be scaled."""

    around: tuple[Around, ...]
    scaling: Scaling | None = None

    def words(self) -> str:
        """For the terminal: how it is served."""
        if not self.around:
            return "served as it is"
        return f"served behind a signature of the wire ({', '.join(self.around)})"


class OwnSavedModel:
    """A SavedModel with one input of images and one output [N, classes], by its signature ``serving_default``."""

    def __init__(self, files: Files, images: np.ndarray, classes: int) -> None:
        """Load it, and ask it about a few of ``images``, uint8 [N, H, W, C].

        Raises `Problem`, one line with the way out, for one that takes or gives anything else, whose weights hold NaN,
        that cannot answer, keeps state from call to call, or lets an image's answer depend on the others of its batch.
        """
        self.files, self.classes = files, classes
        self._images = images[:FEW]
        self.image_shape: tuple[int, int, int] = images.shape[1:]
        self.label = f"SAVEDMODEL={files.path}"
        _check_content(self.label, files.path)
        try:
            self._loaded: Any = tf.saved_model.load(str(files.path))
        except Exception as error:  # TensorFlow raises many kinds
            raise Problem(f"{self.label}: cannot be loaded ({_line(error)}); {own_files.WRITE_SAVEDMODEL}") from None
        signatures = self._loaded.signatures
        if SIGNATURE not in signatures:
            others = f" (it has {', '.join(sorted(signatures))})" if len(signatures) else ""
            raise Problem(f"{self.label}: no signature {SIGNATURE}{others}; {own_files.WRITE_SAVEDMODEL}")
        self._signature = signatures[SIGNATURE]
        self._input, taken = self._only("input", self._signature.structured_input_signature[1])
        self._output, given = self._only("output", self._signature.structured_outputs)
        self._dtype, self._channels_first = self._pixels(taken)
        self._given = given.dtype
        self._check_output(given)
        self._answers = answers.steady(self.label, self._ask, self._images)

    def fit(self, expected: np.ndarray, classifier: ImageClassifier, tolerance: float, source: Path) -> Fit:
        """What has to be around it.

        Its answers are logits where they are no probabilities. Pixels come as they are, 0-255, unless its input is of
        floats and it agrees with the ``expected`` probabilities, [N, classes] of the same images, only where they are
        scaled: as the other side's ``classifier`` scales them, or by another usual way. Where it agrees in no way, they
        are scaled so that it leaves the ONNX file ``source`` of that side as late as possible: what is told of it is
        then its own fault, not the pixels'.
        """
        around: list[Around] = []
        expected = expected[:FEW]
        if (self._input, self._output) != (INPUT, OUTPUT):
            around.append(Around.RENAMED)
        if self._dtype != tf.uint8 or self._given != tf.float32:
            around.append(Around.CAST)
        if self._channels_first:
            around.append(Around.TRANSPOSED)
        fits = [Fit((*around, *_softmax(self._answers)))]
        if not self._dtype.is_floating or _same(self._answers, expected, tolerance):
            return fits[0]
        for scaling in _scalings(classifier):
            given = self._ask(self._images, scaling)
            if not np.isfinite(given).all():
                continue
            fits.append(Fit((*around, Around.NORMALISED, *_softmax(given)), scaling))
            if _same(given, expected, tolerance):
                return fits[-1]
        return max(fits, key=lambda fit: self._agreeing(fit, source, tolerance))

    def _agreeing(self, fit: Fit, source: Path, tolerance: float) -> float:
        """How many layers of the ONNX file it makes; the pixels' scaling is none."""
        with tempfile.TemporaryDirectory(prefix="tandem-port-") as scratch:
            folder = Path(scratch) / "1"
            self.write(fit, folder)
            found = onnx_bisection.first_difference(source, folder, self._images[:1], tolerance, imported=False)
        return math.inf if found is None else found.layers

    def write(self, fit: Fit, folder: Path) -> None:
        """Put it into ``folder``: its own files unchanged where nothing has to be around it."""
        if not fit.around:
            shutil.copytree(self.files.path, folder, copy_function=shutil.copyfile)
            if own_files.hashes(folder) != self.files.sha256:
                raise Problem(f"{self.label}: changed while it was read; start again")
            return
        shape = [None, *self.image_shape]

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8, INPUT)], autograph=False)
        def network(images: tf.Tensor) -> dict[str, tf.Tensor]:
            answer = tf.cast(self._call(tf.ensure_shape(images, shape), fit.scaling), tf.float32)
            if Around.SOFTMAX in fit.around:
                answer = tf.nn.softmax(answer)
            return {OUTPUT: tf.identity(tf.ensure_shape(answer, [None, self.classes]), OUTPUT)}

        module = tf.Module()
        module.own = self._loaded
        try:
            module.network = network.get_concrete_function()
            savedmodel.write(module, shape, folder)
        except (tf.errors.OpError, ValueError, TypeError, AssertionError) as error:
            raise Problem(
                f"{self.label}: cannot be put behind a signature with {INPUT} and {OUTPUT} ({_line(error)}); export it "
                f"with {SIGNATURE}({INPUT}: uint8 [N, H, W, C]) -> {OUTPUT}"
            ) from None

    def record(self, fit: Fit) -> dict[str, Any]:
        """The manifest's entry."""
        scaling = asdict(fit.scaling) if fit.scaling else None
        return {**self.files.record(fit.around), "scaling": scaling}

    def _call(self, images: tf.Tensor, scaling: Scaling | None) -> tf.Tensor:
        """Its own signature on uint8 images [N, H, W, C]."""
        if scaling is not None:
            ordered = images[..., ::-1] if scaling.bgr else images
            images = (tf.cast(ordered, tf.float32) - tf.constant(scaling.mean)) / tf.constant(scaling.std)
        pixels = tf.cast(images, self._dtype)
        if self._channels_first:
            pixels = tf.transpose(pixels, [0, 3, 1, 2])
        (answer,) = self._signature(**{self._input: pixels}).values()
        return answer

    def _ask(self, images: np.ndarray, scaling: Scaling | None = None) -> np.ndarray:
        try:
            answer: np.ndarray = tf.cast(self._call(tf.constant(images), scaling), tf.float32).numpy()
        except (tf.errors.OpError, ValueError, TypeError) as error:
            sides = "x".join(map(str, self.image_shape))
            raise Problem(
                f"{self.label}: cannot answer {len(images)} images of {sides} ({_line(error)}); export it with a free "
                "batch size for images of this size"
            ) from None
        if answer.shape != (len(images), self.classes):
            self._refuse_output(list(answer.shape))
        return answer

    def _only(self, what: str, specs: dict[str, Any]) -> tuple[str, tf.TensorSpec]:
        """The one input or output of the signature."""
        if len(specs) != 1:
            names = f" ({', '.join(sorted(specs))})" if specs else ""
            raise Problem(
                f"{self.label}: {SIGNATURE} has {len(specs)} {what}s{names}; export a signature with one {what}: "
                f"images in, [N, classes] out"
            )
        return next(iter(specs.items()))

    def _pixels(self, spec: tf.TensorSpec) -> tuple[tf.DType, bool]:
        """The number type of its input, and whether channels come first."""
        if spec.dtype == tf.string:
            raise Problem(f"{self.label}: input {self._input} takes strings; export a signature that takes pixels")
        if not (spec.dtype.is_floating or spec.dtype.is_integer):
            raise Problem(f"{self.label}: input {self._input} is {spec.dtype.name}; use uint8 or float32")
        height, width, channels = self.image_shape
        for sides, first in (((height, width, channels), False), ((channels, height, width), True)):
            if spec.shape.is_compatible_with([None, *sides]):
                if spec.shape.rank is not None and spec.shape[0] is not None:
                    raise Problem(
                        f"{self.label}: input {self._input} takes batches of {spec.shape[0]} alone; export it with a "
                        "free batch size"
                    )
                return spec.dtype, first
        raise Problem(
            f"{self.label}: input {self._input} is {_sizes(spec.shape.as_list())}, and the model's images are "
            f"[N, {height}, {width}, {channels}]; export it for these, or change the other side's"
        )

    def _check_output(self, spec: tf.TensorSpec) -> None:
        if not spec.dtype.is_floating:
            raise Problem(
                f"{self.label}: output {self._output} is {spec.dtype.name}; export one with float32 scores [N, classes]"
            )
        if not spec.shape.is_compatible_with([None, self.classes]):
            self._refuse_output(spec.shape.as_list())

    def _refuse_output(self, sizes: list[int | None]) -> None:
        if len(sizes) == 2 and sizes[1] != self.classes:
            raise Problem(
                f"{self.label}: output {self._output} has {sizes[1]} classes, and the PyTorch side has {self.classes}; "
                "bring two sides of one model"
            )
        raise Problem(f"{self.label}: output {self._output} is {_sizes(sizes)}; export one float tensor [N, classes]")


def _check_content(label: str, folder: Path) -> None:
    """Refuse operations that no classifier needs, and weights that are no numbers, before any of it runs."""
    from tensorflow.python.saved_model.loader_impl import parse_saved_model

    try:
        proto = parse_saved_model(str(folder))
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"{label}: a damaged SavedModel ({_line(error)}); {own_files.WRITE_SAVEDMODEL}") from None
    for node in _nodes(proto):
        if node.op in REFUSED:
            raise Problem(
                f"{label}: operation {node.name} ({node.op}) reads or writes files, or calls Python; export a graph "
                "of tensors alone"
            )
        if node.op == "Const" and _has_nan(_constant(node)):
            raise Problem(f"{label}: constant {node.name} holds NaN; mend its weights")
    variables = folder / "variables" / "variables"
    if not variables.with_name("variables.index").is_file():
        return
    try:
        reader = tf.train.load_checkpoint(str(variables))
        broken = next((name for name in _names(reader) if _has_nan(reader.get_tensor(name))), None)
    except Exception as error:  # TensorFlow raises many kinds
        raise Problem(f"{label}: its variables cannot be read ({_line(error)}); copy the whole folder again") from None
    if broken is not None:
        raise Problem(f"{label}: variable {broken.removesuffix(VALUE)} holds NaN; mend its weights")


def _names(reader: Any) -> list[str]:
    return sorted(reader.get_variable_to_shape_map())


def _nodes(proto: Any) -> Iterator[Any]:
    for meta_graph in proto.meta_graphs:
        yield from meta_graph.graph_def.node
        for function in meta_graph.graph_def.library.function:
            yield from function.node_def


def _constant(node: Any) -> np.ndarray | None:
    try:
        array: np.ndarray = tf.make_ndarray(node.attr["value"].tensor)
    except (TypeError, ValueError):  # of a type that is no number, or damaged: loading it says so
        return None
    return array


def _has_nan(array: Any) -> bool:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fV":
        return False
    try:
        return bool(np.isnan(array.astype(np.float32)).any())  # NumPy knows no NaN of bfloat16 itself
    except (TypeError, ValueError):
        return False


def _scalings(classifier: ImageClassifier) -> list[Scaling]:
    """As the other side scales pixels; to 0..1; to -1..1; as torchvision does for ImageNet."""
    channels = classifier.image_shape[2]
    bgr = classifier.steps.channel_order is ChannelOrder.BGR
    own = Scaling(tuple(classifier.mean.flatten().tolist()), tuple(classifier.std.flatten().tolist()), bgr)
    usual = [Scaling((0.0,) * channels, (255.0,) * channels), Scaling((127.5,) * channels, (127.5,) * channels)]
    if channels == len(checkpoints.IMAGENET_MEAN):
        usual.append(Scaling(checkpoints.IMAGENET_MEAN, checkpoints.IMAGENET_STD))
    return [own, *usual]


def _same(given: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    return answers.agree(answers.as_probabilities(given), expected, tolerance)


def _softmax(given: np.ndarray) -> list[Around]:
    return [] if answers.are_probabilities(given) else [Around.SOFTMAX]


def _sizes(sizes: Sequence[int | None]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in sizes)}]"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
