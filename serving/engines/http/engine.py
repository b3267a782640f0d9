"""A server of no protocol that Tandem knows: the user says how it is asked. Imports the standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.engines.endpoint_only import EndpointOnly
from serving.engines.engine import Call, Question

if TYPE_CHECKING:
    from serving.target import Target


class Http(EndpointOnly):
    """See `Engine`."""

    id = "http"
    title = "HTTP"
    default_target = id
    protocols: tuple[str, ...] = ("rest",)

    def call(self, target: Target, protocol: str) -> Call:  # noqa: ARG002 - there is only one
        """What `Target.request` says."""
        from serving.engines.http import calls

        return calls.call(target)

    def metadata(self, target: Target, protocol: str) -> Question | None:  # noqa: ARG002 - as the protocol has it
        """There is no question that all HTTP servers understand."""
        return None
