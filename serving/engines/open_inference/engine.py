"""A server of the Open Inference Protocol, known by its protocol alone. Imports the standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.engines.endpoint_only import EndpointOnly
from serving.engines.engine import Call, Question

if TYPE_CHECKING:
    from serving.target import Target


class OpenInference(EndpointOnly):
    """See `Engine`."""

    id = "open-inference"
    title = "Open Inference Protocol"
    default_target = id
    protocols: tuple[str, ...] = ("grpc", "rest", "rest-binary")

    def call(self, target: Target, protocol: str) -> Call:
        """See `Engine.call`."""
        from serving.engines import open_inference_calls

        return open_inference_calls.call(target, protocol)

    def metadata(self, target: Target, protocol: str) -> Question | None:
        """See `Engine.metadata`."""
        from serving.engines import open_inference_calls

        return open_inference_calls.question(target, protocol)
