"""The requests' payloads, drawn from real test images, and the check of answers against the reference."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loadtest.generator.http2_frames import grpc_message
from models.problem import Problem
from serving import requests
from serving.target import Target

TOLERANCE = 1e-3


class Reference:
    """The test images of a bundle with the probabilities that eager PyTorch gives them."""

    def __init__(self, source: Path | bytes) -> None:
        """`source`: the file, or its content. Raises `Problem` where it is missing or not a reference."""
        path = source if isinstance(source, Path) else "the master's reference"
        try:
            with np.load(source if isinstance(source, Path) else io.BytesIO(source)) as values:
                self.images: NDArray[np.uint8] = values["images"]
                self.probabilities: NDArray[np.float32] = values["probabilities"]
        except (OSError, KeyError, ValueError) as error:
            raise Problem(f"{path}: cannot read the reference images: {error}") from error


class Payloads:
    """Encoded requests. `encoded[k]` asks for the images whose right answers are `expected[k]` [batch, classes]."""

    def __init__(
        self, reference: Reference, target: Target, protocol: str, batch: int, count: int, draw: np.random.Generator
    ) -> None:
        """Draw `count` distinct images (fewer where there are fewer) and put `batch` of them into each request.

        Raises `Problem` where the images are not what the target takes.
        """
        available = len(reference.images)
        images = draw.permutation(available)[: min(count, available)]
        if batch > 1:
            images = draw.choice(images, (max(16, len(images) // batch), batch))
        chosen = images.reshape(-1, batch)
        try:
            messages = [requests.encode(target, protocol, reference.images[rows]) for rows in chosen]
        except ValueError as error:
            raise Problem(f"the reference images do not fit the target: {error}") from error
        self.encoded = [grpc_message(message) for message in messages] if protocol == "grpc" else messages
        self.expected = [reference.probabilities[rows] for rows in chosen]
        self._target, self._protocol = target, protocol

    def __len__(self) -> int:
        return len(self.encoded)

    def right(self, payload: int, body: bytes) -> bool:
        """Whether `body` answers that payload within `TOLERANCE`."""
        try:
            answer = requests.decode(self._target, self._protocol, body)
        except ValueError:
            return False
        expected = self.expected[payload]
        return answer.shape == expected.shape and bool(np.max(np.abs(answer - expected)) <= TOLERANCE)

    def wrong(self, bodies: Mapping[int, bytes], payload_of: NDArray[np.integer]) -> list[int]:
        """The requests among `bodies` (request → answer) whose answer is wrong; `payload_of`: request → payload."""
        return [request for request, body in bodies.items() if not self.right(int(payload_of[request]), body)]
