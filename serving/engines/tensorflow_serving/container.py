"""TensorFlow Serving in a container and on Kubernetes; what stands in for it has the same ports and the same API."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.engines.container import Container, Deployment, Inside, PublishedPort, Readiness
from serving.engines.engine import Download, Ports

PROGRAM = "/usr/bin/tensorflow_model_server"
FIX = "build the image from the official tensorflow/serving (docker/base-images.env), or use --embedded"
PORTS = Ports(rest=8501, grpc=8500, metrics=8501)
PUBLISHED = (
    PublishedPort(PORTS.rest, "TANDEM_TENSORFLOW_REST_PORT", "TensorFlow Serving's REST API"),
    PublishedPort(PORTS.grpc, "TANDEM_TENSORFLOW_GRPC_PORT", "TensorFlow Serving's gRPC API"),
)


def _command(inside: Inside) -> Sequence[str]:
    return [str(inside.program or PROGRAM), *inside.arguments]


def _identify(inside: Inside) -> str:
    from serving.engines.tensorflow_serving import identity

    return identity.identify(Path(inside.program or PROGRAM), FIX).version


def _states(answer: Any) -> list[str]:
    return [version["state"] for version in answer["model_version_status"]]


def _ready(states: Sequence[str]) -> bool:
    return "AVAILABLE" in states


READINESS = Readiness(PORTS.rest, "/v1/models/{model}", _states, _ready)
CONTAINER = Container(
    image="tensorflow-serving",
    packages=False,
    base="TENSORFLOW_SERVING",
    gpu_base="TENSORFLOW_SERVING_GPU",
    ports=PORTS,
    published=PUBLISHED,
    part="savedmodel",
    model_folder="{model}",
    command=_command,
    readiness=READINESS,
    identify=_identify,
    version=lambda tag: f"image {tag}",
    everywhere=True,
)
DEPLOYMENT = Deployment(
    "tensorflow-serving",
    predict="/v1/models/{model}/versions/{version}:predict",
    health="/v1/models/{model}/versions/{version}",
)
DOWNLOAD = Download(image=CONTAINER.base, file=PROGRAM, machine="x86_64", variable="TFSERVING")
