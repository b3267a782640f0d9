"""Wire parity: the whole test split through a running server, against eager PyTorch's probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models import whole_file
from models.problem import Problem
from serving.client import Client, RequestFailed
from serving.target import PROTOCOLS, Target

TOLERANCE = 1e-4
BATCH = 32
EXAMPLES = 10


def check(
    target: Target, reference: Path, *, protocols: Iterable[str] = PROTOCOLS, tolerance: float = TOLERANCE
) -> dict[str, dict[str, Any]]:
    """Send every sample of ``reference`` (a bundle's reference.npz) through each protocol, in batches.

    Returns, for each protocol, ``max_abs_diff`` (largest difference of a probability), ``top1_agreement`` (share of
    samples with the same best class), ``samples``, ``disagreements`` ([expected class, answered class, times] of best
    classes that differ) and ``examples`` (sample of `examples` → [best class, its probability]). Raises `Problem`
    naming target, protocol and first sample where a difference is above ``tolerance``, or a best class differs though
    the reference's two best are further apart.
    """
    with np.load(reference) as saved:
        images, expected = saved["images"], saved["probabilities"]
    batch = min(BATCH, int(target.settings.get("max_batch_size", BATCH)))
    figures = {}
    with Client(target, timeout_s=60.0) as client:
        for protocol in protocols:
            where = f"wire parity of {target.name} ({target.engine}) over {protocol}"
            answers = np.empty_like(expected)
            for first in range(0, len(images), batch):
                part = slice(first, first + batch)
                try:
                    answer = client.predict(protocol, images[part])
                except RequestFailed as error:
                    raise Problem(f"{where}: samples from {first} were not answered: {error}") from None
                if answer.shape != expected[part].shape:
                    raise Problem(f"{where}: samples from {first} got {answer.shape}, not {expected[part].shape}")
                answers[part] = answer
            figures[protocol] = compare(expected, answers, where, tolerance)
    return figures


def compare(expected: np.ndarray, answers: np.ndarray, where: str, tolerance: float = TOLERANCE) -> dict[str, Any]:
    """The figures of one protocol; raises `Problem` where ``answers`` are out of tolerance (see `check`)."""
    difference = np.abs(answers - expected).max(axis=1)
    same = answers.argmax(axis=1) == expected.argmax(axis=1)
    best_two = np.sort(expected, axis=1)[:, -2:]
    tied = best_two[:, 1] - best_two[:, 0] <= tolerance
    bad = ~(difference <= tolerance) | (~same & ~tied)  # not <=: NaN is out of tolerance, too
    if bad.any():
        sample = int(bad.argmax())
        raise Problem(
            f"{where}: sample {sample} differs from PyTorch by {difference[sample]:.3g} (tolerance {tolerance:g}; "
            f"{int(bad.sum())} of {len(bad)} samples): the server does not serve this bundle's model"
        )
    return {
        "max_abs_diff": float(difference.max()),
        "top1_agreement": float(same.mean()),
        "samples": len(expected),
        "disagreements": [
            [*pair, times]
            for pair, times in Counter(
                zip(expected[~same].argmax(axis=1).tolist(), answers[~same].argmax(axis=1).tolist(), strict=True)
            ).most_common()
        ],
        "examples": {
            str(sample): [int(answers[sample].argmax()), round(float(answers[sample].max()), 6)]
            for sample in examples(expected)
        },
    }


def examples(expected: np.ndarray) -> list[int]:
    """The samples that stand for all in a report: half of them where the reference's two best classes are closest (a
    difference would show there first), the others spread evenly. ``expected``: probabilities [samples × classes]."""
    best_two = np.sort(expected, axis=1)[:, -2:]
    closest = np.argsort(best_two[:, 1] - best_two[:, 0], kind="stable")[: EXAMPLES // 2].tolist()
    spread = np.linspace(0, len(expected) - 1, EXAMPLES).astype(int).tolist()
    return list(dict.fromkeys([*closest, *spread]))[:EXAMPLES]


def save_examples(reference: Path, path: Path) -> None:
    """Write the samples of `examples` with their labels and the reference's probabilities as an npz file, whole or not
    at all, so that a report needs no bundle."""
    with np.load(reference) as saved:
        chosen = examples(saved["probabilities"])
        kept = {name: saved[name][chosen] for name in ("images", "labels", "probabilities")}
    with whole_file.replacing(path) as partial, partial.open("wb") as out:
        np.savez_compressed(out, indices=np.array(chosen), **kept)


def save(path: Path, targets: Mapping[str, Mapping[str, Mapping[str, Any]]], tolerance: float = TOLERANCE) -> None:
    """Write wire-parity.json: ``targets`` maps a stack to what `check` returned for it."""
    samples = max((figures["samples"] for one in targets.values() for figures in one.values()), default=0)
    whole_file.write_json(path, {"samples": samples, "tolerance": tolerance, "targets": targets})
