"""Where things are inside our images, and on which ports they listen. Imports the standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MANIFEST = Path("/bundle/manifest.json")
MODELS = Path("/models")
CONFIG = Path("/config")
SCRATCH = Path("/tmp")
# While this file is there the container is unhealthy, on its way out.
DRAINING = SCRATCH / "draining"
# TorchServe's handler answers REST requests with 503 while this file is there.
REFUSING = SCRATCH / "refusing"
ENVIRONMENT = "environment.txt"
FLAGS = "flags.txt"

TENSORFLOW_MODEL_SERVER = "/usr/bin/tensorflow_model_server"


@dataclass(frozen=True)
class Ports:
    """The ports that a server listens on in its container; management is TorchServe's, on loopback."""

    rest: int
    grpc: int
    metrics: int
    management: int = 0
    grpc_management: int = 0


PORTS = {
    "torchserve": Ports(rest=8080, grpc=7070, metrics=8082, management=8081, grpc_management=7071),
    "tensorflow-serving": Ports(rest=8501, grpc=8500, metrics=8501),
    "embedded-tfserving": Ports(rest=8501, grpc=8500, metrics=8501),
}
ENGINES = tuple(PORTS)
