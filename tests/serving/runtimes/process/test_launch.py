"""Launching the TensorFlow side, with a stand-in for the real server; TorchServe is launched for real elsewhere."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from models.encoding import Encoding
from models.precision import Precision
from models.problem import Problem
from serving import ports
from serving.engines import registry
from serving.engines.engine import Knob, KnobKind, Ports, Switch
from serving.profile import ServingProfile
from serving.runtimes import answering
from serving.runtimes.process import launch
from serving.target import Caveat, Target
from tests.serving import fake_model_server


@pytest.fixture
def bundle(tmp_path):
    return SimpleNamespace(
        model="convnet",
        version=3,
        input_shape=(32, 32, 3),
        classes=10,
        precision=Precision.FP32,
        encoding=Encoding.NONE,
        left_out={},
        savedmodel=tmp_path / "saved model",
    )


@pytest.fixture
def program(tmp_path) -> Path:
    path = tmp_path / "tensorflow_model_server"
    path.write_text(
        f"""#!/bin/sh
if [ "$1" = --version ]; then echo "TensorFlow ModelServer: 2.20.0"; echo "TensorFlow Library: 2.20.0"; exit; fi
exec {sys.executable} {fake_model_server.__file__} "$@"
"""
    )
    path.chmod(0o755)
    return path


def test_the_target_answers_on_both_protocols_and_says_what_it_is(bundle, program, tmp_path):
    grpc_port, rest_port = ports.free(2)
    core = max(os.sched_getaffinity(0))
    with launch.start(
        "tensorflow",
        bundle,
        ServingProfile(max_batch_size=16, threads=3),
        tmp_path / "run",
        cores=[core],
        programs={"tensorflow-serving": program},
        fixed_ports=Ports(rest=rest_port, grpc=grpc_port, metrics=0),
    ) as running:
        target = running.target
        running.check()
        assert (target.engine, target.engine_version) == ("tensorflow-serving", "2.20.0 (tensorflow 2.20.0)")
        assert (target.grpc, target.rest) == (f"127.0.0.1:{grpc_port}", f"127.0.0.1:{rest_port}")
        assert target.metrics == f"http://127.0.0.1:{rest_port}/monitoring/prometheus/metrics"
        assert (target.model, target.version, target.classes, target.cores) == ("convnet", 3, 10, (core,))
        assert os.sched_getaffinity(running.process.pid) == {core}
        assert Target.load(tmp_path / "run" / "target.json") == target
        lines = running.process.last_lines()
        flags = json.loads(next(line for line in lines if line.startswith("flags:")).removeprefix("flags:"))
        assert flags["model_base_path"] == str(bundle.savedmodel)
        assert "max_batch_size { value: 16 }" in Path(flags["batching_parameters_file"]).read_text()
        assert Path(flags["monitoring_config_file"]).is_file()
        assert "threads: 3" in lines
    assert not psutil.pid_exists(running.process.pid)


def test_every_start_has_as_much_padding_in_its_environment_as_was_asked_for(bundle, program, tmp_path):
    programs = {"tensorflow-serving": program}
    found = []
    for number, offset in enumerate((0, 1234, 4095)):
        folder = tmp_path / f"run-{number}"
        arguments = ("tensorflow", bundle, ServingProfile(), folder)
        with launch.start(*arguments, programs=programs, offset=offset) as running:
            found.append(psutil.Process(running.process.pid).environ())
    padding = [one.pop(launch.OFFSET) for one in found]
    assert [len(one) for one in padding] == [0, 1234, 4095]
    assert set(padding[2]) == {"x"}
    # And in nothing else do the starts' environments differ but in their folders.
    others = [
        {key: value.replace(f"run-{number}", "run") for key, value in one.items()} for number, one in enumerate(found)
    ]
    assert others[0] == others[1] == others[2]


def test_a_target_may_have_any_name_and_its_engine_is_said(bundle, program, tmp_path):
    engine = registry.engine("tensorflow-serving")
    programs = {engine.id: program}
    profile = ServingProfile(max_batch_size=1, queue_capacity=1)
    with launch.start("unbatched", bundle, profile, tmp_path / "run", engine=engine, programs=programs) as running:
        target = running.target
        assert (target.name, target.engine, target.max_batch_size) == ("unbatched", engine.id, 1)
        assert {knob.name: knob.asked for knob in target.knobs if knob.asked is not None} == profile.to_dict()


def test_a_server_that_dies_while_starting_shows_its_last_words(bundle, program, tmp_path):
    bundle.model = "dies"
    with pytest.raises(Problem, match=r"TensorFlow Serving died: exit status 1 \(log: .*server\.log\)") as caught:
        launch.start("tensorflow", bundle, ServingProfile(), tmp_path / "run", programs={"tensorflow-serving": program})
    assert caught.value.details[-1] == "Failed to start server. Error: no versions of servable"


def test_a_server_that_is_killed_under_load_is_noticed(bundle, program, tmp_path):
    with launch.start(
        "tensorflow", bundle, ServingProfile(), tmp_path / "run", programs={"tensorflow-serving": program}
    ) as running:
        os.kill(running.process.pid, signal.SIGKILL)
        with pytest.raises(Problem, match="memory runs out"):
            running.process.wait_until(lambda: False, 20)


def test_not_ready_in_time_stops_it(bundle, program, tmp_path):
    bundle.classes = 7  # the stand-in answers 10 classes: never a prediction of this model
    with pytest.raises(Problem, match="was not ready after"):
        launch.start(
            "tensorflow",
            bundle,
            ServingProfile(),
            tmp_path / "run",
            programs={"tensorflow-serving": program},
            startup_timeout_s=3,
        )
    left = [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or [])]
    assert left == []


@pytest.mark.parametrize(("only", "works", "silent"), [("grpc", "gRPC", "REST"), ("rest", "REST", "gRPC")])
def test_a_server_that_answers_over_one_protocol_only_is_told_so_in_seconds(
    bundle, program, tmp_path, monkeypatch, only, works, silent
):
    monkeypatch.setattr(answering, "PARTLY_S", 0.5)
    program.write_text(program.read_text().replace('"$@"', f'--only={only} "$@"'))
    began = time.monotonic()
    with pytest.raises(Problem) as caught:
        launch.start("tensorflow", bundle, ServingProfile(), tmp_path / "run", programs={"tensorflow-serving": program})
    assert time.monotonic() - began < 60
    assert re.fullmatch(
        rf"TensorFlow Serving answers over {works}, but after 0.5 s more still not over {silent} at 127.0.0.1:\d+ "
        r"\(.+\): does it listen there\? \(log: .*server\.log\)",
        str(caught.value),
    )
    assert any(line.startswith("flags:") for line in caught.value.details)
    left = [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or [])]
    assert left == []


def test_one_port_for_two_apis_is_refused_at_once(bundle, program, tmp_path):
    (port,) = ports.free(1)
    two = f"port {port} is given for TensorFlow Serving's gRPC API and for TensorFlow Serving's REST API: choose two"
    for given, said in (
        (Ports(rest=port, grpc=port, metrics=0), two),
        (Ports(rest=0, grpc=port, metrics=port), two),
        (Ports(rest=port, grpc=0, metrics=port + 1), f"metrics: they are on its REST port, {port}; leave one out"),
    ):
        arguments = ("tensorflow", bundle, ServingProfile(), tmp_path / "run")
        with pytest.raises(Problem, match=said):
            launch.start(*arguments, programs={"tensorflow-serving": program}, fixed_ports=given)
    assert not (tmp_path / "run" / "server.log").exists()


def test_what_cannot_run_is_said_before_anything_is_started(program, monkeypatch):
    engines = [registry.of_target(name) for name in registry.DEFAULT_TARGETS]
    launch.require(engines, {"tensorflow-serving": program})
    program.write_text("#!/bin/sh\necho another server 1.0\n")
    with pytest.raises(Problem, match=r"is not TensorFlow Serving: its --version says 'another server 1\.0'"):
        launch.require(engines, {"tensorflow-serving": program})
    monkeypatch.delenv("TFSERVING")
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    with pytest.raises(Problem, match="is not TensorFlow Serving"):
        launch.require(engines)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(program.parent))
    launch.require(engines)  # the embedded server stands in


def test_a_target_survives_its_file(tmp_path):
    target = Target(
        name="tensorflow",
        engine="embedded-tfserving",
        engine_version="x",
        runtime="process",
        model="m",
        version=1,
        input_shape=(1, 2, 3),
        classes=4,
        grpc="a:1",
        rest="b:2",
        cores=(1, 0),
        knobs=(
            Knob("threads", "intra", 2, "threads", KnobKind.SAME, "a note", 2),
            Knob("device", "", None, kind=KnobKind.NO_COUNTERPART, asked="cpu"),
        ),
        switches=(Switch("oneDNN", True), Switch("OMP_NUM_THREADS", "1"), Switch("quantized engine", None)),
        max_batch_size=7,
        caveats=(Caveat.DOCKER_PROXY,),
    )
    target.save(tmp_path / "target.json")
    assert Target.load(tmp_path / "target.json") == target
    assert Target.load(tmp_path / "target.json") != replace(target, cores=())


@pytest.mark.parametrize(("asked", "on"), [("default", False), (True, True), (False, False)])
def test_onednn_is_as_the_profile_asks_whatever_this_shell_says_and_is_read_back(
    bundle, program, tmp_path, monkeypatch, asked, on
):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    monkeypatch.setenv("KMP_BLOCKTIME", "0")
    programs = {"tensorflow-serving": program}
    profile = ServingProfile(onednn=asked)
    with launch.start("tensorflow", bundle, profile, tmp_path / "run", programs=programs) as running:
        given = psutil.Process(running.process.pid).environ().get("TF_ENABLE_ONEDNN_OPTS")
        assert given == (None if asked == "default" else str(int(asked)))
        found = {one.name: one.value for one in running.target.switches}
    assert found.items() >= {"oneDNN": on, "KMP_BLOCKTIME": "0", "OMP_NUM_THREADS": "1"}.items()
    assert found.get("TF_ENABLE_ONEDNN_OPTS") == given
    assert Target.load(tmp_path / "run" / "target.json").switches == running.target.switches


def test_a_server_of_the_cpu_sees_no_gpu_where_there_is_one(bundle, program, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "NVIDIA", tmp_path / "nvidiactl")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    (tmp_path / "nvidiactl").touch()
    programs = {"tensorflow-serving": program}
    with launch.start("tensorflow", bundle, ServingProfile(), tmp_path / "run", programs=programs) as running:
        assert Switch("CUDA_VISIBLE_DEVICES", "-1") in running.target.switches
        assert psutil.Process(running.process.pid).environ()["CUDA_VISIBLE_DEVICES"] == "-1"


def test_a_server_that_does_not_say_that_it_computes_on_the_gpu_is_refused(bundle, program, tmp_path):
    programs, profile = {"tensorflow-serving": program}, ServingProfile(device="gpu")
    with pytest.raises(Problem, match=r"profile\.device = 'gpu', and TensorFlow Serving does not compute on one"):
        launch.start("tensorflow", bundle, profile, tmp_path / "run", programs=programs)
