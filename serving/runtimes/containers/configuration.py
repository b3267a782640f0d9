"""The servers' configuration as a container reads it from /config, rendered from the one `ServingProfile`."""

from __future__ import annotations

from pathlib import Path

from serving.engines.engine import Engine, Rendering, Served, Site
from serving.profile import ServingProfile
from serving.runtimes.containers import layout
from serving.runtimes.containers.servers import container_of

ANYWHERE = "0.0.0.0"  # the container's own addresses; what is published is Compose's or Kubernetes' business


def render(
    engine: Engine,
    profile: ServingProfile,
    *,
    model: str,
    version: str,
    cores: int,
    connection_age_s: float | None = None,
    shape: tuple[int, ...] = (),
    classes: int = 0,
) -> Rendering:
    """The configuration of ``engine`` for a container that may use ``cores`` CPUs.

    ``version``: the model's, as its files call it. ``connection_age_s``: gRPC clients are asked to connect anew after
    so many seconds (None: never). ``shape``, ``classes``: see `Served`. Raises `Problem` where the engine has no image.
    """
    container = container_of(engine)
    served = Served(model, version, str(container.model_path(layout.MODELS, model)), shape, classes)
    site = Site(
        host=ANYWHERE,
        ports=container.ports,
        configuration=str(layout.CONFIG),
        models=str(layout.MODELS),
        cores=cores,
        connection_age_s=connection_age_s,
    )
    return engine.render(profile, [served], site)


def write(rendering: Rendering, folder: Path) -> None:
    """Write everything that a container expects in /config into ``folder``."""
    rendering.write(folder)
    text = "".join(f"{name}={value}\n" for name, value in rendering.environment.items())
    (folder / layout.ENVIRONMENT).write_text(text)
