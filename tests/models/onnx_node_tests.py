"""ONNX's own backend node tests, through the importer. `python -m tests.models.onnx_node_tests` prints the counts."""

from __future__ import annotations

import functools
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from models.onnx_nodes import NEWEST_OPSET, OLDEST_OPSET, OPERATORS
from models.problem import Problem
from models.tensorflow_quietly import tf
from tests.models.onnx_running import imported

# Why a node test of claimed operators is not held: (pattern of names, reason).
EXCLUDED = (
    (r"test_((averagepool|maxpool|convtranspose)_[13]d|causal_conv_with_state)", "not an image: rank 3 or 5"),
    (r"test_(batchnorm_.*training_mode|training_dropout)", "training, which is never served"),
    (r"test_maxpool_with_argmax", "second output of MaxPool (indices)"),
    (r"test_cast.*(FLOAT8|FLOAT4|INT4|INT2|e8m0)", "element type of 8 bits or less that is no plain integer"),
    (r"test_center_crop_pad.*_expanded", "pads computed at run time"),
    (r"test_dropout_random_old", "an attribute of opsets before 13"),
    (r"test_identity_(opt|sequence)", "sequences and optional values"),
)
# Inputs that the importer needs at export time, by place: the tests have them as constants.
NEEDED = {
    **{name: (1,) for _, name in OPERATORS if name.startswith("Reduce")},
    **dict.fromkeys(("Split", "Squeeze", "Tile", "TopK", "Unsqueeze"), (1,)),
    "Dropout": (1, 2),
    "Pad": (1, 2, 3),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
}
ROUNDING = {"bfloat16": 2.0**-7, "float16": 2.0**-9}  # two units in the last place; four where many nodes round


@dataclass(frozen=True)
class NodeTest:
    """A model with its inputs and outputs."""

    name: str
    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]
    outputs: list[np.ndarray]
    rtol: float
    atol: float

    @property
    def operators(self) -> set[str]:
        return {node.op_type for node in self.model.graph.node}

    @property
    def excluded(self) -> str | None:
        """The reason why it is not held, or None."""
        return next((reason for pattern, reason in EXCLUDED if re.match(pattern, self.name)), None)

    def check(self, channels_last: bool = False) -> None:
        """Compare the importer's outputs with the test's, with inputs that lie N, ..., C where asked for."""
        model, feeds = _prepared(self.model, self.inputs)
        if channels_last:
            feeds = _turned(model, feeds)
        for ours, theirs in zip(imported(model, feeds, known=True), self.outputs, strict=True):
            assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
            if theirs.dtype.kind in "OUS":
                assert [item.decode() for item in ours.reshape(-1)] == [str(item) for item in theirs.reshape(-1)]
                continue
            assert ours.dtype == theirs.dtype, (ours.dtype, theirs.dtype)
            rounding = ROUNDING.get(theirs.dtype.name, 0.0) * (1 if len(self.model.graph.node) == 1 else 2)
            rtol = max(self.rtol, rounding)
            wide = np.float64 if theirs.dtype.kind in "fV" else theirs.dtype
            np.testing.assert_allclose(ours.astype(wide), theirs.astype(wide), rtol=rtol, atol=max(self.atol, 1e-6))


@functools.cache
def claimed() -> tuple[NodeTest, ...]:
    """All node tests whose every node is of an operator that the importer claims, excluded ones among them."""
    from onnx.backend.test import loader  # computes all tests' data, in seconds

    tests = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for case in loader.load_model_tests(kind="node"):
            if not {(node.domain, node.op_type) for node in case.model.graph.node} <= set(OPERATORS):
                continue
            ((inputs, outputs),) = case.data_sets
            names = [value.name for value in case.model.graph.input]
            arrays = [_array(value) for value in inputs]
            fed = dict(zip(names, arrays, strict=False))
            model = _at(case.model, max(_opset(case.model), OLDEST_OPSET))
            expected = [_array(value) for value in outputs]
            tests.append(NodeTest(case.name, model, fed, expected, case.rtol, case.atol))
    return tuple(tests)


def by_operator() -> dict[str, list[NodeTest]]:
    """The held tests of each operator; those of several operators under `several`."""
    tests: dict[str, list[NodeTest]] = defaultdict(list)
    for test in claimed():
        if test.excluded is None:
            tests[test.operators.pop() if len(test.operators) == 1 else "several"].append(test)
    return tests


def at_older_opsets(test: NodeTest) -> Iterator[NodeTest]:
    """The same test in every older form of its one operator that can express it."""
    if len(test.operators) != 1 or test.operators == {"GroupNormalization"}:  # which had another scale before 21
        return
    (operator,) = test.operators
    for opset in forms(operator):
        if opset < _opset(test.model):
            model = _older(_at(test.model, opset), test.inputs)
            if model is None:
                continue
            try:
                onnx.checker.check_model(model, full_check=True)
            except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
                continue  # a type or an attribute that this opset does not have
            names = {value.name for value in model.graph.input}
            inputs = {name: array for name, array in test.inputs.items() if name in names}
            yield NodeTest(f"{test.name}@{opset}", model, inputs, test.outputs, test.rtol, test.atol)


def forms(operator: str) -> list[int]:
    """The opsets from the oldest claimed on at which an operator changed."""
    changed = {
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.name == operator and schema.domain == "" and schema.since_version <= NEWEST_OPSET
    }
    return sorted({max(version, OLDEST_OPSET) for version in changed})


def _older(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> onnx.ModelProto | None:
    """With the axes of a reduction as an attribute where its opset has them there; None where it has no such form."""
    (node,) = model.graph.node
    attributes = onnx.defs.get_schema(node.op_type, _opset(model), "").attributes
    if "axes" in attributes and len(node.input) == 2 and node.op_type.startswith("Reduce"):
        axes = inputs[node.input[1]] if node.input[1] else np.array([])
        if axes.size == 0:
            return None
        kept = [value for value in model.graph.input if value.name != node.input[1]]
        del model.graph.input[:], node.input[1:]
        model.graph.input.extend(kept)
        node.attribute.append(helper.make_attribute("axes", axes.tolist()))
    return model


def _prepared(
    original: onnx.ModelProto, inputs: dict[str, np.ndarray]
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    model = onnx.ModelProto()
    model.CopyFrom(original)
    needed = {
        node.input[place]
        for node in model.graph.node
        for place in NEEDED.get(node.op_type, ())
        if place < len(node.input)
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in inputs.items() if name in needed
    )
    return model, {name: array for name, array in inputs.items() if name not in needed}


def _turned(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Put a Transpose from N, ..., C before every input of rank 3 or more."""
    turned = {}
    for name, array in feeds.items():
        if array.ndim < 3:
            turned[name] = array
            continue
        order = (0, *range(2, array.ndim), 1)
        back = [order.index(axis) for axis in range(array.ndim)]
        for node in model.graph.node:
            for place, used in enumerate(node.input):
                if used == name:
                    node.input[place] = f"{name}-turned"
        model.graph.node.insert(0, helper.make_node("Transpose", [name], [f"{name}-turned"], perm=back))
        (value,) = (value for value in model.graph.input if value.name == name)
        kind = value.type.tensor_type.elem_type
        turned[name] = array.transpose(order).copy()
        value.CopyFrom(helper.make_tensor_value_info(name, kind, turned[name].shape))
    return turned


def _at(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for entry in copy.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset
    return copy


def _opset(model: onnx.ModelProto) -> int:
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))


def _array(value: object) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def failures(tests: Iterator[NodeTest] | list[NodeTest], channels_last: bool = False) -> list[str]:
    """What is wrong with each test that does not hold."""
    wrong = []
    for test in tests:
        try:
            test.check(channels_last)
        except (Problem, AssertionError, tf.errors.OpError, ValueError, TypeError) as error:
            wrong.append(f"{test.name}: {' '.join(str(error).split())[:300]}")
    return wrong


def counts() -> str:
    """How many node tests are held and why others are not, in lines."""
    held = by_operator()
    whole = [test for tests in held.values() for test in tests]
    older = sum(1 for test in whole for _ in at_older_opsets(test))
    reasons = Counter(test.excluded for test in claimed() if test.excluded)
    operators = {name for domain, name in OPERATORS if not domain}
    return "\n".join(
        [
            f"{len(operators)} operators claimed at opsets {OLDEST_OPSET} to {NEWEST_OPSET} (onnx {onnx.__version__})",
            f"{len(whole)} node tests held, {len(held['several'])} of them of several operators",
            f"{older} of them once more in an older form of the operator",
            f"{sum(reasons.values())} excluded:",
            *(f"  {count} {reason}" for reason, count in reasons.most_common()),
        ]
    )


if __name__ == "__main__":
    print(counts())
