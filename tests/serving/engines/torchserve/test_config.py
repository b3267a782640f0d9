from __future__ import annotations

import json
import zipfile

import pytest
import yaml

from models.problem import Problem
from serving.engines.torchserve import config
from serving.profile import ServingProfile
from tests.serving.golden import assert_golden

PORTS = config.Ports(rest=8080, management=8081, metrics=8082, grpc=7070, grpc_management=7071)


def render(profile: ServingProfile, **changes: object) -> config.Rendering:
    arguments = {
        "model": "convnet",
        "model_version": "1",
        "model_store": "/srv/store",
        "metrics_config": "/srv/metrics.yaml",
        "ports": PORTS,
        "cores": 4,
    }
    return config.render(profile, **{**arguments, **changes})  # type: ignore[arg-type]


def properties(rendering: config.Rendering) -> dict[str, str]:
    lines = rendering.files["config.properties"].splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_golden_files():
    profile = ServingProfile(max_batch_size=64, batch_timeout_ms=2.5, instances=2, threads=4, queue_capacity=500)
    for name, text in render(profile).files.items():
        assert_golden(f"torchserve-{name}", text)


def test_several_models_each_have_their_workers_and_the_notes_say_so():
    rendered = render(ServingProfile(instances=2), beside={"lenet": "3"})
    values = properties(rendered)
    assert values["load_models"] == "convnet=convnet.mar,lenet=lenet.mar"
    models = json.loads(values["models"])
    assert {name: list(versions) for name, versions in models.items()} == {"convnet": ["1"], "lenet": ["3"]}
    assert models["lenet"]["3"]["marName"] == "lenet.mar"
    assert models["lenet"]["3"]["minWorkers"] == models["convnet"]["1"]["minWorkers"] == 2
    assert any("Each of TorchServe's 2 models has 2 worker process(es)" in note for note in rendered.notes)


def test_the_profile_arrives():
    rendered = properties(render(ServingProfile(max_batch_size=8, batch_timeout_ms=5, instances=3, queue_capacity=77)))
    model = json.loads(rendered["models"])["convnet"]["1"]
    assert (model["batchSize"], model["maxBatchDelay"], model["minWorkers"], model["maxWorkers"]) == (8, 5, 3, 3)
    assert rendered["job_queue_size"] == "77"


@pytest.mark.parametrize(("timeout", "delay"), [(0, 1), (0.2, 1), (1.5, 2), (2.4, 2)])
def test_a_delay_that_torchserve_cannot_wait_is_rounded_and_said(timeout, delay):
    rendering = render(ServingProfile(batch_timeout_ms=timeout))
    assert rendering.settings["maxBatchDelay"] == delay
    said = f"batch_timeout_ms = {timeout:g} became {delay}"
    assert any(said in note for note in rendering.notes)
    assert said in rendering.files["config.properties"]
    assert not any("became" in note for note in render(ServingProfile(batch_timeout_ms=delay)).notes)


def test_management_stays_on_loopback_and_closed():
    rendered = properties(render(ServingProfile(), host="0.0.0.0"))
    assert rendered["inference_address"] == "http://0.0.0.0:8080"
    assert rendered["management_address"] == "http://127.0.0.1:8081"
    assert rendered["grpc_management_address"] == "127.0.0.1"
    assert rendered["allowed_urls"] == "none"


def test_the_gpu_is_hidden_from_a_cpu_profile_only():
    assert properties(render(ServingProfile()))["number_of_gpu"] == "0"
    assert "number_of_gpu" not in properties(render(ServingProfile(device="gpu")))


def test_a_path_is_escaped_for_java():
    assert properties(render(ServingProfile(), model_store="/srv/mödel\\x/模"))["model_store"] == (
        r"/srv/m\u00f6del\\x/\u6a21"
    )


def test_metrics_file_declares_the_handlers_histograms():
    declared = yaml.safe_load(config.METRICS_YAML)["model_metrics"]["counter"]
    names = {metric["name"]: metric["dimensions"] for metric in declared}
    for histogram in ("tandem_compute_seconds", "tandem_batch_images"):
        assert names[f"{histogram}_bucket"] == ["model", "version", "le"]
        assert names[f"{histogram}_sum"] == names[f"{histogram}_count"] == ["model", "version"]


def test_archive_version(tmp_path):
    path = tmp_path / "convnet.mar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelVersion": "3.1"}}))
    assert config.archive_version(path) == "3.1"


def test_a_broken_or_missing_archive_is_named(tmp_path):
    path = tmp_path / "convnet.mar"
    with pytest.raises(Problem, match=r"convnet\.mar: no TorchServe model archive"):
        config.archive_version(path)
    path.write_bytes(b"no zip")
    with pytest.raises(Problem, match=r"convnet\.mar: no TorchServe model archive"):
        config.archive_version(path)
