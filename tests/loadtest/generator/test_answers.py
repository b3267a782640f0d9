"""Payloads are real images drawn by seed; answers are checked against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from loadtest.generator.answers import Payloads, Reference
from models.problem import Problem
from serving.requests import encode
from tests.loadtest.generator.small_servers import target, write_reference

WHERE = target("127.0.0.1:1")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return Reference(write_reference(tmp_path_factory.mktemp("reference") / "reference.npz"))


def payloads(reference, seed=1, batch=1, count=16):
    return Payloads(reference, WHERE, "rest", batch, count, np.random.default_rng(seed))


def test_payloads_are_distinct_images_of_the_reference_drawn_by_seed(reference):
    drawn = payloads(reference)
    assert len(set(drawn.encoded)) == len(drawn) == 16
    assert set(drawn.encoded) <= {encode(WHERE, "rest", image[None]) for image in reference.images}
    assert drawn.encoded == payloads(reference).encoded
    assert drawn.encoded != payloads(reference, seed=2).encoded
    assert len(payloads(reference, count=10_000)) == len(reference.images)


def test_a_batch_asks_for_that_many_images(reference):
    drawn = payloads(reference, batch=4)
    assert [expected.shape for expected in drawn.expected] == [(4, 10)] * 16


@pytest.mark.parametrize(
    ("body", "right"),
    [
        ('{"predictions": [[0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1]]}', True),
        ('{"predictions": [[0.1009,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.0991]]}', True),
        ('{"predictions": [[0.102,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.098]]}', False),
        ('{"predictions": [[NaN,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1]]}', False),
        (
            '{"predictions": [[0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1],[0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1]]}',
            False,
        ),
        ('{"error": "no"}', False),
        ("", False),
    ],
)
def test_an_answer_is_right_within_the_tolerance_only(reference, body, right):
    assert payloads(reference).right(0, body.encode()) is right


def test_a_missing_or_unfit_reference_is_a_problem_that_names_it(tmp_path):
    with pytest.raises(Problem, match=r"nothing\.npz"):
        Reference(tmp_path / "nothing.npz")
    np.savez(
        tmp_path / "small.npz", images=np.zeros((4, 8, 8, 3), np.uint8), probabilities=np.zeros((4, 10), np.float32)
    )
    with pytest.raises(Problem, match="do not fit the target"):
        payloads(Reference(tmp_path / "small.npz"))
