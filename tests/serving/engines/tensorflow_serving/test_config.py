from __future__ import annotations

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from models.problem import Problem
from serving.engines.tensorflow_serving import config as tensorflow_serving
from serving.profile import ServingProfile
from tests.serving.golden import assert_golden


def render(profile: ServingProfile, **changes: object) -> tensorflow_serving.Rendering:
    return tensorflow_serving.render(
        profile,
        model="convnet",
        model_base_path="/srv/savedmodel",
        configuration="/srv/config",
        grpc_port=8500,
        rest_port=8501,
        **changes,  # type: ignore[arg-type]
    )


def test_golden_files(tmp_path):
    rendering = render(
        ServingProfile(max_batch_size=64, batch_timeout_ms=2.5, instances=2, threads=4, queue_capacity=500)
    )
    rendering.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batching.txt", "flags.txt", "monitoring.txt"]
    for path in tmp_path.iterdir():
        assert_golden(f"tensorflow-{path.name}", path.read_text())


def test_several_models_are_named_in_a_file_that_tensorflow_serving_s_own_message_reads(tmp_path):
    rendering = render(ServingProfile(), beside={"lenet": '/srv/a "b"/é'})
    rendering.write(tmp_path)
    assert "--model_config_file=/srv/config/models.txt" in rendering.flags
    assert not [flag for flag in rendering.flags if flag.startswith(("--model_name", "--model_base_path"))]
    read = text_format.Parse((tmp_path / "models.txt").read_text(), model_server_config_pb2.ModelServerConfig())
    assert [(one.name, one.base_path, one.model_platform) for one in read.model_config_list.config] == [
        ("convnet", "/srv/savedmodel", "tensorflow"),
        ("lenet", '/srv/a "b"/é', "tensorflow"),
    ]


def test_as_many_calls_as_the_queue_holds_get_a_thread():
    settings = render(ServingProfile(max_batch_size=32, queue_capacity=1024, instances=2)).settings
    assert settings["grpc_max_threads"] >= 1024 + 2 * 32
    assert settings["rest_api_num_threads"] >= 2 * 2 * 32  # one batch fills while another is computed


def test_the_queue_is_counted_in_batches():
    rendering = render(ServingProfile(max_batch_size=32, queue_capacity=100))
    assert rendering.settings["max_enqueued_batches"] == 4
    assert any("queue_capacity = 100 became 4 batches" in note for note in rendering.notes)


def fake_server(tmp_path, script):
    program = tmp_path / "tensorflow_model_server"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_the_real_server_on_the_path_is_preferred(tmp_path, monkeypatch):
    said = r"printf 'TensorFlow ModelServer: 2.20.0+dev.sha.bc7e9d2\nTensorFlow Library: 2.20.0\n'"
    program = fake_server(tmp_path, said)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    engine = tensorflow_serving.find_engine()
    assert engine.name == "tensorflow-serving"
    assert engine.version == "2.20.0+dev.sha.bc7e9d2 (tensorflow 2.20.0)"
    assert engine.command == (str(program),)


def test_without_it_the_embedded_server_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = tensorflow_serving.find_engine()
    assert engine.name == "embedded-tfserving"
    assert engine.command[1:] == ("-m", "serving", "embedded-tfserving", "--bind_address=127.0.0.1")


@pytest.mark.parametrize("script", ["exit 1", None])
def test_a_named_server_that_does_not_run_is_a_problem(tmp_path, script):
    program = fake_server(tmp_path, script) if script else tmp_path / "absent"
    with pytest.raises(Problem, match="--version fails"):
        tensorflow_serving.find_engine(program)
