"""The embedded server in the container and the Deployment of the engine that it stands in for."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from serving.engines.container import Container, Inside
from serving.engines.tensorflow_serving import container as tensorflow_serving


def _command(inside: Inside) -> Sequence[str]:
    return [sys.executable, "-m", "serving.engines.embedded_tfserving", *inside.arguments]


def _version(_: str) -> str:
    from importlib.metadata import version

    return f"tensorflow {version('tensorflow')}"


CONTAINER = Container(
    image="embedded-tfserving",
    gpu=False,
    ports=tensorflow_serving.PORTS,
    published=tensorflow_serving.PUBLISHED,
    part="savedmodel",
    model_folder="{model}",
    command=_command,
    readiness=tensorflow_serving.READINESS,
    version=_version,
)
DEPLOYMENT = tensorflow_serving.DEPLOYMENT
