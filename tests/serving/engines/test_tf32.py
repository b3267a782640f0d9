"""How each engine's servers are told of TF32, so that float32 is float32 on GPUs, too; and which variables of an
environment would undo it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.precision import Precision
from models.problem import Problem
from serving.engines import registry, tf32
from serving.engines.engine import KnobKind, Ports, Served, Site
from serving.profile import ServingProfile
from serving.runtimes.process import launch

SITE = Site("127.0.0.1", Ports(rest=1, grpc=2, metrics=3), "/srv/config", "/srv", cores=4)
MODEL = Served("m", "1", "/m", (32, 32, 3), 10)
GPU = ServingProfile(device="gpu")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in (tf32.OVERRIDE, tf32.FORCES_TORCH):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("engine", registry.startable(), ids=lambda one: one.id)
@pytest.mark.parametrize("precision", Precision)
def test_every_server_is_told_and_only_tf32_allows_it(engine, precision):
    rendering = engine.render(replace(GPU, precision=precision), [MODEL], SITE)
    (knob,) = [one for one in rendering.knobs if one.name == "precision"]
    allowed = precision is Precision.TF32
    assert rendering.environment.get(tf32.OVERRIDE) == (None if allowed else "0")
    assert (tf32.OVERRIDE in rendering.unset) == allowed
    assert (knob.asked, knob.kind) == (precision.value, KnobKind.SAME)
    given = rendering.environment.get(knob.native_key)
    assert knob.value == (None if given is None else int(given))
    assert (precision.value in knob.note) == (precision in (Precision.BF16, Precision.FP16) or knob.value is None)
    if tf32.TORCH in rendering.environment:
        assert (knob.native_key, rendering.environment[tf32.TORCH]) == (tf32.TORCH, str(int(allowed)))


@pytest.mark.parametrize(
    ("variable", "value", "precision", "refused"),
    [
        (tf32.FORCES_TORCH, "1", Precision.FP32, "PyTorch would heed it"),
        (tf32.FORCES_TORCH, "1", Precision.TF32, "PyTorch would heed it"),
        (tf32.FORCES_TORCH, "", Precision.FP32, ""),
        (tf32.OVERRIDE, "1", Precision.FP32, "profile.precision forbids TF32"),
        (tf32.OVERRIDE, "1", Precision.BF16, "profile.precision forbids TF32"),
        (tf32.OVERRIDE, "0", Precision.TF32, "profile.precision asks for TF32"),
        (tf32.OVERRIDE, "0", Precision.FP32, ""),
        (tf32.OVERRIDE, "1", Precision.TF32, ""),
    ],
)
def test_a_variable_that_contradicts_the_profile_is_one_line(monkeypatch, variable, value, precision, refused):
    monkeypatch.setenv(variable, value)
    profile = replace(GPU, precision=precision)
    if not refused:
        launch.require_environment(profile)
        return
    with pytest.raises(Problem, match=refused) as problem:
        launch.require_environment(profile)
    assert str(problem.value).startswith(f"{variable}={value} in the environment: ")


def test_what_the_embedded_server_says_is_read_back():
    said = "2026-11-30 02:56:09,123 I embedded-tfserving: TF32 is %s\n"
    assert [one.value for one in tf32.in_force(said % "off")] == [False]
    assert [one.value for one in tf32.in_force(said % "on")] == [True]
    assert tf32.in_force("of the real server, which says nothing\n") == ()
