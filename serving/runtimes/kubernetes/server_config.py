"""What a server's pod finds at /config: its native configuration and the two HTTP requests that its probes send."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path

from serving.profile import ServingProfile
from serving.runtimes.containers import configuration, layout

BASE = Path(__file__).resolve().parents[3] / "k8s" / "base"
SERVERS = {"pytorch": "torchserve", "tensorflow": "tensorflow-serving"}  # stack to the name of its Deployment
CONNECTION_AGE_S = 20.0  # shorter than preStop's sleep by what a gRPC client needs to notice (see deployment.yaml)


def write(
    profile: ServingProfile,
    folder: Path,
    *,
    model: str,
    version: int,
    input_shape: tuple[int, int, int],
    cores: int,
) -> dict[str, list[str]]:
    """Write each server's files into ``folder``/<name of its Deployment>; returns their names.

    ``cores`` is a server's CPU limit; ``input_shape`` (H, W, C) that of the blank image which the probes send.
    """
    urls = {
        "torchserve": (f"/predictions/{model}/{version}", "/ping"),
        "tensorflow-serving": (
            f"/v1/models/{model}/versions/{version}:predict",
            f"/v1/models/{model}/versions/{version}",
        ),
    }
    names = {}
    for engine, (predict, health) in urls.items():
        rendering = configuration.render(
            engine,
            profile,
            model=model,
            model_version=str(version),
            cores=cores,
            connection_age_s=CONNECTION_AGE_S,
        )
        place = folder / engine
        configuration.write(engine, rendering, profile, place)
        # Bytes as they are: an HTTP request's lines end in CR LF.
        (place / "predict.http").write_bytes(_post(predict, _blank(input_shape)).encode())
        (place / "health.http").write_bytes(_get(health).encode())
        names[engine] = sorted(path.name for path in place.iterdir())
    return names


def checked_in() -> dict[Path, bytes]:
    """The files in k8s/base that are rendered from the default profile: so ``kubectl kustomize`` needs no Python."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = write(ServingProfile(), folder, model="convnet", version=1, input_shape=(32, 32, 3), cores=4)
        return {
            BASE / engine / "config" / file: (folder / engine / file).read_bytes()
            for engine, files in names.items()
            for file in files
        }


def ports(stack: str) -> layout.Ports:
    """The ports that a stack's pods listen on."""
    return layout.PORTS[SERVERS[stack]]


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
