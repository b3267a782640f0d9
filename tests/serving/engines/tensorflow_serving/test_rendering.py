from __future__ import annotations

import re
from dataclasses import replace

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from models.problem import Problem
from serving.engines import embedded_tfserving, tensorflow_serving
from serving.engines.engine import Engine, Knob, KnobKind, Ports, Rendering, Served, Site
from serving.engines.tensorflow_serving import server
from serving.engines.tensorflow_serving.identity import Program
from serving.profile import ServingProfile
from serving.runtimes.process import launch
from tests.serving.golden import assert_golden

SITE = Site("127.0.0.1", Ports(rest=8501, grpc=8500, metrics=8501), "/srv/config", "/srv", cores=4)
CONVNET = Served("convnet", "1", "/srv/savedmodel")
ALL = (tensorflow_serving.ENGINE, embedded_tfserving.ENGINE)


def render(profile: ServingProfile, *beside: Served, engine: Engine = tensorflow_serving.ENGINE) -> Rendering:
    return engine.render(profile, [CONVNET, *beside], SITE)


def knobs(rendering: Rendering) -> dict[str, Knob]:
    return {knob.name: knob for knob in rendering.knobs}


def test_golden_files(tmp_path):
    rendering = render(
        ServingProfile(max_batch_size=64, batch_timeout_ms=2.5, instances=2, threads=4, queue_capacity=500)
    )
    rendering.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batching.txt", "flags.txt", "monitoring.txt"]
    for path in tmp_path.iterdir():
        assert_golden(f"tensorflow-{path.name}", path.read_text())


def test_several_models_are_named_in_a_file_that_tensorflow_serving_s_own_message_reads(tmp_path):
    rendering = render(ServingProfile(), Served("lenet", "1", '/srv/a "b"/é'))
    rendering.write(tmp_path)
    assert "--model_config_file=/srv/config/models.txt" in rendering.arguments
    assert not [flag for flag in rendering.arguments if flag.startswith(("--model_name", "--model_base_path"))]
    read = text_format.Parse((tmp_path / "models.txt").read_text(), model_server_config_pb2.ModelServerConfig())
    assert [(one.name, one.base_path, one.model_platform) for one in read.model_config_list.config] == [
        ("convnet", "/srv/savedmodel", "tensorflow"),
        ("lenet", '/srv/a "b"/é', "tensorflow"),
    ]


def test_as_many_calls_as_the_queue_holds_get_a_thread():
    given = knobs(render(ServingProfile(max_batch_size=32, queue_capacity=1024, instances=2)))
    grpc, rest = given["front end, gRPC"], given["front end, REST"]
    assert (grpc.native_key, rest.native_key) == ("grpc_max_threads", "rest_api_num_threads")
    assert int(grpc.value or 0) >= 1024 + 2 * 32
    assert int(rest.value or 0) >= 2 * 2 * 32  # one batch fills while another is computed


def test_the_queue_is_counted_in_batches():
    rendering = render(ServingProfile(max_batch_size=32, queue_capacity=100))
    knob = knobs(rendering)["queue_capacity"]
    assert (knob.native_key, knob.value, knob.unit, knob.kind, knob.asked) == (
        *("max_enqueued_batches", 4, "batches", KnobKind.OTHER_UNIT),
        100,
    )
    assert f"# {knob.note}\n" in rendering.files["batching.txt"]


@pytest.mark.parametrize("engine", ALL)
def test_every_knob_is_what_the_files_and_flags_say(engine):
    profile = ServingProfile(
        max_batch_size=8, batch_timeout_ms=2.5, instances=3, threads=2, queue_capacity=77, onednn=False
    )
    rendering = render(profile, engine=engine)
    given = dict(argument.removeprefix("--").split("=", 1) for argument in rendering.arguments)
    given |= dict(re.findall(r"(\w+) { value: (\d+) }", rendering.files["batching.txt"]))
    given |= rendering.environment
    counterparts = [knob for knob in rendering.knobs if knob.kind is not KnobKind.NO_COUNTERPART]
    assert {knob.native_key: given[knob.native_key] for knob in counterparts} == {
        knob.native_key: str(knob.value) for knob in counterparts
    }
    assert [knob.name for knob in rendering.knobs if knob not in counterparts] == ["device"]
    assert list(knobs(rendering)) == [*profile.to_dict(), "front end, gRPC", "front end, REST"]
    assert [knob.asked for knob in rendering.knobs] == [*profile.to_dict().values(), None, None]


def test_models_share_batch_threads_or_not_and_a_note_says_which():
    beside = Served("lenet", "1", "/srv/lenet")
    notes = [knobs(render(ServingProfile(), beside, engine=engine))["instances"].note for engine in ALL]
    assert all("2 models" in note for note in notes)
    assert notes[0] != notes[1]
    assert [knobs(render(ServingProfile(), engine=engine))["instances"].note for engine in ALL] == ["", ""]


def test_the_stand_in_differs_in_its_address_alone():
    real, stand_in = (render(ServingProfile(threads=3), engine=engine) for engine in ALL)
    assert stand_in.arguments == (*real.arguments, "--bind_address=127.0.0.1")
    assert (stand_in.files, stand_in.environment) == (real.files, real.environment)
    assert real.environment["OMP_NUM_THREADS"] == "3"
    plain = [[replace(knob, note="") for knob in rendering.knobs] for rendering in (real, stand_in)]
    assert plain[0] == plain[1]


def fake_server(tmp_path, script):
    program = tmp_path / "tensorflow_model_server"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_the_real_server_on_the_path_is_preferred(tmp_path, monkeypatch):
    said = r"printf 'TensorFlow ModelServer: 2.20.0+dev.sha.bc7e9d2\nTensorFlow Library: 2.20.0\n'"
    program = fake_server(tmp_path, said)
    monkeypatch.delenv("TFSERVING")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert launch.at_hand(tensorflow_serving.ENGINE) is tensorflow_serving.ENGINE
    found = server.find(tensorflow_serving.ENGINE.program)
    assert found == Program((str(program),), "2.20.0+dev.sha.bc7e9d2 (tensorflow 2.20.0)")


def test_without_it_the_embedded_server_stands_in(tmp_path, monkeypatch):
    monkeypatch.delenv("TFSERVING")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launch.at_hand(tensorflow_serving.ENGINE) is embedded_tfserving.ENGINE
    named = {tensorflow_serving.ENGINE.id: tmp_path / "elsewhere"}
    assert launch.at_hand(tensorflow_serving.ENGINE, named) is tensorflow_serving.ENGINE


@pytest.mark.parametrize("script", ["exit 1", None])
def test_a_named_server_that_does_not_run_is_a_problem(tmp_path, script):
    program = fake_server(tmp_path, script) if script else tmp_path / "absent"
    with pytest.raises(Problem, match="--version fails"):
        server.find(tensorflow_serving.ENGINE.program, program)
