"""What a server's pod finds at /config: its native configuration and the two HTTP requests that its probes send."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

from serving import tensorflow_serving
from serving.profile import ServingProfile
from serving.torchserve import config as torchserve

BASE = Path(__file__).resolve().parents[2] / "k8s" / "base"
SERVERS = {"pytorch": "torchserve", "tensorflow": "tensorflow-serving"}  # stack to the name of its Deployment
TORCHSERVE_PORTS = torchserve.Ports(rest=8080, management=8081, metrics=8082, grpc=7070, grpc_management=7071)
TENSORFLOW_GRPC, TENSORFLOW_REST = 8500, 8501
EVERYWHERE = "0.0.0.0"  # the pod's own network; NetworkPolicies say who reaches it
CONNECTION_AGE_S = 20.0  # shorter than preStop's sleep by what a gRPC client needs to notice (see deployment.yaml)


def render(
    profile: ServingProfile, *, model: str, version: int, input_shape: tuple[int, int, int], cores: int
) -> dict[str, dict[str, str]]:
    """The files of each server (name of its Deployment to file name to text).

    ``cores`` is a server's CPU limit; ``input_shape`` (H, W, C) that of the blank image which the probes send.
    """
    return {
        "torchserve": _torchserve(profile, model, version, input_shape, cores),
        "tensorflow-serving": _tensorflow_serving(profile, model, version, input_shape),
    }


def checked_in() -> dict[Path, str]:
    """The files in k8s/ that are rendered from the default profile: so ``kubectl kustomize`` works without Python."""
    files = render(ServingProfile(), model="convnet", version=1, input_shape=(32, 32, 3), cores=4)
    return {BASE / name / "config" / file: text for name, texts in files.items() for file, text in texts.items()}


def write(files: Mapping[str, str], folder: Path) -> None:
    """Write one server's files into ``folder`` (bytes as they are: an HTTP request's lines end in CR LF)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())


def _torchserve(
    profile: ServingProfile, model: str, version: int, input_shape: tuple[int, int, int], cores: int
) -> dict[str, str]:
    rendering = torchserve.render(
        profile,
        model=model,
        model_version=str(version),
        model_store="/models",
        metrics_config="/config/metrics.yaml",
        ports=TORCHSERVE_PORTS,
        host=EVERYWHERE,
        cores=cores,
        connection_age_s=CONNECTION_AGE_S,
    )
    return {
        **rendering.files,
        "predict.http": _post(f"/predictions/{model}/{version}", _blank(input_shape)),
        "health.http": _get("/ping"),
    }


def _tensorflow_serving(
    profile: ServingProfile, model: str, version: int, input_shape: tuple[int, int, int]
) -> dict[str, str]:
    rendering = tensorflow_serving.render(
        profile,
        model=model,
        model_base_path=f"/models/{model}",
        configuration="/config",
        grpc_port=TENSORFLOW_GRPC,
        rest_port=TENSORFLOW_REST,
        connection_age_s=CONNECTION_AGE_S,
    )
    url = f"/v1/models/{model}/versions/{version}"
    return {
        **rendering.files,
        "flags.txt": "\n".join(rendering.flags) + "\n",
        "predict.http": _post(f"{url}:predict", _blank(input_shape)),
        "health.http": _get(url),
    }


def _blank(input_shape: tuple[int, int, int]) -> str:
    """One black image as JSON, in lines that an editor can show."""
    _, width, channels = input_shape
    pixel = json.dumps([0] * channels, separators=(",", ":"))
    row = "[" + ",".join(itertools.repeat(pixel, width)) + "]"
    image = ",\n".join(itertools.repeat(row, input_shape[0]))
    return f'{{"instances":[[\n{image}]]}}\n'


def _post(path: str, body: str) -> str:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}"


def _get(path: str) -> str:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
