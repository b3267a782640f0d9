from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import pytest
import yaml

from models.problem import Problem
from serving.engines.engine import Knob, KnobKind, Ports, Rendering, Served, Site, Switch
from serving.engines.torchserve import ENGINE, rendering
from serving.profile import ServingProfile
from tests.serving.golden import assert_golden

SITE = Site("127.0.0.1", Ports(8080, 7070, 8082, 8081, 7071), "/srv", "/srv/store", cores=4)
CONVNET = Served("convnet", "1", "/srv/store/convnet.mar")
LENET = Served("lenet", "3", "/srv/store/lenet.mar")


def render(profile: ServingProfile, *beside: Served, **site: object) -> Rendering:
    return ENGINE.render(profile, [CONVNET, *beside], replace(SITE, **site))  # type: ignore[arg-type]


def knobs(rendering: Rendering) -> dict[str, Knob]:
    return {knob.name: knob for knob in rendering.knobs}


def properties(rendering: Rendering) -> dict[str, str]:
    lines = rendering.files["config.properties"].splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_golden_files():
    profile = ServingProfile(max_batch_size=64, batch_timeout_ms=2.5, instances=2, threads=4, queue_capacity=500)
    for name, text in render(profile).files.items():
        assert_golden(f"torchserve-{name}", text)


def test_several_models_each_have_their_workers_and_a_note_says_so():
    rendered = render(ServingProfile(instances=2), LENET)
    values = properties(rendered)
    assert values["load_models"] == "convnet=convnet.mar,lenet=lenet.mar"
    models = json.loads(values["models"])
    assert {name: list(versions) for name, versions in models.items()} == {"convnet": ["1"], "lenet": ["3"]}
    assert models["lenet"]["3"]["marName"] == "lenet.mar"
    assert models["lenet"]["3"]["minWorkers"] == models["convnet"]["1"]["minWorkers"] == 2
    assert "2 models" in knobs(rendered)["queue_capacity"].note
    assert not knobs(render(ServingProfile(instances=2)))["queue_capacity"].note


def test_the_profile_arrives():
    rendered = properties(render(ServingProfile(max_batch_size=8, batch_timeout_ms=5, instances=3, queue_capacity=77)))
    model = json.loads(rendered["models"])["convnet"]["1"]
    assert (model["batchSize"], model["maxBatchDelay"], model["minWorkers"], model["maxWorkers"]) == (8, 5, 3, 3)
    assert rendered["job_queue_size"] == "77"


@pytest.mark.parametrize(("timeout", "delay"), [(0, 1), (0.2, 1), (1.5, 2), (2.4, 2)])
def test_a_delay_that_torchserve_cannot_wait_is_rounded_and_said(timeout, delay):
    rendering = render(ServingProfile(batch_timeout_ms=timeout))
    knob = knobs(rendering)["batch_timeout_ms"]
    assert (knob.native_key, knob.value, knob.kind, knob.asked) == ("maxBatchDelay", delay, KnobKind.DIFFERS, timeout)
    assert f"# {knob.note}\n" in rendering.files["config.properties"]
    exact = knobs(render(ServingProfile(batch_timeout_ms=delay)))["batch_timeout_ms"]
    assert (exact.value, exact.kind, exact.note) == (delay, KnobKind.SAME, "")


def test_every_knob_is_what_the_files_say():
    profile = ServingProfile(
        max_batch_size=8, batch_timeout_ms=5, instances=3, threads=2, queue_capacity=77, onednn=True
    )
    rendering = render(profile)
    values = properties(rendering)
    model = json.loads(values["models"])["convnet"]["1"]
    given = {**values, **model, **rendering.environment}
    assert {name: (knob.native_key, str(given[knob.native_key])) for name, knob in knobs(rendering).items()} == {
        name: (knob.native_key, str(knob.value)) for name, knob in knobs(rendering).items()
    }
    assert list(knobs(rendering)) == [*profile.to_dict(), "front end, gRPC", "front end, REST"]
    assert [knob.asked for knob in rendering.knobs] == [*profile.to_dict().values(), None, None]
    assert knobs(rendering)["max_batch_size"].kind is KnobKind.OTHER_UNIT


@pytest.mark.parametrize(("asked", "given"), [("default", None), (True, 1), (False, 0)])
def test_onednn_is_asked_for_where_the_profile_does(asked, given):
    rendering = render(ServingProfile(onednn=asked))
    knob = knobs(rendering)["onednn"]
    assert (knob.native_key, knob.value, knob.asked) == ("TANDEM_TORCH_ONEDNN", given, asked)
    assert rendering.environment.get(knob.native_key) == (None if given is None else str(given))
    assert rendering.unset == ((knob.native_key,) if given is None else ())


def test_what_the_newest_worker_says_is_in_force():
    line = "2026-11-30T02:56:09,123 [INFO ] W-9000-convnet_1-stdout MODEL_LOG - tandem switches %s\n"
    log = line % '{"oneDNN": false, "quantized engine": "x86"}' + line % '{"oneDNN": true, "quantized engine": "x86"}'
    assert ENGINE.in_force(log) == (Switch("oneDNN", True), Switch("quantized engine", "x86"))
    assert ENGINE.in_force("of an archive that says nothing\n") == ()
    assert ENGINE.in_force(line % '{"oneDNN"}') == ()


def test_the_connection_s_age_is_for_those_that_ask():
    assert (
        properties(render(ServingProfile(), connection_age_s=20.0))["grpc_inference_max_connection_age_ms"] == "20000"
    )
    assert "grpc_inference_max_connection_age_ms" not in properties(render(ServingProfile()))


def test_management_stays_on_loopback_and_closed():
    rendered = properties(render(ServingProfile(), host="0.0.0.0"))
    assert rendered["inference_address"] == "http://0.0.0.0:8080"
    assert rendered["management_address"] == "http://127.0.0.1:8081"
    assert rendered["grpc_management_address"] == "127.0.0.1"
    assert rendered["allowed_urls"] == "none"


def test_the_gpu_is_hidden_from_a_cpu_profile_only():
    assert properties(render(ServingProfile()))["number_of_gpu"] == "0"
    assert properties(render(ServingProfile(device="gpu")))["number_of_gpu"] == "1"  # as TensorFlow, the first alone


def test_a_path_is_escaped_for_java():
    assert properties(render(ServingProfile(), models="/srv/mödel\\x/模"))["model_store"] == (
        r"/srv/m\u00f6del\\x/\u6a21"
    )


def test_metrics_file_declares_the_handlers_histograms():
    declared = yaml.safe_load(rendering.METRICS_YAML)["model_metrics"]["counter"]
    names = {metric["name"]: metric["dimensions"] for metric in declared}
    for histogram in ("tandem_compute_seconds", "tandem_batch_images"):
        assert names[f"{histogram}_bucket"] == ["model", "version", "le"]
        assert names[f"{histogram}_sum"] == names[f"{histogram}_count"] == ["model", "version"]


def test_archive_version(tmp_path):
    path = tmp_path / "convnet.mar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelVersion": "3.1"}}))
    assert rendering.archive_version(path) == "3.1"


def test_a_broken_or_missing_archive_is_named(tmp_path):
    path = tmp_path / "convnet.mar"
    with pytest.raises(Problem, match=r"convnet\.mar: no TorchServe model archive"):
        rendering.archive_version(path)
    path.write_bytes(b"no zip")
    with pytest.raises(Problem, match=r"convnet\.mar: no TorchServe model archive"):
        rendering.archive_version(path)
