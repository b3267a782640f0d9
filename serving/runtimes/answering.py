"""Whether a server's model answers: one blank image over each of REST and gRPC that its engine speaks."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing

import numpy as np

from models.encoding import BLANK, Encoding
from models.problem import Problem
from serving import requests
from serving.client import Client, RequestFailed
from serving.engines import registry
from serving.target import Target

PROTOCOLS = {"rest": "REST", "grpc": "gRPC"}
# Engines open all their ports within a second of each other. What opens one later never does: TensorFlow Serving goes
# on over gRPC alone where its REST port is taken.
PARTLY_S = 10.0


def answers(target: Target, timeout_s: float = 5.0) -> bool:
    """Whether the model answers over every protocol, each given ``timeout_s`` seconds."""
    with closing(_failures(target, timeout_s)) as failures:
        return next(failures, None) is None


class Awaited:
    """A model that is asked again and again until it answers."""

    def __init__(self, *, any_answer: bool = False) -> None:
        """``any_answer``: one that is no prediction of one image will do, too."""
        self._any_answer = any_answer
        self._partly_since: float | None = None

    def answers(self, target: Target) -> bool:
        """Whether it answers over every protocol by now. Raises `Problem` where it has answered over one and not over
        another for `PARTLY_S`."""
        failed = dict(_failures(target, any_answer=self._any_answer))
        if not failed or len(failed) == len(_spoken(target)):
            self._partly_since = None
            return not failed
        now = time.monotonic()
        if self._partly_since is None:
            self._partly_since = now
        if now - self._partly_since < PARTLY_S:
            return False
        (works,) = (PROTOCOLS[one] for one in _spoken(target) if one not in failed)
        ((protocol, why),) = failed.items()
        address = target.grpc if protocol == "grpc" else target.rest
        raise Problem(
            f"{registry.engine(target.engine).title} answers over {works}, but after {PARTLY_S:g} s more still not "
            f"over {PROTOCOLS[protocol]} at {address} ({' '.join(why.split())[:200]}): does it listen there?"
        )


def _failures(
    target: Target, timeout_s: float = 5.0, *, any_answer: bool = False
) -> Generator[tuple[str, str], None, None]:
    """(Protocol, why the model does not answer over it), of each over which it does not."""
    image = _blank(target)
    with Client(target, timeout_s=timeout_s) as client:
        for protocol in _spoken(target):
            try:
                if any_answer:
                    client.send(protocol, requests.encode(target, protocol, image))
                elif len(client.predict(protocol, image)) != 1:
                    yield protocol, "its answer is not of one image, as the request was"
            except RequestFailed as error:
                yield protocol, str(error)


def _blank(target: Target) -> np.ndarray:
    """One image as the target takes it."""
    if target.encoding is Encoding.NONE:
        return np.zeros((1, *target.input_shape), np.uint8)
    return np.array([BLANK], object)


def _spoken(target: Target) -> list[str]:
    return [protocol for protocol in PROTOCOLS if protocol in registry.engine(target.engine).protocols]
