from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.parity import compare

REFERENCE = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.40004, 0.4, 0.19996]], np.float32)


def test_equal_answers_agree():
    result = compare(REFERENCE, REFERENCE)
    assert (result.max_abs_diff, result.top1_agreement, result.first_different) == (0.0, 1.0, None)


def test_difference_beyond_the_tolerance_names_the_first_sample():
    changed = REFERENCE.copy()
    changed[1, 0] += 2e-4
    changed[2, 0] += 3e-4
    result = compare(changed, REFERENCE)
    assert result.first_different == 1
    assert result.max_abs_diff == pytest.approx(3e-4, rel=1e-3)


def test_other_class_is_excused_only_where_the_two_best_lie_within_the_tolerance():
    close = REFERENCE.copy()
    close[2, :2] = 0.39998, 0.40005
    result = compare(close, REFERENCE)
    assert result.first_different is None
    assert result.top1_agreement == pytest.approx(2 / 3)
    assert compare(close, REFERENCE, tolerance=7e-5).first_different is None
    assert compare(close, REFERENCE, tolerance=3.9e-5).first_different == 2


def test_other_class_is_refused_where_the_reference_is_clear():
    reference = np.array([[0.50009, 0.49991]], np.float32)
    flipped = np.array([[0.49999, 0.50001]], np.float32)
    assert compare(flipped, reference, tolerance=1.5e-4).first_different == 0


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_an_answer_that_is_no_number_differs(number):
    broken = REFERENCE.copy()
    broken[1, 2] = number
    assert compare(broken, REFERENCE).first_different == 1


@given(st.integers(0, 2**32 - 1), st.floats(0, 3e-4))
def test_noise_below_the_tolerance_passes_and_above_it_fails(seed, size):
    rng = np.random.default_rng(seed)
    reference = rng.dirichlet(np.ones(5), size=8)
    noise = rng.choice([-1.0, 1.0], reference.shape) * size
    result = compare(reference + noise, reference)
    if size > 1.01e-4:
        assert result.first_different == 0
    elif size < 0.49e-4:  # two classes further apart than the tolerance cannot change places
        assert result.first_different is None
