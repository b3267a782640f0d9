"""Triton's configuration: how it looks, and what of the profile it holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from serving.engines.engine import Knob, KnobKind, Place, Ports, Rendering, Served, Site
from serving.engines.triton import ENGINE, rendering, torchscript
from serving.engines.triton.backends import ONNX_RUNTIME, TORCHSCRIPT, Library
from serving.engines.triton.engine import Triton
from serving.profile import ServingProfile
from tests.serving.golden import assert_golden

SITE = Site("127.0.0.1", Ports(rest=8000, grpc=8001, metrics=8002), "/srv/config", "", cores=4)
CONVNET = Served("convnet", "3", "/srv/model.onnx", shape=(32, 32, 3), classes=10)
TUNED = ServingProfile(max_batch_size=64, batch_timeout_ms=2.5, instances=2, threads=4, queue_capacity=500)


def python(engine: Triton, profile: ServingProfile, models: Sequence[Served]) -> Rendering:
    """What the process runtime renders."""
    return rendering.render(engine.library, engine.library.python, profile, models, SITE)


def knobs(rendered: Rendering) -> dict[str, Knob]:
    return {knob.name: knob for knob in rendered.knobs}


@pytest.mark.parametrize("engine", [ENGINE, torchscript.ENGINE], ids=lambda engine: engine.id)
def test_golden_files_of_the_python_backend(engine, tmp_path):
    rendered = python(engine, TUNED, [CONVNET])
    rendered.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["convnet.pbtxt", "flags.txt"]
    assert_golden(f"{engine.id}-config.pbtxt", (tmp_path / "convnet.pbtxt").read_text())
    assert_golden("triton-flags.txt", (tmp_path / "flags.txt").read_text())
    assert rendered.backend
    assert (rendered.backend.name, rendered.backend.place) == ("Python", Place.BESIDE)
    assert rendered.backend.instead_of == {"triton": "onnxruntime", "triton-torchscript": "pytorch"}[engine.id]


@pytest.mark.parametrize("library", [ONNX_RUNTIME, TORCHSCRIPT], ids=lambda library: library.name)
def test_golden_files_of_triton_s_own_backends(library: Library):
    engine = {ONNX_RUNTIME: ENGINE, TORCHSCRIPT: torchscript.ENGINE}[library]
    rendered = engine.render(replace(TUNED, device="gpu"), [CONVNET], SITE)
    assert_golden(f"triton-own-{library.native}-repository.json", rendered.files["repository.json"])
    assert_golden(f"triton-own-{library.native}-config.pbtxt", rendered.files["convnet.pbtxt"])
    assert rendered.backend
    assert not rendered.backend.instead_of
    assert rendered.backend.place is Place.SERVER


def test_every_knob_of_the_profile_is_there_and_the_same_but_for_what_counts_otherwise():
    given = knobs(python(ENGINE, TUNED, [CONVNET]))
    assert set(given) >= set(TUNED.to_dict())
    shown = {name: (knob.native_key, knob.value, knob.unit) for name, knob in given.items()}
    assert shown["max_batch_size"] == ("max_batch_size", 64, "images")
    assert shown["batch_timeout_ms"] == ("max_queue_delay_microseconds", 2500, "µs")
    assert shown["queue_capacity"] == ("max_queue_size", None, "requests")
    assert (given["queue_capacity"].kind, given["queue_capacity"].asked) == (KnobKind.DIFFERS, 500)
    assert "no bound" in given["queue_capacity"].note
    assert shown["threads"] == ("threads", 4, "threads")
    assert given["instances"].kind is KnobKind.OTHER_UNIT  # processes
    own = knobs(rendering.render(ONNX_RUNTIME, ONNX_RUNTIME.own, TUNED, [CONVNET], SITE))
    assert (own["queue_capacity"].value, own["queue_capacity"].kind) == (500, KnobKind.SAME)
    assert (own["instances"].kind, own["threads"].native_key) == (KnobKind.SAME, "intra_op_thread_count")


@pytest.mark.parametrize(("asked", "variable"), [(True, "1"), (False, "0"), ("default", None)])
def test_onednn_is_pytorch_s_alone(asked, variable):
    profile = ServingProfile(onednn=asked)
    torch = python(torchscript.ENGINE, profile, [CONVNET])
    assert torch.environment.get("TANDEM_TORCH_ONEDNN") == variable
    assert torch.unset == (() if variable else ("TANDEM_TORCH_ONEDNN",))
    onnx = python(ENGINE, profile, [CONVNET])
    assert "TANDEM_TORCH_ONEDNN" not in onnx.environment
    assert knobs(onnx)["onednn"].kind is KnobKind.NO_COUNTERPART


def test_each_of_several_models_has_a_file_a_queue_and_instances_of_its_own():
    rendered = python(ENGINE, TUNED, [CONVNET, replace(CONVNET, name="lenet")])
    assert set(rendered.files) == {"convnet.pbtxt", "lenet.pbtxt"}
    given = knobs(rendered)
    assert "2 instance(s) of its own" in given["instances"].note
    assert "a queue of its own" in given["queue_capacity"].note


def test_without_a_bundle_the_sizes_are_left_open_and_names_are_quoted():
    text = python(ENGINE, TUNED, [Served('a "b"', "1", "/srv/é\\n")]).files['a "b".pbtxt']
    assert 'name: "a \\"b\\""' in text
    assert 'string_value: "/srv/é\\\\n"' in text
    assert "dims: [-1, -1, -1]" in text
    assert "dims: [-1] " in text


def test_clients_are_asked_to_connect_anew_where_the_site_says_so():
    aged = ENGINE.render(TUNED, [CONVNET], replace(SITE, connection_age_s=30.0))
    assert "--grpc-max-connection-age=30000" in aged.arguments
    assert not [flag for flag in python(ENGINE, TUNED, [CONVNET]).arguments if re.match("--grpc-max", flag)]
