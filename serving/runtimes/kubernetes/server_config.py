"""What a server's pod finds at /config: its native configuration and the two HTTP requests that its probes send."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from serving.engines.engine import Engine, Rendering
from serving.profile import ServingProfile
from serving.runtimes.containers import configuration
from serving.runtimes.kubernetes.servers import by_target, deployment_of, optional

BASE = Path(__file__).resolve().parents[3] / "k8s" / "base"
CONNECTION_AGE_S = 20.0  # shorter than preStop's sleep by what a gRPC client needs to notice (see deployment.yaml)


def render(
    engine: Engine,
    profile: ServingProfile,
    *,
    model: str,
    version: int,
    cores: int,
    input_shape: tuple[int, int, int],
    classes: int,
) -> Rendering:
    """The native configuration of ``engine`` in a pod; ``cores`` is a server's CPU limit, ``input_shape`` (H, W, C) of
    an image and ``classes`` the probabilities of an answer."""
    return configuration.render(
        engine,
        profile,
        model=model,
        version=str(version),
        cores=cores,
        connection_age_s=CONNECTION_AGE_S,
        shape=input_shape,
        classes=classes,
    )


def write(
    engines: Iterable[Engine],
    profile: ServingProfile,
    folder: Path,
    *,
    model: str,
    version: int,
    input_shape: tuple[int, int, int],
    classes: int,
    cores: int,
) -> dict[str, list[str]]:
    """Write each server's files into ``folder``/<name of its Deployment>; returns their names.

    For the figures see `render`; the image that the probes send is blank.
    """
    names = {}
    for engine in engines:
        deployment = deployment_of(engine)
        place = folder / deployment.name
        rendering = render(
            engine, profile, model=model, version=version, cores=cores, input_shape=input_shape, classes=classes
        )
        configuration.write(rendering, place)
        predict = deployment.predict.format(model=model, version=version)
        health = deployment.health.format(model=model, version=version)
        body = deployment.body(_blank(input_shape), input_shape)
        # Bytes as they are: an HTTP request's lines end in CR LF.
        (place / "predict.http").write_bytes(_post(predict, body).encode())
        (place / "health.http").write_bytes(_get(health).encode())
        names[deployment.name] = sorted(path.name for path in place.iterdir())
    return names


def checked_in() -> dict[Path, bytes]:
    """The files in k8s/base that are rendered from the default profile: so ``kubectl kustomize`` needs no Python."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engines = (*by_target(embedded=False).values(), *optional())
        names = write(
            engines,
            ServingProfile(),
            folder,
            model="convnet",
            version=1,
            input_shape=(32, 32, 3),
            classes=10,
            cores=4,
        )
        return {
            BASE / name / "config" / file: (folder / name / file).read_bytes()
            for name, files in names.items()
            for file in files
        }


def _blank(input_shape: tuple[int, int, int]) -> str:
    """One black image as JSON, in lines that an editor can show."""
    _, width, channels = input_shape
    pixel = json.dumps([0] * channels, separators=(",", ":"))
    row = "[" + ",".join(itertools.repeat(pixel, width)) + "]"
    return "[\n" + ",\n".join(itertools.repeat(row, input_shape[0])) + "]"


def _post(path: str, body: str) -> str:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}"


def _get(path: str) -> str:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
