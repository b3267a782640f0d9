"""What the seam asks of an engine whose servers Tandem never starts: the user's own, each at a url."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from models.problem import Problem
from serving.engines.container import Container, Deployment
from serving.engines.engine import Download, Fact, Switch

if TYPE_CHECKING:
    from models.bundle import Bundle


class EndpointOnly:
    """See `Engine`. What is particular to one: `id`, `title`, `default_target`, `protocols`, `call`, `metadata`."""

    id: str
    framework = ""
    export = ""
    stands_in_for = ""
    warning = ""
    program = ""
    download: Download | None = None
    module = ""
    packages: tuple[str, ...] = ()
    dialect: Path | None = None
    metrics_path = ""
    facts: tuple[Fact, ...] = ()
    container: Container | None = None
    deployment: Deployment | None = None
    endpoint_only = True
    takes_encoded = False

    def _not_started(self, *_: object, **__: object) -> NoReturn:
        raise Problem(f"{self.id}: Tandem starts no such server; give the target a url")

    version = render = launch = model_time = decoder = _not_started

    def why_not(self, bundle: Bundle, protocol: str) -> str:  # noqa: ARG002 - as the protocol has it
        """Nothing is in the way."""
        return ""

    def in_force(self, log: str) -> tuple[Switch, ...]:  # noqa: ARG002 - as the protocol has it
        """Its log is the user's."""
        return ()
