"""What a user's graph answers about a few images: one answer for each, the same each time; logits, or probabilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.problem import Problem

FEW = 8  # images that show it
SUM_TOLERANCE = 1e-3  # of probabilities in float16
FOR_INFERENCE = "export it for inference (eval(), training=False)"


def steady(label: str, ask: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """The answers to ``images``, [N, classes].

    Raises `Problem` where they hold NaN, are others when asked again, or where an image that comes alone has another.
    """
    answers, again = ask(images), ask(images)
    if not np.isfinite(answers).all():
        raise Problem(f"{label}: answers NaN or infinity; mend its weights")
    if not agree(answers, again):
        raise Problem(
            f"{label}: gives two answers to the same images: it keeps state or draws at random; {FOR_INFERENCE}"
        )
    if not agree(answers[:1], ask(images[:1])):
        raise Problem(
            f"{label}: an image's answer depends on the other images of its batch, as batch normalisation in training "
            f"mode does; {FOR_INFERENCE}"
        )
    return answers


def are_probabilities(answers: np.ndarray) -> bool:
    """Whether each row is of shares of one; logits are not, for all of some images."""
    sums = answers.astype(np.float64).sum(axis=1)
    return bool(answers.min() >= -SUM_TOLERANCE and (np.abs(sums - 1) <= SUM_TOLERANCE).all())


def as_probabilities(answers: np.ndarray) -> np.ndarray:
    """They themselves, or what a softmax makes of logits."""
    if are_probabilities(answers):
        return answers
    powers = np.exp(answers.astype(np.float64) - answers.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def agree(first: np.ndarray, second: np.ndarray, tolerance: float = 1e-4) -> bool:
    """Within the tolerance, relative to the largest for values above 1."""
    limit = tolerance * max(1.0, float(np.abs(second).max()))
    return bool((np.abs(first.astype(np.float64) - second) <= limit).all())
