"""The requests' payloads, drawn from the reference's samples, and the check of answers against it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.problem import Problem
from serving import reference_file, requests
from serving.target import Target
from serving.wire.http2_frames import grpc_message

TOLERANCE = 1e-3


class Reference:
    """What is asked, and what is right to answer: a bundle's test images with the probabilities that eager PyTorch
    gives them, or a run's own samples (see `reference_file`).

    images         [samples, …]; empty where there are `bodies`, which are sent as they are
    probabilities  [samples, values]; None: whatever is answered is right
    """

    bodies: tuple[bytes, ...] = ()
    tolerance = TOLERANCE

    def __init__(self, source: Path | bytes) -> None:
        """`source`: the file, or its content. Raises `Problem` where it is missing or not a reference."""
        path = source if isinstance(source, Path) else "the master's reference"
        try:
            with np.load(source if isinstance(source, Path) else io.BytesIO(source)) as values:
                samples = reference_file.samples(values)
                self.images: NDArray[Any] = samples.images
                self.bodies = samples.bodies
                self.tolerance = float(values.get("tolerance", TOLERANCE))
                self.probabilities: NDArray[Any] | None = values.get("probabilities")
        except (OSError, KeyError, ValueError) as error:
            raise Problem(f"{path}: cannot read the reference images: {error}") from error

    def __len__(self) -> int:
        return len(self.bodies) or len(self.images)

    def encode(self, target: Target, protocol: str, rows: NDArray[np.integer]) -> bytes:
        """These samples as one request. Raises ValueError where they are not what the target takes."""
        return reference_file.encode(target, protocol, self.images, self.bodies, rows)


class Payloads:
    """Encoded requests. `encoded[k]` asks for the images whose right answers are `expected[k]` [batch, classes]."""

    def __init__(
        self, reference: Reference, target: Target, protocol: str, batch: int, count: int, draw: np.random.Generator
    ) -> None:
        """Draw `count` distinct samples (fewer where there are fewer) and put `batch` of them into each request.

        Raises `Problem` where they are not what the target takes.
        """
        available = len(reference)
        images = draw.permutation(available)[: min(count, available)]
        if batch > 1:
            images = draw.choice(images, (max(16, len(images) // batch), batch))
        chosen = images.reshape(-1, batch)
        try:
            messages = [reference.encode(target, protocol, rows) for rows in chosen]
        except ValueError as error:
            raise Problem(f"the reference images do not fit the target: {error}") from error
        self.encoded = [grpc_message(message) for message in messages] if protocol == "grpc" else messages
        right = reference.probabilities
        self.expected = None if right is None else [right[rows] for rows in chosen]
        self._tolerance = reference.tolerance
        self._target, self._protocol = target, protocol

    def __len__(self) -> int:
        return len(self.encoded)

    def right(self, payload: int, body: bytes) -> bool:
        """Whether `body` answers that payload within the reference's tolerance."""
        if self.expected is None:
            return True
        expected = self.expected[payload]
        try:
            answer = reference_file.answer(requests.decode(self._target, self._protocol, body), len(expected))
        except ValueError:
            return False
        return reference_file.alike(answer, expected, self._tolerance)


@dataclass(frozen=True)
class RequestStream:
    """One model's part of the requests (see `phases.Traffic`), with its reference at hand."""

    target: Target
    reference: Reference
    share: float = 1.0


class Pool:
    """The payloads of all models as one list, `encoded`; `models[k]` is the place in the mix of payload k's model."""

    def __init__(
        self, mix: Sequence[RequestStream], protocol: str, batch: int, count: int, draw: np.random.Generator
    ) -> None:
        """Draw `count` images of each model; see `Payloads`."""
        self._parts = [Payloads(one.reference, one.target, protocol, batch, count, draw) for one in mix]
        self.encoded = [message for part in self._parts for message in part.encoded]
        self._sizes = np.array([len(part) for part in self._parts])
        self._firsts = np.cumsum(self._sizes) - self._sizes
        self._shares = np.array([one.share for one in mix]) / sum(one.share for one in mix)
        self.models = np.repeat(np.arange(len(mix), dtype=np.uint8), self._sizes)

    def __len__(self) -> int:
        return len(self.encoded)

    def share_to_check(self, asked: float) -> float:
        """The share of answers to compare, of what was asked for: none where nothing says what is right."""
        return asked if all(part.expected is not None for part in self._parts) else 0.0

    def choose(self, requests: int, draw: np.random.Generator) -> NDArray[np.integer]:
        """Which payload each of so many requests carries: a model by the shares, then one of its payloads, each request
        on its own, so that the Poisson arrivals of all are Poisson arrivals for each model."""
        if len(self._parts) == 1:
            return draw.integers(0, len(self), requests)
        model = draw.choice(len(self._parts), requests, p=self._shares)
        return np.asarray(self._firsts[model] + draw.integers(0, self._sizes[model]))

    def right(self, payload: int, body: bytes) -> bool:
        """Whether `body` answers that payload as its own model does."""
        model = int(self.models[payload])
        return self._parts[model].right(payload - int(self._firsts[model]), body)

    def wrong(self, bodies: Mapping[int, bytes], payload_of: NDArray[np.integer]) -> list[int]:
        """The requests among `bodies` (request → answer) whose answer is wrong; `payload_of`: request → payload."""
        return [request for request, body in bodies.items() if not self.right(int(payload_of[request]), body)]

    def asked(self, payload_of: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Which model (its place in the mix) each request asks for; empty where there is only one."""
        return self.models[payload_of] if len(self._parts) > 1 else np.zeros(0, np.uint8)
