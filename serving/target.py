"""A running server as its clients see it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.bundle import Bundle

STACKS = ("pytorch", "tensorflow")
PROTOCOLS = ("grpc", "rest", "rest-binary")


@dataclass(frozen=True)
class Target:
    """Everything that a client, the load generator and the report need to know of one running server, asked for one
    of the models that it holds.

    name            what the experiment calls it: "pytorch" or "tensorflow"
    engine          what really answers: "torchserve", "tensorflow-serving" or "embedded-tfserving"
    engine_version  version of that engine, with the runtime's version where they differ
    runtime         "process", "container", "kubernetes" or "remote"
    model, version  the servable's name and version
    input_shape     (H, W, C) of one uint8 image
    classes         number of class probabilities in an answer
    grpc            "host:port" of the gRPC inference API
    rest            "host:port" of the HTTP inference API
    metrics         URL of the Prometheus page, or None
    cores           CPUs the server is pinned to; empty: not pinned
    settings        rendered tuning, key to value, for the report
    notes           where the profile has no exact counterpart on this engine, one sentence each
    """

    name: str
    engine: str
    engine_version: str
    runtime: str
    model: str
    version: int
    input_shape: tuple[int, int, int]
    classes: int
    grpc: str
    rest: str
    metrics: str | None = None
    cores: tuple[int, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def asked_for(self, bundle: Bundle) -> Target:
        """The same server, asked for another of its models."""
        return replace(
            self,
            model=bundle.model,
            version=bundle.version,
            input_shape=bundle.input_shape,
            classes=bundle.classes,
        )

    def to_dict(self) -> dict[str, Any]:
        """The target as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Target:
        """The inverse of `to_dict`."""
        tuples: dict[str, Any] = {key: tuple(values[key]) for key in ("input_shape", "cores", "notes") if key in values}
        return cls(**{**values, **tuples})

    def save(self, path: Path) -> None:
        """Write the target as JSON."""
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Target:
        """Read what `save` wrote."""
        return cls.from_dict(json.loads(path.read_text()))
