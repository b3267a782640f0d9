"""TorchServe in a container and on Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from serving.engines.container import Container, Deployment, Inside, PublishedPort, Readiness
from serving.engines.engine import Ports

if TYPE_CHECKING:
    from models.bundle import Bundle

PORTS = Ports(rest=8080, grpc=7070, metrics=8082, management=8081, grpc_management=7071)
# TorchServe waits for answers under way on gRPC, but not on REST: none may be there when it closes its connections.
# Longer than any batch.
REFUSE_S = 1.0


def _command(inside: Inside) -> Sequence[str]:
    from serving.engines.torchserve import java, server

    return server.command_line(java.find(), inside.configuration, inside.models, inside.scratch)


def _environment(inside: Inside) -> Mapping[str, str]:
    from serving.engines.torchserve import server

    return server.scratch_settings(inside.scratch)


def _states(answer: Any) -> list[str]:
    return [worker["status"] for worker in answer[0]["workers"]]


def _ready(states: Sequence[str]) -> bool:
    return bool(states) and all(state == "READY" for state in states)


def _model_version(bundle: Bundle) -> str:
    from serving.engines.torchserve import rendering

    return rendering.archive_version(bundle.archive)


def _version(_: str) -> str:
    from importlib.metadata import version

    return f"{version('torchserve')} (torch {version('torch').partition('+')[0]})"


CONTAINER = Container(
    image="torchserve",
    ports=PORTS,
    published=(  # management stays inside
        PublishedPort(PORTS.rest, "TANDEM_TORCHSERVE_REST_PORT", "TorchServe's REST API"),
        PublishedPort(PORTS.grpc, "TANDEM_TORCHSERVE_GRPC_PORT", "TorchServe's gRPC API"),
        PublishedPort(PORTS.metrics, "TANDEM_TORCHSERVE_METRICS_PORT", "TorchServe's metrics"),
    ),
    part="torchserve",
    model_folder="",
    command=_command,
    environment=_environment,
    readiness=Readiness(PORTS.management, "/models/{model}", _states, _ready),
    version=_version,
    model_version=_model_version,
    refuse_s=REFUSE_S,
)
DEPLOYMENT = Deployment("torchserve", predict="/predictions/{model}/{version}", health="/ping")
