"""What a server was given does not depend on who starts it: so the report shows the same table in every runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from models.bundle import Bundle
from serving.engines import registry
from serving.engines.engine import Engine, Knob, Ports, Rendering
from serving.profile import ServingProfile
from serving.runtimes.containers import images
from serving.runtimes.kubernetes import server_config

CORES = (0, 1, 2, 3, 4, 5)
Given = tuple[tuple[Knob, ...], Mapping[str, str]]  # knobs, and variables
PROFILES = {
    "default": ServingProfile(),
    "nothing that an engine can take as it is": ServingProfile(
        max_batch_size=48, batch_timeout_ms=0.4, instances=3, threads=2, queue_capacity=1000
    ),
    "gpu": ServingProfile(device="gpu"),
    "without oneDNN": ServingProfile(onednn=False),
}


def program(folder: Path) -> Path:
    """A server's own program that says its version, and is not started."""
    path = folder / "program"
    path.write_text("#!/bin/sh\necho 'TensorFlow ModelServer: 2.20.0'\n")
    path.chmod(0o755)
    return path


def given(rendering: Rendering) -> Given:
    return rendering.knobs, rendering.environment


def as_a_process(engine: Engine, bundle: Bundle, profile: ServingProfile, folder: Path) -> Given:
    ports = Ports(rest=0, grpc=0, metrics=0)
    own = program(folder) if engine.program else None
    launch = engine.launch([bundle], profile, folder, ports=ports, cores=CORES, program=own)
    launch.release()
    assert launch.environment.items() >= launch.rendering.environment.items()
    return given(launch.rendering)


def in_a_container(engine: Engine, bundle: Bundle, profile: ServingProfile, folder: Path) -> Given:
    return given(images.render(bundle, engine, profile, folder, cores=len(CORES)))


def in_a_pod(engine: Engine, bundle: Bundle, profile: ServingProfile) -> Given:
    rendering = server_config.render(
        engine,
        profile,
        model=bundle.model,
        version=bundle.version,
        cores=len(CORES),
        input_shape=bundle.input_shape,
        classes=bundle.classes,
    )
    return given(rendering)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize("engine", [one for one in registry.all() if one.deployment], ids=lambda engine: engine.id)
def test_every_runtime_gives_a_server_the_same_knobs_and_variables(engine, profile, bundle, tmp_path):
    container = in_a_container(engine, bundle, profile, tmp_path)
    assert {knob.name for knob in container[0]} >= set(profile.to_dict())
    assert in_a_pod(engine, bundle, profile) == container
    if not (engine.container and engine.container.outside):  # it computes with another backend there
        assert as_a_process(engine, bundle, profile, tmp_path) == container
