"""The importer against ONNX's own node tests, for every operator that it claims and every form of it since opset 13."""

from __future__ import annotations

import pytest

from models.onnx_nodes import OPERATORS
from models.problem import Problem
from tests.models import onnx_node_tests

NAMES = sorted({name for _, name in OPERATORS} | {"several"})


@pytest.mark.parametrize("name", NAMES)
def test_some_node_tests_of_each_operator(name):
    """A sample for every day; the rest is exhaustive."""
    tests = onnx_node_tests.by_operator()[name]
    assert tests
    assert onnx_node_tests.failures(tests[:: max(len(tests) // 2, 1)]) == []


@pytest.mark.exhaustive
@pytest.mark.beside
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels_last", [False, True], ids=["as ONNX lies", "channels last"])
def test_all_node_tests(name, channels_last):
    assert onnx_node_tests.failures(onnx_node_tests.by_operator()[name], channels_last) == []


@pytest.mark.exhaustive
@pytest.mark.beside
@pytest.mark.parametrize("name", NAMES)
def test_all_node_tests_in_older_forms_of_the_operator(name):
    for test in onnx_node_tests.by_operator()[name]:
        assert onnx_node_tests.failures(onnx_node_tests.at_older_opsets(test)) == []


@pytest.mark.exhaustive
@pytest.mark.beside
def test_what_is_excluded_is_refused_and_not_imported_wrongly():
    for test in onnx_node_tests.claimed():
        if test.excluded and test.excluded != "sequences and optional values":
            with pytest.raises((Problem, TypeError), match=r"ONNX operator|to a TensorFlow DType"):
                test.check()


def test_every_exclusion_excludes_something():
    used = {test.excluded for test in onnx_node_tests.claimed()}
    assert {reason for _, reason in onnx_node_tests.EXCLUDED} <= used
