from __future__ import annotations

import gc
import io
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from serving.engines import torch_switches
from serving.engines.embedded_tfserving.metrics import LATENCY_BOUNDS
from serving.engines.engine import Switch
from serving.engines.torchserve import handler, rendering

IMAGES = np.random.default_rng(3).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)


class Classifier(torch.nn.Module):
    """Share of red, green and blue, so that every answer can be told."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        sums = images.to(torch.float32).sum(dim=(1, 2))
        return sums / sums.sum(dim=1, keepdim=True)


def expected(images: np.ndarray) -> np.ndarray:
    return Classifier()(torch.from_numpy(images)).numpy()


@pytest.fixture
def context(tmp_path, monkeypatch):
    """What TorchServe hands to a handler, with TorchServe's own classes."""
    monkeypatch.setattr(handler, "_quiet_worker", lambda: None)  # it changes the process's logging
    monkeypatch.setattr(handler, "FLUSH_SECONDS", 3600)
    traced = torch.jit.trace(Classifier().eval(), torch.zeros(2, 32, 32, 3, dtype=torch.uint8))
    torch.jit.save(torch.jit.freeze(traced.eval()), str(tmp_path / "model.pt"))
    (tmp_path / "metrics.yaml").write_text(rendering.METRICS_YAML)
    metrics = MetricsCacheYamlImpl(str(tmp_path / "metrics.yaml"))
    metrics.initialize_cache()
    manifest = {"model": {"serializedFile": "model.pt", "modelVersion": "7"}}
    return Context("convnet", str(tmp_path), manifest, 8, None, "0.12.0", metrics=metrics, model_yaml_config={})


def run(classifier, context, *requests: tuple[str, str, bytes]):
    """Answers and statuses of a batch of (input name, content type, payload)."""
    context.request_processor = [RequestProcessor({name: {"content-type": kind}}) for name, kind, _ in requests]
    data = [{name: bytearray(payload)} for name, _, payload in requests]
    answers = classifier.handle(data, context)
    return answers, [context.get_response_status(index)[0] for index in range(len(requests))]


def raw(images: np.ndarray) -> tuple[str, str, bytes]:
    return "data", "", images.tobytes()


def as_json(value: object) -> tuple[str, str, bytes]:
    return "body", "application/json; charset=utf-8", json.dumps(value).encode()


def test_a_batch_of_mixed_kinds_and_sizes_is_answered_in_order(context):
    classifier = handler.ImageClassifier(context)
    answers, statuses = run(
        classifier,
        context,
        raw(IMAGES[:1]),
        as_json({"instances": IMAGES[1:4].tolist()}),
        ("body", "application/octet-stream", IMAGES[4:6].tobytes()),
        raw(IMAGES[6:]),
    )
    assert statuses == [200] * 4
    rows = [
        np.frombuffer(answers[0], "<f4").reshape(-1, 3),
        np.array(json.loads(answers[1])["predictions"], np.float32),
        np.frombuffer(answers[2], "<f4").reshape(-1, 3),
        np.frombuffer(answers[3], "<f4").reshape(-1, 3),
    ]
    assert [len(part) for part in rows] == [1, 3, 2, 2]
    np.testing.assert_allclose(np.concatenate(rows), expected(IMAGES), atol=1e-6)
    assert context.get_response_content_type(1) == "application/json"
    assert context.get_response_content_type(2) == "application/octet-stream"


def test_one_forward_pass_per_batch(context, monkeypatch):
    classifier = handler.ImageClassifier(context)
    forward, seen = classifier.model, []

    def watched(images):
        seen.append(len(images))
        return forward(images)

    monkeypatch.setattr(classifier, "model", watched)
    run(classifier, context, raw(IMAGES[:1]), raw(IMAGES[1:6]), as_json({"instances": IMAGES[6:].tolist()}))
    assert seen == [8]


BAD = {
    "no bytes": ("body", "application/octet-stream", b""),
    "one byte short": ("data", "", IMAGES[0].tobytes()[:-1]),
    "no JSON": ("body", "application/json", b"{"),
    "JSON list": as_json([1]),
    "other key": as_json({"inputs": IMAGES[:1].tolist()}),
    "no instances": as_json({"instances": []}),
    "flat image": as_json({"instances": [IMAGES[0].ravel().tolist()]}),
    "ragged image": as_json({"instances": [IMAGES[0].tolist()[:-1], IMAGES[0].tolist()]}),
    "batch without batch axis": as_json({"instances": IMAGES[0].tolist()}),
    "256": as_json({"instances": np.full((1, 32, 32, 3), 256).tolist()}),
    "-1": as_json({"instances": np.full((1, 32, 32, 3), -1).tolist()}),
    "floats": as_json({"instances": np.full((1, 32, 32, 3), 0.5).tolist()}),
    "strings": as_json({"instances": [[["abc"] * 32] * 32]}),
    "null": as_json(None),
    "form": ("field", "", b"x"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_request_gets_its_own_400_and_its_batch_mates_their_answers(context, bad):
    classifier = handler.ImageClassifier(context)
    answers, statuses = run(classifier, context, raw(IMAGES[:2]), bad, as_json({"instances": IMAGES[2:3].tolist()}))
    assert statuses == [200, 400, 200]
    error = json.loads(answers[1])
    assert (error["code"], error["type"]) == (400, "BadRequest")
    assert "send" in error["message"]
    assert len(answers[1]) % 4  # over gRPC, where no status arrives, it is no float32 array
    np.testing.assert_allclose(np.frombuffer(answers[0], "<f4").reshape(-1, 3), expected(IMAGES[:2]), atol=1e-6)
    np.testing.assert_allclose(json.loads(answers[2])["predictions"], expected(IMAGES[2:3]), atol=1e-6)


def test_a_batch_of_bad_requests_only(context):
    _, statuses = run(handler.ImageClassifier(context), context, BAD["no bytes"], BAD["no JSON"])
    assert statuses == [400, 400]


def test_without_orjson_the_answers_are_the_same(context, monkeypatch):
    monkeypatch.setattr(handler, "orjson", None)
    answers, statuses = run(handler.ImageClassifier(context), context, as_json({"instances": IMAGES[:2].tolist()}))
    assert statuses == [200]
    np.testing.assert_allclose(json.loads(answers[0])["predictions"], expected(IMAGES[:2]), atol=1e-6)


def test_what_is_loaded_is_never_looked_at_again_by_a_collection(context):
    """A full collection over all of torch takes 50 ms and more, in which every request waits."""
    try:
        handler.ImageClassifier(context)
        assert gc.get_freeze_count() > 100_000
        assert len(gc.get_objects()) < 10_000
    finally:
        gc.unfreeze()


def test_other_input_shapes_come_from_the_archives_model_config(context):
    context.model_yaml_config = {"handler": {"input_shape": [16, 64, 3]}}
    images = IMAGES.reshape(8, 16, 64, 3)
    classifier = handler.ImageClassifier(context)
    answers, statuses = run(classifier, context, as_json({"instances": images[:1].tolist()}), raw(images[1:2]))
    assert statuses == [200, 200]
    np.testing.assert_allclose(json.loads(answers[0])["predictions"], expected(images[:1]), atol=1e-6)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_threads_come_from_the_environment_else_from_the_model_config(context, monkeypatch):
    context.model_yaml_config = {"handler": {"threads": 2}}
    monkeypatch.delenv("TANDEM_TORCH_THREADS", raising=False)
    handler.ImageClassifier(context)
    assert torch.get_num_threads() == 2
    monkeypatch.setenv("TANDEM_TORCH_THREADS", "1")
    handler.ImageClassifier(context)
    assert torch.get_num_threads() == 1


@pytest.fixture
def onednn():
    before = torch.backends.mkldnn.enabled
    yield
    torch.backends.mkldnn.enabled = before


def operators(model: torch.nn.Module) -> set[str]:
    """What PyTorch calls for one batch."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, torch.inference_mode():
        model(torch.zeros(16, 3, 32, 32))
    return {event.key for event in profile.key_averages()}


@pytest.mark.usefixtures("threads", "onednn")
@pytest.mark.parametrize(("given", "on"), [(None, True), ("1", True), ("0", False)])
def test_onednn_is_on_unless_the_environment_says_otherwise_and_what_holds_is_printed(
    context, monkeypatch, capsys, given, on
):
    if given is None:
        monkeypatch.delenv("TANDEM_TORCH_ONEDNN", raising=False)
    else:
        monkeypatch.setenv("TANDEM_TORCH_ONEDNN", given)
    handler.ImageClassifier(context)
    said = torch_switches.in_force(capsys.readouterr().out)
    assert said[::2] == (Switch("oneDNN", on), Switch("quantized engine", torch.backends.quantized.engine))
    convolution = torch.jit.freeze(torch.jit.script(torch.nn.Conv2d(3, 8, 3).eval()))
    assert ("aten::mkldnn_convolution" in operators(convolution)) == on


@pytest.fixture
def tf32():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = False, True
    for switch, before in ((matmul, "none"), (cudnn, "none"), (cudnn.conv, "tf32"), (cudnn.rnn, "tf32")):
        switch.fp32_precision = before


@pytest.mark.usefixtures("threads", "tf32")
@pytest.mark.parametrize(("given", "said"), [(None, "in convolutions"), ("0", False), ("1", True)])
def test_tf32_is_as_the_environment_says_by_old_switches_and_new_ones(context, monkeypatch, capsys, given, said):
    if given is None:
        monkeypatch.delenv("TANDEM_TORCH_TF32", raising=False)
    else:
        monkeypatch.setenv("TANDEM_TORCH_TF32", given)
    handler.ImageClassifier(context)
    assert Switch("TF32", said) in torch_switches.in_force(capsys.readouterr().out)
    if given is not None:
        allowed, backends = given == "1", torch.backends
        assert (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32) == (allowed, allowed)
        named = {one.fp32_precision for one in (backends.cuda.matmul, backends.cudnn, backends.cudnn.conv)}
        assert named == {"tf32" if allowed else "ieee"}


def emitted(caplog) -> dict[str, float]:
    """What TorchServe's frontend counts from the log lines: metric and labels to sum."""
    sums: dict[str, float] = {}
    for record in caplog.records:
        if record.getMessage().startswith("[METRICS]"):
            head, dimensions, kind = record.getMessage().removeprefix("[METRICS]").split("|#")[:3]
            assert kind == "type:COUNTER"
            name, value = head.split(":")
            key = f"{name.split('.')[0]} {dimensions.removesuffix('|')}"
            sums[key] = sums.get(key, 0) + float(value)
    return sums


def test_metrics_count_what_was_observed(context, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sys, "argv", ["worker", "--sock-type", "unix", "--sock-name", "/tmp/.ts.sock.9003"])
    classifier = handler.ImageClassifier(context)
    of = "model:convnet,version:7"
    zero = emitted(caplog)
    assert zero[f"tandem_batch_images_bucket {of},le:1"] == 0  # there before the first request
    assert zero[f"tandem_handler_seconds_count {of},protocol:rest"] == 0
    assert zero[f"tandem_bad_requests_total {of},protocol:grpc"] == 0
    assert zero[f"tandem_worker_starts_total {of},worker:9003"] == 1
    run(classifier, context, raw(IMAGES[:1]))
    run(
        classifier,
        context,
        raw(IMAGES[:3]),
        raw(IMAGES[3:5]),
        BAD["no bytes"],
        as_json({"instances": IMAGES[:1].tolist()}),
    )
    run(classifier, context, BAD["one byte short"])  # computes nothing
    assert emitted(caplog) == zero  # not on the way of an answer
    classifier.metrics.flush()
    counted = emitted(caplog)
    buckets = [counted[f"tandem_batch_images_bucket {of},le:{le}"] for le in (1, 2, 4, 8, "+Inf")]
    assert buckets == [1, 1, 1, 2, 2]
    assert counted[f"tandem_batch_images_sum {of}"] == 7
    assert counted[f"tandem_batch_images_count {of}"] == 2
    requests = {
        protocol: counted[f"tandem_handler_seconds_count {of},protocol:{protocol}"] for protocol in ("grpc", "rest")
    }
    assert requests == {"grpc": 3, "rest": 1}
    assert counted[f"tandem_compute_seconds_count {of}"] == 4
    assert 0 < counted[f"tandem_compute_seconds_sum {of}"] < 5
    bad = {protocol: counted[f"tandem_bad_requests_total {of},protocol:{protocol}"] for protocol in ("grpc", "rest")}
    assert bad == {"grpc": 1, "rest": 1}
    assert 0 < counted[f"tandem_busy_seconds_total {of}"] < 5
    assert counted[f"tandem_worker_heartbeats_total {of},worker:9003"] == 1
    classifier.metrics.flush()
    assert emitted(caplog) == counted  # an idle server sends nothing but a heartbeat a second


def test_both_servers_have_the_same_latency_buckets():
    seconds = [f"{bound / 1e6:g}" for bound in LATENCY_BOUNDS]
    assert [f"{bound:g}" for bound in handler.LATENCY_BUCKETS] == seconds[5:22]


def test_the_handler_sends_what_the_metrics_file_declares(context, caplog):
    caplog.set_level(logging.INFO)
    classifier = handler.ImageClassifier(context)
    run(classifier, context, raw(IMAGES[:1]), BAD["no bytes"])
    classifier.metrics.flush()
    declared = {
        one["name"]: one["dimensions"] for one in yaml.safe_load(rendering.METRICS_YAML)["model_metrics"]["counter"]
    }
    sent = {
        name: [pair.split(":")[0] for pair in labels.split(",")]
        for name, _, labels in (key.partition(" ") for key in emitted(caplog))
    }
    assert sent == declared


@pytest.mark.parametrize(
    ("arguments", "worker"),
    [
        (["--sock-name", "/tmp/a.1/.ts.sock.9000"], "9000"),
        (["--host", "10.0.0.1", "--port", "9001"], "9001"),
        ([], "0"),
    ],
)
def test_a_worker_keeps_its_number(arguments, worker):
    assert handler._worker(["model_service_worker.py", *arguments]) == worker


def test_entry_point(context):
    assert handler.handle(None, context) is None
    context.request_processor = [RequestProcessor({})]
    [answer] = handler.handle([{"data": bytearray(IMAGES[0].tobytes())}], context) or []
    np.testing.assert_allclose(np.frombuffer(answer, "<f4")[None], expected(IMAGES[:1]), atol=1e-6)


def test_it_imports_nothing_of_tandem():
    source = Path(handler.__file__).read_text()
    assert "import serving" not in source
    assert "from serving" not in source
    assert "models" not in [line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith("from ")]


@pytest.mark.usefixtures("threads")
def test_a_worker_that_is_to_compute_on_a_gpu_does_not_compute_on_the_cpu_instead(context, monkeypatch):
    monkeypatch.setenv("TANDEM_TORCH_GPU_MEMORY", "0.4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(RuntimeError, match=r"is to compute on a GPU, and torch \S+ is a build for CPUs"):
        handler.ImageClassifier(context)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(RuntimeError, match="finds no GPU"):
        handler.ImageClassifier(context)


@pytest.mark.usefixtures("threads")
def test_every_batch_size_is_run_when_it_loads_where_that_is_asked_for(context, monkeypatch):
    seen: list[int] = []
    predict = handler.ImageClassifier._predict

    def counting(self, pixels):
        seen.append(len(pixels) // self.image_bytes)
        return predict(self, pixels)

    monkeypatch.setattr(handler.ImageClassifier, "_predict", counting)
    handler.ImageClassifier(context)
    assert set(seen) == set(handler.WARM_UP_BATCHES)
    seen.clear()
    monkeypatch.setenv("TANDEM_TORCH_WARM_UP", "6")
    handler.ImageClassifier(context)
    assert seen[:6] == [1, 2, 3, 4, 5, 6]


def test_files_are_decoded_and_a_bad_one_gets_its_own_400(context, tmp_path, monkeypatch):
    decoder = Path(handler.__file__).parents[3] / "models" / "image_decoding.py"
    (tmp_path / decoder.name).write_bytes(decoder.read_bytes())  # as in the archive
    monkeypatch.syspath_prepend(tmp_path)
    context.model_yaml_config = {"handler": {"encoded": True}}
    png = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(png, "PNG")
    answers, statuses = run(
        handler.ImageClassifier(context),
        context,
        ("image", "", png.getvalue()),
        ("body", "image/jpeg", b"\xff\xd8\xff no image"),
        ("body", "image/png", png.getvalue()),
        raw(IMAGES[1:3]),
    )
    assert statuses == [200, 400, 200, 200]
    np.testing.assert_allclose(np.frombuffer(answers[0], "<f4").reshape(-1, 3), expected(IMAGES[:1]), atol=1e-6)
    assert "a damaged image" in json.loads(answers[1])["message"] or "no JPEG" in json.loads(answers[1])["message"]
    np.testing.assert_allclose(json.loads(answers[2])["predictions"], expected(IMAGES[:1]), atol=1e-6)
    np.testing.assert_allclose(np.frombuffer(answers[3], "<f4").reshape(-1, 3), expected(IMAGES[1:3]), atol=1e-6)


def test_a_model_without_a_decoder_says_so(context):
    answers, statuses = run(handler.ImageClassifier(context), context, ("body", "image/jpeg", b"\xff\xd8\xff"))
    assert statuses == [400]
    assert json.loads(answers[0])["message"] == "this model takes no JPEG or PNG files: send its pixels"
