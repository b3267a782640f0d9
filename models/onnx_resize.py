"""ONNX's Resize: nearest, linear and cubic, along any axes, as tables of taps that are computed at export time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.onnx_nodes import Node, operator
from models.onnx_values import NHWC, Value
from models.tensorflow_quietly import tf

COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)
ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class Taps:
    """How one axis is made: output i is the sum over t of weights[t, i] times input places[t, i].

    ``outside[i]`` where the coordinate lies outside the input and the extrapolation value stands instead.
    """

    places: np.ndarray
    weights: np.ndarray
    outside: np.ndarray


@operator(
    "Resize",
    attributes="antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value "
    "keep_aspect_ratio_policy mode nearest_mode",
)
def resize(
    node: Node, x: Value, roi: Value | None = None, scales: Value | None = None, sizes: Value | None = None
) -> Value:
    """Other sizes along some axes: by nearest neighbour, linear or cubic interpolation."""
    mode = node.choice("mode", "nearest", "nearest", "linear", "cubic")
    coordinates = node.choice("coordinate_transformation_mode", "half_pixel", *COORDINATES)
    axes = [axis % x.rank for axis in node.get("axes") or range(x.rank)]
    factors = _factors(node, x, axes, scales, sizes)
    dtype = tf.as_dtype(x.tensor.dtype)
    if mode != "nearest" and not dtype.is_floating:
        node.fail(f"mode={mode!r} on {dtype.name}; cast to a float first")
    region = node.static(roi, "roi") if coordinates == "tf_crop_and_resize" else None
    if coordinates == "tf_crop_and_resize" and (region is None or region.size != 2 * len(axes)):
        node.fail("tf_crop_and_resize needs a roi with a start and an end for each axis")
    taps = {}
    for index, axis in enumerate(axes):
        factor, output = factors[index]
        whole = x.shape[axis]
        if factor == 1.0 and (whole is None or output == whole) and region is None:
            continue
        if whole is None:
            node.fail(f"axis {axis} of unknown size cannot be resized; export the model with fixed sizes")
        corner = (0.0, 1.0) if region is None else (float(region[index]), float(region[index + len(axes)]))
        taps[axis] = _taps(node, mode, coordinates, whole, output, factor, corner)
    node.bounded([len(taps[axis].outside) if axis in taps else size or 1 for axis, size in enumerate(x.shape)], dtype)
    at_once = _in_one_operation(x, mode, taps)
    return at_once if at_once is not None else _along_each(node, x, taps)


def _factors(
    node: Node, x: Value, axes: list[int], scales: Value | None, sizes: Value | None
) -> list[tuple[float, int | None]]:
    """(factor, output size) for each axis; a size is None for an axis of unknown size that stays as it is."""
    given = node.static(scales, "scales")
    if given is not None and given.size:
        if given.size != len(axes) or not (given > 0).all():
            node.fail(f"scales={given.tolist()} for {len(axes)} axes; give a positive number for each")
        result: list[tuple[float, int | None]] = []
        for axis, factor in zip(axes, map(float, given), strict=True):
            whole = x.shape[axis]
            result.append((factor, None if whole is None else math.floor(whole * factor)))
        return result
    before = [x.shape[axis] for axis in axes]
    wanted = _wanted(node, sizes, before)
    # A batch of unknown size is never resized, whatever size the exporter saw.
    ratios = [1.0 if size is None else want / size for want, size in zip(wanted, before, strict=True)]
    policy = node.choice("keep_aspect_ratio_policy", "stretch", "stretch", "not_larger", "not_smaller")
    if policy != "stretch":
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        return [(ratio, None if size is None else math.floor(ratio * size + 0.5)) for size in before]
    return [(ratio, None if size is None else want) for ratio, want, size in zip(ratios, wanted, before, strict=True)]


def _wanted(node: Node, sizes: Value | None, before: list[int | None]) -> list[int]:
    """The sizes that are asked for; of an axis of unknown size any number, as PyTorch's exporter takes it from the
    input's shape at run time."""
    if sizes is not None and sizes.constant is None and sizes.rank == 1:
        from tensorflow.python.framework.tensor_util import constant_value_as_shape

        found = constant_value_as_shape(sizes.logical())
        known = list(found) if found.rank is not None else []
        if len(known) == len(before) and all(
            size is None or want is not None for want, size in zip(known, before, strict=True)
        ):
            return [want or 1 for want in known]
    wanted = node.integers(sizes, "sizes")
    if wanted is None or len(wanted) != len(before):
        node.fail(f"sizes={wanted} for {len(before)} axes; give scales or sizes, one for each")
    return wanted


def _taps(
    node: Node, mode: str, coordinates: str, whole: int, output: int | None, factor: float, corner: tuple[float, float]
) -> Taps:
    assert output is not None
    x = _original(coordinates, whole, output, factor, corner)
    outside = ((x < 0) | (x > whole - 1)) & (coordinates == "tf_crop_and_resize")
    if mode == "nearest":
        rounding = node.choice("nearest_mode", "round_prefer_floor", *ROUNDINGS)
        places = np.clip(ROUNDINGS[rounding](x), 0, whole - 1)[None].astype(np.int64)
        return Taps(places, np.ones_like(places, np.float64), outside)
    # With antialias a kernel widens as the image shrinks, so that every pixel of the input counts.
    narrow = min(factor, 1.0) if node.get("antialias", 0) else 1.0
    radius = 1 if mode == "linear" else 2
    first = math.floor(-radius / narrow) + 1
    below = np.floor(x)
    offsets = np.arange(first, first + 2 * (1 - first))[:, None]
    distance = np.abs(offsets - (x - below)) * narrow
    weights = np.clip(1 - distance, 0, None) if mode == "linear" else _cubic(distance, node.get("cubic_coeff_a", -0.75))
    places = (below + offsets).astype(np.int64)
    if node.get("exclude_outside", 0):
        weights = np.where((places < 0) | (places >= whole), 0.0, weights)
    return Taps(np.clip(places, 0, whole - 1), weights / weights.sum(axis=0), outside)


def _original(coordinates: str, whole: int, output: int, factor: float, corner: tuple[float, float]) -> np.ndarray:
    """Where each pixel of the output lies in the input (ONNX's formulae, with the size that the scale asks for)."""
    x = np.arange(output, dtype=np.float64)
    exact = factor * whole
    if coordinates == "align_corners":
        return np.zeros_like(x) if exact == 1 else x * (whole - 1) / (exact - 1)
    if coordinates == "asymmetric":
        return x / factor
    if coordinates == "tf_crop_and_resize":
        start, end = corner
        if exact == 1:
            return np.full_like(x, 0.5 * (start + end) * (whole - 1))
        return start * (whole - 1) + x * (end - start) * (whole - 1) / (exact - 1)
    if coordinates == "pytorch_half_pixel" and exact == 1:
        return np.full_like(x, -0.5)
    shift = whole / 2 * (1 - output / exact) if coordinates == "half_pixel_symmetric" else 0.0
    return shift + (x + 0.5) / factor - 0.5


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel (Cubic convolution interpolation, 1981)."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _along_each(node: Node, x: Value, taps: dict[int, Taps]) -> Value:
    tensor = tf.convert_to_tensor(x.tensor)
    inside = None
    for axis, table in taps.items():
        (position,) = x.positions([axis])
        shape = [-1 if other == position else 1 for other in range(x.rank)]
        parts = []
        for places, weights in zip(table.places, table.weights, strict=True):
            part = tf.gather(tensor, places, axis=position)
            parts.append(part if (weights == 1).all() else part * tf.cast(weights.reshape(shape), tensor.dtype))
        tensor = parts[0] if len(parts) == 1 else tf.add_n(parts)
        if table.outside.any():
            row = ~table.outside.reshape(shape)
            inside = row if inside is None else inside & row
    if inside is not None:
        value = tf.cast(node.get("extrapolation_value", 0.0), tensor.dtype)
        tensor = tf.where(tf.constant(inside), tensor, value)
    return x.with_tensor(tensor)


def _in_one_operation(x: Value, mode: str, taps: dict[int, Taps]) -> Value | None:
    """Height and width of images by TensorFlow's own kernel, where it has one that reads the same pixels."""
    if x.rank != 4 or x.constant is not None or not set(taps) <= {2, 3} or None in x.shape[2:]:
        return None
    before = [int(size or 0) for size in x.shape[2:]]
    after = [len(taps[axis].outside) if axis in taps else before[axis - 2] for axis in (2, 3)]
    if mode == "nearest":
        for corners, centres in ((False, False), (False, True)):
            if all(_nearest_agrees(taps.get(axis), before[axis - 2], after[axis - 2], centres) for axis in (2, 3)):
                y = tf.raw_ops.ResizeNearestNeighbor(
                    images=x.laid(NHWC), size=after, align_corners=corners, half_pixel_centers=centres
                )
                return Value(y, NHWC)
    if mode == "linear" and tf.as_dtype(x.tensor.dtype) == tf.float32:
        for corners, centres in ((False, True), (True, False), (False, False)):
            if all(
                _linear_agrees(taps.get(axis), before[axis - 2], after[axis - 2], corners, centres) for axis in (2, 3)
            ):
                y = tf.raw_ops.ResizeBilinear(
                    images=x.laid(NHWC), size=after, align_corners=corners, half_pixel_centers=centres
                )
                return Value(y, NHWC)
    return None


def _nearest_agrees(taps: Taps | None, before: int, after: int, centres: bool) -> bool:
    """Whether TensorFlow's kernel picks the same pixels (it computes in float32 and rounds down)."""
    places = np.arange(after, dtype=np.float32) + np.float32(0.5 if centres else 0.0)
    own = np.minimum(np.floor(places * np.float32(before / after)), before - 1).astype(np.int64)
    theirs = np.arange(after) if taps is None else taps.places[0]
    return bool((own == theirs).all()) and (taps is None or not taps.outside.any())


def _linear_agrees(taps: Taps | None, before: int, after: int, corners: bool, centres: bool) -> bool:
    """Whether TensorFlow's kernel interpolates between the same pixels by the same shares."""
    if taps is None:  # unchanged, in whatever coordinates
        return True
    if len(taps.places) != 2 or taps.outside.any():
        return False
    if corners and after > 1:
        x = np.arange(after) * ((before - 1) / (after - 1))
    else:
        shift = 0.5 if centres else 0.0
        x = (np.arange(after) + shift) * (before / after) - shift
    x = np.clip(x, 0, before - 1)
    below = np.floor(x)
    matrices = []
    for places, weights in (
        (taps.places, taps.weights),
        (np.stack([below, np.minimum(below + 1, before - 1)]).astype(np.int64), np.stack([1 - (x - below), x - below])),
    ):
        matrix = np.zeros((after, before))
        for row, share in zip(places, weights, strict=True):
            np.add.at(matrix, (np.arange(after), row), share)
        matrices.append(matrix)
    return bool(np.abs(matrices[0] - matrices[1]).max() < 1e-6)
