"""Servers that share a GPU: what each is given of its memory in every engine's own terms, and how one says that it
computes there."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from models.problem import Problem
from serving.engines import gpu, registry
from serving.engines.container import Inside
from serving.engines.embedded_tfserving import flags
from serving.engines.engine import Engine, Knob, KnobKind, Ports, Rendering, Served, Site, Switch
from serving.engines.triton import container as triton
from serving.profile import ServingProfile
from serving.runtimes.containers import configuration
from serving.runtimes.process import launch
from tests.serving.golden import assert_golden

SITE = Site("127.0.0.1", Ports(rest=1, grpc=2, metrics=3), "/srv/config", "/srv", cores=4)
MODELS = [Served("m", "1", "/m", (32, 32, 3), 10), Served("n", "1", "/n", (32, 32, 3), 10)]
GPU = ServingProfile(device="gpu", instances=2, gpu_memory_fraction=0.3)


def render(engine: str, profile: ServingProfile = GPU, models: int = 1) -> Rendering:
    return registry.engine(engine).render(profile, MODELS[:models], SITE)


def knob(rendering: Rendering, name: str = gpu.NAME) -> Knob:
    (found,) = [one for one in rendering.knobs if one.name == name]
    return found


@pytest.mark.parametrize("engine", registry.startable(), ids=lambda one: one.id)
def test_a_profile_of_the_cpu_says_nothing_of_a_gpu_and_one_of_a_gpu_has_every_knob(engine: Engine):
    on_cpu = engine.render(ServingProfile(), MODELS[:1], SITE)
    assert not {gpu.NAME, gpu.AUTOTUNE} & {one.name for one in on_cpu.knobs}
    assert not gpu.computes_there(on_cpu.knobs)
    assert not {gpu.TORCH, gpu.TORCH_WARM_UP, gpu.GROWTH} & on_cpu.environment.keys()
    on_gpu = engine.render(GPU, MODELS[:1], SITE)
    assert {one.name for one in on_gpu.knobs} >= {*GPU.to_dict(), gpu.AUTOTUNE}
    assert gpu.computes_there(on_gpu.knobs)
    assert knob(on_gpu).asked == 0.3


def test_each_worker_of_torchserve_has_a_part_of_the_share_and_warms_up_by_itself():
    rendering = render("torchserve")
    assert rendering.environment[gpu.TORCH] == "0.15"
    assert rendering.environment[gpu.TORCH_WARM_UP] == "32"
    found = knob(rendering)
    assert (found.native_key, found.value, found.kind) == (gpu.TORCH, 0.15, KnobKind.OTHER_UNIT)
    assert "Each of 2" in found.note
    assert "a CUDA context" in found.note
    assert knob(render("torchserve", models=2)).value == 0.075
    assert knob(render("torchserve", replace(GPU, instances=1))).kind is KnobKind.SAME


@pytest.mark.parametrize("engine", ["tensorflow-serving", "embedded-tfserving"])
def test_tensorflow_grows_up_to_its_share_and_is_told_by_flag_and_variable(engine):
    rendering = render(engine)
    assert "--per_process_gpu_memory_fraction=0.3" in rendering.arguments
    assert rendering.environment[gpu.GROWTH] == "true"
    assert (knob(rendering).value, knob(rendering).kind) == (0.3, KnobKind.SAME)
    assert flags.parse([one for one in rendering.arguments if "gpu" in one]).per_process_gpu_memory_fraction == 0.3


def test_that_tensorflow_times_cudnn_s_algorithms_and_pytorch_does_not_is_a_difference_that_is_told():
    torch, tensorflow = (knob(render(name), gpu.AUTOTUNE) for name in ("torchserve", "tensorflow-serving"))
    assert {torch.kind, tensorflow.kind} == {KnobKind.DIFFERS}
    assert (torch.native_key, torch.value) == ("torch.backends.cudnn.benchmark", 0)
    assert (tensorflow.native_key, tensorflow.value) == ("TF_CUDNN_USE_AUTOTUNE", None)
    assert "times none" in torch.note
    assert "for each batch size" in tensorflow.note


def test_triton_s_onnx_runtime_is_capped_in_bytes_of_the_gpu_that_its_container_finds(tmp_path, monkeypatch):
    rendering = render("triton")
    rendering.write(tmp_path / "config")
    assert json.loads(rendering.files["repository.json"])["m"]["gpu_memory_fraction"] == 0.15
    assert "kind: KIND_GPU gpus: [0]" in rendering.files["m.pbtxt"]
    said = (sys.executable, "-c", "print(16384)")
    monkeypatch.setattr(triton, "NVIDIA_SMI", said)
    inside = Inside(tmp_path / "config", tmp_path / "models", tmp_path)
    for _ in range(2):  # it is started again
        triton.CONTAINER.command(inside)
        config = (tmp_path / "repository" / "m" / "config.pbtxt").read_text()
        assert config == rendering.files["m.pbtxt"] + (
            'parameters { key: "gpu_mem_limit" value: { string_value: "2576980377" } }\n'
        )
    monkeypatch.setattr(triton, "NVIDIA_SMI", ("no-such-program",))
    with pytest.raises(Problem, match="nvidia-smi does not say how much memory the GPU has"):
        triton.CONTAINER.command(inside)


@pytest.mark.parametrize("share", [0, -0.1, 1.5, True, "half"])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(Problem, match=r"profile\.gpu_memory_fraction = .*: use a share above 0, up to 1"):
        ServingProfile(gpu_memory_fraction=share)


@pytest.mark.parametrize("text", ["1.5", "-1"])
def test_the_embedded_server_refuses_one_too(text):
    with pytest.raises(Problem, match=r"--per_process_gpu_memory_fraction=.*: use a share, 0 to 1"):
        flags.parse([f"--per_process_gpu_memory_fraction={text}"])


def test_the_share_is_saved_with_a_gpu_alone_unless_somebody_chose_it():
    assert "gpu_memory_fraction" not in ServingProfile().to_dict()
    assert ServingProfile(gpu_memory_fraction=0.2).to_dict()["gpu_memory_fraction"] == 0.2
    assert ServingProfile(device="gpu").to_dict()["gpu_memory_fraction"] == 0.4
    for profile in (ServingProfile(), ServingProfile(gpu_memory_fraction=0.2), GPU):
        assert ServingProfile.from_dict(profile.to_dict()) == profile


def test_what_a_server_will_need_is_contexts_and_weights_of_all_its_processes():
    workers = gpu.expected(render("torchserve").knobs, 100_000_000)
    assert (workers.processes, workers.share) == (2, 0.3)
    assert workers.at_least_bytes == 2 * (gpu.CONTEXT_BYTES + 100_000_000)
    threads = gpu.expected(render("tensorflow-serving").knobs, 100_000_000)
    assert (threads.processes, threads.at_least_bytes) == (1, gpu.CONTEXT_BYTES + 100_000_000)
    uncapped = gpu.expected(render("triton-torchscript").knobs, 1)
    assert uncapped.share is None


REAL = (
    "2026-11-30 10:00:00.1: I tensorflow/core/common_runtime/gpu/gpu_device.cc:2019] Created device "
    "/job:localhost/replica:0/task:0/device:GPU:0 with 6142 MB memory:  -> device: 0, name: Tesla T4, pci bus id: "
    "0000:00:04.0, compute capability: 7.5\n"
)


@pytest.mark.parametrize(
    ("log", "name"),
    [
        ("2026-11-30 02:56:09,123 I embedded-tfserving: GPU is NVIDIA H200\n", "NVIDIA H200"),
        (REAL, "Tesla T4"),
        ("2026-11-30 I cpu_feature_guard.cc:227] This TensorFlow binary is optimized\n", None),
    ],
)
def test_a_server_of_tensorflow_says_on_which_gpu_it_computes(log, name):
    said = registry.engine("tensorflow-serving").in_force(log)
    assert [one for one in said if one.name == "GPU"] == ([Switch("GPU", name)] if name else [])


def test_a_machine_without_a_gpu_is_told_before_anything_is_trained(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "NVIDIA", tmp_path / "nvidiactl")
    launch.require_gpu(ServingProfile())
    with pytest.raises(Problem, match=r"profile\.device = 'gpu': this machine shows no NVIDIA GPU"):
        launch.require_gpu(GPU)
    Path(tmp_path / "nvidiactl").touch()
    launch.require_gpu(GPU)


@pytest.mark.parametrize("engine", ["torchserve", "tensorflow-serving", "embedded-tfserving", "triton"])
def test_golden_files_on_a_gpu(engine, tmp_path):
    rendering = registry.engine(engine).render(ServingProfile(device="gpu"), MODELS[:1], SITE)
    rendering.write(tmp_path)
    texts = [f"# {path.name}\n{path.read_text()}" for path in sorted(tmp_path.glob("[!lm]*"))]
    variables = "".join(f"{name}={value}\n" for name, value in sorted(rendering.environment.items()))
    assert_golden(f"gpu-{engine}.txt", "\n".join([*texts, f"# environment\n{variables}"]))


def test_the_same_is_in_a_container_s_and_a_pod_s_configuration(tmp_path):
    for engine in ("torchserve", "tensorflow-serving"):
        rendering = configuration.render(registry.engine(engine), GPU, model="m", version="1", cores=4)
        configuration.write(rendering, tmp_path / engine)
    torch, tensorflow = ((tmp_path / name).glob("*") for name in ("torchserve", "tensorflow-serving"))
    said = {path.name: path.read_text().splitlines() for path in (*torch, *tensorflow)}
    assert "number_of_gpu=1" in said["config.properties"]
    assert "--per_process_gpu_memory_fraction=0.3" in said["flags.txt"]
    both = {
        line
        for name in ("torchserve", "tensorflow-serving")
        for line in (tmp_path / name / "environment.txt").read_text().splitlines()
    }
    assert both >= {"TANDEM_TORCH_GPU_MEMORY=0.15", "TANDEM_TORCH_WARM_UP=32", "TF_FORCE_GPU_ALLOW_GROWTH=true"}
