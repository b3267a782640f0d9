"""Which answers are right in a run without a bundle, and whether an endpoint gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loadtest.experiment.inputs import read_array
from loadtest.experiment.settings import FIRST, STATUS, Inputs
from models.problem import Problem
from serving import reference_file, requests
from serving.client import Client, RequestFailed
from serving.reference_file import Array, Samples
from serving.target import Target
from serving.wire_parity import Agreement

_KEY = "inputs.answers"
_INSTEAD = f"; or {_KEY} = 'status': any answer that is no error"


def of(asked: Inputs, samples: Samples, first: Target, protocol: str) -> Array | None:
    """[samples, values], as ``asked`` says; ``first``: the target whose answers are right where no others are named.
    None: whatever is answered. Raises `Problem`."""
    if asked.answers == STATUS:
        return None
    if asked.answers == FIRST:
        return _ask(first, protocol, samples)
    found = _recorded(Path(asked.answers), samples)
    if len(found) != len(samples):
        raise Problem(
            f"{_KEY} = {asked.answers!r}: holds answers to {len(found)} samples, and there are {len(samples)}"
        )
    return found


def answers_at_all(target: Target, protocol: str, samples: Samples) -> None:
    """Ask ``target`` for the first sample. Raises `Problem` where it answers with an error, or not."""
    _ask(target, protocol, Samples(samples.images[:1], samples.bodies[:1]), decode=False)


def check(target: Target, protocol: str, samples: Samples, right: Array, tolerance: float, whose: str) -> Agreement:
    """Ask ``target`` for every sample, and compare; ``max_abs_diff`` is of values above 1 a share of them. ``whose``:
    the right answers, in words. Raises `Problem` that names the first sample that it answers otherwise, or not at
    all."""
    answers = _ask(target, protocol, samples)
    where = f"target.{target.name}: its answers over {protocol}"
    if answers.shape != right.shape:
        raise Problem(f"{where} have {answers.shape[1]} values, not {right.shape[1]}{_INSTEAD}")
    good = [reference_file.alike(one, other, tolerance) for one, other in zip(answers, right, strict=True)]
    if not all(good):
        first = good.index(False)
        raise Problem(
            f"{where} are not {whose}: sample {first} differs{_by(answers[first], right[first])}, as do "
            f"{len(good) - sum(good) - 1} others of {len(good)} (tolerance {tolerance:g}){_INSTEAD}"
        )
    numeric = right.dtype.kind in "fiub"
    return Agreement(
        max_abs_diff=float(np.max(np.abs(answers - right) / np.maximum(1, np.abs(right)))) if numeric else 0.0,
        top1_agreement=float(np.mean(answers.argmax(axis=1) == right.argmax(axis=1))) if numeric else 1.0,
        samples=len(right),
    )


def _by(answered: Array, right: Array) -> str:
    return f" by up to {np.max(np.abs(answered - right)):.3g}" if right.dtype.kind in "fiub" else ""


def _ask(target: Target, protocol: str, samples: Samples, *, decode: bool = True) -> Array:
    """The answers to all samples, one request each."""
    where = f"target.{target.name}: {target.url(protocol)} over {protocol}: sample"
    rows = []
    with Client(target) as client:
        for number in range(len(samples)):
            row = np.array([number])
            try:
                request = reference_file.encode(target, protocol, samples.images, samples.bodies, row)
                body = client.send(protocol, request)
                if decode:
                    rows.append(reference_file.answer(requests.decode(target, protocol, body), 1))
            except (RequestFailed, ValueError) as error:
                how = _INSTEAD if isinstance(error, ValueError) else ""
                raise Problem(f"{where} {number}: {_one_line(error)}{how}") from None
    sizes = {one.shape for one in rows}
    if len(sizes) > 1:
        raise Problem(f"{where}s have answers of {sorted(one[1] for one in sizes)} values{_INSTEAD}")
    return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)


def _recorded(place: Path, samples: Samples) -> Array:
    """Of a file or folder, in the samples' order."""
    if place.is_dir():
        if not samples.names:
            raise Problem(f"{_KEY} = {str(place)!r}: a folder's answers are called like the files of inputs.payloads")
        answers = [read_array(place / f"{name}.npy", np.load).reshape(1, -1) for name in samples.names]
        if len({one.shape for one in answers}) > 1:
            raise Problem(f"{_KEY} = {str(place)!r}: its answers differ in size{_INSTEAD}")
        return _numbers(np.concatenate(answers), place)
    found = read_array(place, _archived if place.suffix == ".npz" else np.load)
    if not found.ndim or not len(found):
        raise Problem(f"{_KEY} = {str(place)!r}: use an array [samples, values]")
    return _numbers(found.reshape(len(found), -1), place)


def _archived(file: Path) -> Array:
    with np.load(file) as values:
        known = [key for key in ("answers", "probabilities") if key in values] or list(values)
        if len(known) > 1 and known[0] not in ("answers", "probabilities"):
            raise ValueError(f"of its arrays {', '.join(known)} none is called answers")
        found: Array = values[known[0]]
        return found


def _numbers(answers: Array, place: Path) -> Array:
    if answers.dtype.kind not in "fiub":
        raise Problem(f"{_KEY} = {str(place)!r}: use numbers, not {answers.dtype}")
    return answers.astype(np.float32)


def _one_line(error: Exception, longest: int = 300) -> str:
    line = " ".join(str(error).split())
    return line if len(line) <= longest else f"{line[:longest]} …"
