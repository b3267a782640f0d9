"""Wire parity: the whole test split through a running server, against eager PyTorch's probabilities."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

from models import whole_file
from models.encoding import Encoding
from models.precision import Precision
from models.problem import Problem
from serving import reference_file, requests
from serving.client import Client, RequestFailed
from serving.engines import registry
from serving.target import Target

BATCH = 32
EXAMPLES = 10


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How the answers over one protocol agree with the reference; the keys of wire-parity.json.

    max_abs_diff    largest difference of a probability
    top1_agreement  share of samples with the same best class
    samples         how many were compared
    disagreements   (expected class, answered class, times) of best classes that differ, most often first
    examples        sample of `examples` → (best class, its probability)
    bytes_an_image  of a request, for each image in it: what HTTP sends, or the message of gRPC; 0: not known
    """

    max_abs_diff: float
    top1_agreement: float
    samples: int
    disagreements: tuple[tuple[int, int, int], ...] = ()
    examples: dict[int, tuple[int, float]] = {}
    bytes_an_image: float = 0.0


def check(
    target: Target, reference: Path, *, protocols: Iterable[str] | None = None, tolerance: float | None = None
) -> dict[str, Agreement]:
    """Send every sample of ``reference`` (a bundle's reference.npz) through each protocol, in batches; how it agreed,
    by protocol (default: all that the target's engine speaks).

    Raises `Problem` naming target, protocol and first sample where a difference is above ``tolerance`` (default:
    that of the target), or a best class differs though the reference's two best are further apart.
    """
    with np.load(reference) as saved:
        images, expected = reference_file.samples(saved).images, saved["probabilities"]
    allowed = target.tolerance if tolerance is None else tolerance
    batch = min(BATCH, target.max_batch_size) if target.encoding is Encoding.NONE else 1  # as clients send files
    figures = {}
    with Client(target, timeout_s=60.0) as client:
        for protocol in protocols or registry.engine(target.engine).protocols:
            where = f"wire parity of {target.name} ({target.engine}) over {protocol}"
            answers, sent = np.empty_like(expected), 0
            for first in range(0, len(images), batch):
                part = slice(first, first + batch)
                try:
                    request = requests.encode(target, protocol, images[part])
                    sent += len(request)
                    answer = requests.decode(target, protocol, client.send(protocol, request))
                except (RequestFailed, ValueError) as error:
                    raise Problem(f"{where}: samples from {first} were not answered: {error}") from None
                if answer.shape != expected[part].shape:
                    raise Problem(f"{where}: samples from {first} got {answer.shape}, not {expected[part].shape}")
                answers[part] = answer
            found = compare(expected, answers, where, allowed)
            figures[protocol] = msgspec.structs.replace(found, bytes_an_image=round(sent / len(images), 1))
    return figures


def compare(
    expected: np.ndarray, answers: np.ndarray, where: str, tolerance: float = Precision.FP32.tolerance
) -> Agreement:
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
    pairs = zip(expected[~same].argmax(axis=1).tolist(), answers[~same].argmax(axis=1).tolist(), strict=True)
    return Agreement(
        max_abs_diff=float(difference.max()),
        top1_agreement=float(same.mean()),
        samples=len(expected),
        disagreements=tuple((*pair, times) for pair, times in Counter(pairs).most_common()),
        examples={
            sample: (int(answers[sample].argmax()), round(float(answers[sample].max()), 6))
            for sample in examples(expected)
        },
    )


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
    buffer = io.BytesIO()  # on a full disk zipfile tells of it twice, once with a traceback
    np.savez_compressed(buffer, indices=np.array(chosen), **kept)
    whole_file.write_bytes(path, buffer.getbuffer())
