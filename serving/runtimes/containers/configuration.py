"""The servers' configuration as a container reads it from /config, rendered from the one `ServingProfile`."""

from __future__ import annotations

from pathlib import Path

from serving.engines.tensorflow_serving import config as tensorflow_serving
from serving.engines.torchserve import config as torchserve_config
from serving.engines.torchserve import server as torchserve
from serving.profile import ServingProfile
from serving.runtimes.containers import layout

ANYWHERE = "0.0.0.0"  # the container's own addresses; what is published is Compose's or Kubernetes' business

Rendering = torchserve_config.Rendering | tensorflow_serving.Rendering


def render(
    engine: str,
    profile: ServingProfile,
    *,
    model: str,
    model_version: str,
    cores: int,
    connection_age_s: float | None = None,
) -> Rendering:
    """The configuration of ``engine`` for a container that may use ``cores`` CPUs.

    ``model_version``: the version inside TorchServe's model archive (`torchserve_config.archive_version`).
    ``connection_age_s``: gRPC clients are asked to connect anew after so many seconds (None: never).
    """
    ports = layout.PORTS[engine]
    if engine == "torchserve":
        return torchserve_config.render(
            profile,
            model=model,
            model_version=model_version,
            model_store=str(layout.MODELS),
            metrics_config=str(layout.CONFIG / "metrics.yaml"),
            ports=torchserve_config.Ports(
                rest=ports.rest,
                management=ports.management,
                metrics=ports.metrics,
                grpc=ports.grpc,
                grpc_management=ports.grpc_management,
            ),
            host=ANYWHERE,
            cores=cores,
            connection_age_s=connection_age_s,
        )
    return tensorflow_serving.render(
        profile,
        model=model,
        model_base_path=str(layout.MODELS / model),
        configuration=str(layout.CONFIG),
        grpc_port=ports.grpc,
        rest_port=ports.rest,
        connection_age_s=connection_age_s,
    )


def write(engine: str, rendering: Rendering, profile: ServingProfile, folder: Path) -> None:
    """Write everything that ``engine``'s container expects in /config into ``folder``."""
    rendering.write(folder)
    threads = {"OMP_NUM_THREADS": str(profile.threads)}
    variables = torchserve.thread_settings(profile) if engine == "torchserve" else threads
    text = "".join(f"{name}={value}\n" for name, value in variables.items())
    (folder / layout.ENVIRONMENT).write_text(text)
