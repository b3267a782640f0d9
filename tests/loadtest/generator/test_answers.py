"""Payloads are real images drawn by seed; answers are checked against the reference of the model that was asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.generator.answers import Payloads, Pool, Reference, RequestStream
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


def chi_square(observed, expected) -> float:
    """Pearson's statistic of counts."""
    return float(np.sum((np.asarray(observed) - expected) ** 2 / expected))


def pool(reference, *shares, seed=1):
    mix = [RequestStream(replace(WHERE, model=f"model{place}"), reference, share) for place, share in enumerate(shares)]
    return Pool(mix, "rest", 1, 16, np.random.default_rng(seed))


def test_each_payload_of_a_pool_asks_for_its_own_model(reference):
    drawn = pool(reference, 0.5, 0.3, 0.2)
    assert len(drawn) == 3 * 16
    for message, model in zip(drawn.encoded, drawn.models, strict=True):
        assert message.startswith(f"POST /predictions/model{model} HTTP/1.1".encode())


@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.integers(0, 2**32))
def test_requests_are_spread_over_the_models_by_their_shares(reference, shares, seed):
    drawn = pool(reference, *shares)
    count = 5000
    models = drawn.asked(drawn.choose(count, np.random.default_rng(seed)))
    observed = np.bincount(models, minlength=len(shares))
    expected = count * np.array(shares) / sum(shares)
    assert chi_square(observed, expected) < 55  # once in 3e10 by chance, with 4 degrees of freedom
    assert observed.sum() == count


def test_each_payload_of_a_model_is_as_likely_as_its_others_and_the_next_model_is_independent(reference):
    drawn = pool(reference, 0.7, 0.3)
    choice = drawn.choose(50_000, np.random.default_rng(3))
    models = drawn.asked(choice)
    for model in (0, 1):
        counts = np.bincount(choice[models == model], minlength=32)[model * 16 : (model + 1) * 16]
        assert chi_square(counts, counts.sum() / 16) < 44  # the 99.99 % quantile for 15 degrees of freedom
    pairs = np.zeros((2, 2))
    np.add.at(pairs, (models[:-1], models[1:]), 1)
    independent = pairs.sum(axis=1, keepdims=True) * pairs.sum(axis=0) / pairs.sum()
    assert chi_square(pairs, independent) < 15.1  # the 99.99 % quantile for 1 degree of freedom


def test_the_same_seed_draws_the_same_models(reference):
    def draw(seed):
        return pool(reference, 0.7, 0.3).choose(1000, np.random.default_rng(seed)).tolist()

    assert draw(1) == draw(1) != draw(2)


def test_one_model_is_drawn_as_before_there_were_several(reference):
    alone = pool(reference, 1.0)
    assert (
        alone.encoded
        == Payloads(reference, replace(WHERE, model="model0"), "rest", 1, 16, np.random.default_rng(1)).encoded
    )
    again = np.random.default_rng(5)
    assert alone.choose(100, np.random.default_rng(5)).tolist() == again.integers(0, 16, 100).tolist()
    assert not alone.asked(np.zeros(5, np.int64)).size


def test_an_answer_is_right_for_the_model_that_was_asked_only(reference, tmp_path):
    np.savez(
        tmp_path / "other.npz",
        images=reference.images,
        probabilities=np.roll(np.eye(10, dtype=np.float32), 1, 0)[np.zeros(len(reference.images), int)],
    )
    other = Reference(tmp_path / "other.npz")
    mix = [RequestStream(WHERE, reference, 0.5), RequestStream(replace(WHERE, model="other"), other, 0.5)]
    drawn = Pool(mix, "rest", 1, 16, np.random.default_rng(1))
    even = b'{"predictions": [[0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1]]}'
    assert drawn.right(3, even)
    assert not drawn.right(16 + 3, even)
    assert drawn.wrong({0: even, 1: even}, np.array([16 + 3, 3])) == [0]
