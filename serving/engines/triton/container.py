"""Triton in a container and on Kubernetes: NVIDIA's image, with Triton's own backend for ONNX Runtime."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import child_environment
from models.problem import Problem
from serving.engines.container import Container, Deployment, Inside, PublishedPort, Readiness
from serving.engines.engine import Launch, Ports, Site

if TYPE_CHECKING:
    from models.bundle import Bundle
    from serving.profile import ServingProfile

PROGRAM = "/opt/tritonserver/bin/tritonserver"
PORTS = Ports(rest=8000, grpc=8001, metrics=8002)
# Which models there are: name to version and file. Rendered beside each one's config.pbtxt.
REPOSITORY = "repository.json"
# There, the share of the GPU's memory that an instance may take, and ONNX Runtime's own parameter, which is in bytes.
SHARE, LIMIT = "gpu_memory_fraction", "gpu_mem_limit"
NVIDIA_SMI = ("nvidia-smi", "--id=0", "--query-gpu=memory.total", "--format=csv,noheader,nounits")


def _command(inside: Inside) -> Sequence[str]:
    """The image has the models, /config their configurations; Triton wants both in one tree, which is made of links."""
    repository = inside.scratch / "repository"
    for model, one in json.loads((inside.configuration / REPOSITORY).read_text()).items():
        version = repository / model / one["version"]
        version.mkdir(parents=True, exist_ok=True)
        _link(version / one["file"], inside.models / model / one["file"])
        config, rendered = repository / model / "config.pbtxt", inside.configuration / one["configuration"]
        if SHARE in one:
            config.unlink(missing_ok=True)
            config.write_text(rendered.read_text() + _limit(one[SHARE]))
        else:
            _link(config, rendered)
    return [str(inside.program or PROGRAM), f"--model-repository={repository}", *inside.arguments]


def _limit(share: float) -> str:
    """The line of a config.pbtxt that caps ONNX Runtime at a share of the first GPU's memory. Raises `Problem`."""
    try:
        environment = child_environment.tool()
        done = subprocess.run(NVIDIA_SMI, env=environment, capture_output=True, text=True, timeout=60, check=True)
        total = int(done.stdout.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise Problem(
            f"nvidia-smi does not say how much memory the GPU has ({error}); give the container one"
        ) from None
    return f'parameters {{ key: "{LIMIT}" value: {{ string_value: "{int(total * share)}" }} }}\n'


def _link(link: Path, target: Path) -> None:
    """A container that is started again finds its links."""
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _states(answer: Any) -> list[str]:
    return list(answer["versions"])


def _ready(states: Sequence[str]) -> bool:
    return bool(states)  # an answer with another status than 200 is none: the model is not ready


def _outside(bundle: Bundle, profile: ServingProfile, site: Site, program: Path | None) -> Launch:
    """The server of the wheel, which has the Python backend alone."""
    from serving.engines.triton import ENGINE, server

    return server.launch_at(ENGINE, ENGINE.library, [bundle], profile, site, program)


CONTAINER = Container(
    image="triton",
    packages=False,
    base="TRITON",
    gpu_base="TRITON",
    ports=PORTS,
    published=(
        PublishedPort(PORTS.rest, "TANDEM_TRITON_REST_PORT", "Triton's REST API"),
        PublishedPort(PORTS.grpc, "TANDEM_TRITON_GRPC_PORT", "Triton's gRPC API"),
        PublishedPort(PORTS.metrics, "TANDEM_TRITON_METRICS_PORT", "Triton's metrics"),
    ),
    part="onnx",
    model_folder="{model}",
    command=_command,
    readiness=Readiness(PORTS.rest, "/v2/models/{model}", _states, _ready),
    version=lambda tag: tag.removesuffix("-py3"),
    optional=True,
    outside=_outside,
)


def _body(image: str, shape: tuple[int, int, int]) -> str:
    height, width, channels = shape
    head = f'{{"name":"images","shape":[1,{height},{width},{channels}],"datatype":"UINT8","data":'
    return f'{{"inputs":[{head}[{image}]}}]}}\n'


DEPLOYMENT = Deployment(
    "triton",
    predict="/v2/models/{model}/versions/{version}/infer",
    health="/v2/models/{model}/versions/{version}/ready",
    body=_body,
    component="triton",
)
