from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import serving.wire.protobuf
from serving import requests
from serving.wire.protobuf import tensorflow_serving_pb2 as ours
from tests.serving.targets import target

ROOT = Path(serving.wire.protobuf.__file__).resolve().parents[3]
PROTOS = sorted(str(path.relative_to(ROOT)) for path in Path(serving.wire.protobuf.__file__).parent.glob("*.proto"))
IMAGES = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def test_generated_modules_are_in_step_with_the_protos(tmp_path):
    outputs = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    # In a process of its own: its protobuf library and TensorFlow's cannot live in one (segmentation fault).
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", *outputs, *PROTOS], cwd=ROOT, check=True)
    for generated in tmp_path.rglob("*_pb2.py*"):
        committed = ROOT / generated.relative_to(tmp_path)
        assert generated.read_text() == committed.read_text(), f"regenerate: see {serving.wire.protobuf.__file__}"
    assert len(list(tmp_path.rglob("*_pb2.py*"))) == 2 * len(PROTOS) == 6


def test_predict_messages_are_byte_for_byte_tensorflow_servings():
    predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
    encoded = requests.encode(target("tensorflow"), "grpc", IMAGES)
    official = predict_pb2.PredictRequest.FromString(encoded)
    assert official.model_spec.name == "convnet"
    assert official.inputs["images"].dtype == 4  # DT_UINT8
    assert [dim.size for dim in official.inputs["images"].tensor_shape.dim] == [2, 32, 32, 3]
    assert official.inputs["images"].tensor_content == IMAGES.tobytes()
    assert official.SerializeToString(deterministic=True) == encoded

    answer = predict_pb2.PredictResponse()
    answer.model_spec.name, answer.model_spec.version.value = "convnet", 7
    answer.model_spec.signature_name = "serving_default"
    tensor = answer.outputs["probabilities"]
    tensor.dtype = 1  # DT_FLOAT
    for size in (1, 10):
        tensor.tensor_shape.dim.add().size = size
    tensor.float_val.extend([0.1] * 10)
    body = answer.SerializeToString(deterministic=True)
    assert requests.decode(target("tensorflow"), "grpc", body) == pytest.approx(np.full((1, 10), 0.1, np.float32))
    read = ours.PredictResponse.FromString(body)
    assert (read.model_spec.version.value, read.model_spec.signature_name) == (7, "serving_default")
    assert read.SerializeToString(deterministic=True) == body


def test_the_whole_model_spec_and_strings_agree_with_the_official_messages():
    predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
    mine = ours.PredictRequest(
        model_spec=ours.ModelSpec(name="m", version_label="stable", signature_name="serving_bytes"),
        inputs={"image_bytes": ours.TensorProto(dtype=ours.DT_STRING, string_val=[b"abc", b""])},
        output_filter=["probabilities"],
    )
    official = predict_pb2.PredictRequest.FromString(mine.SerializeToString())
    assert official.model_spec.version_label == "stable"
    assert list(official.inputs["image_bytes"].string_val) == [b"abc", b""]
    assert official.SerializeToString(deterministic=True) == mine.SerializeToString(deterministic=True)


def test_predictions_messages_are_byte_for_byte_torchserves(tmp_path):
    spec = find_spec("ts")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    jar = Path(spec.submodule_search_locations[0]) / "frontend" / "model-server.jar"
    with zipfile.ZipFile(jar) as opened:
        for name in ("inference.proto", "google/rpc/status.proto"):
            opened.extract(name, tmp_path)
    described = tmp_path / "descriptors"
    arguments = [f"-I{tmp_path}", "--include_imports", f"--descriptor_set_out={described}", "inference.proto"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True)
    pool = descriptor_pool.DescriptorPool()  # its own: the official names stay out of the default pool
    for file in descriptor_pb2.FileDescriptorSet.FromString(described.read_bytes()).file:
        pool.Add(file)

    def message(name):
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"org.pytorch.serve.grpc.inference.{name}"))

    encoded = requests.encode(target("pytorch"), "grpc", IMAGES)
    official = message("PredictionsRequest").FromString(encoded)
    assert (official.model_name, dict(official.input)) == ("convnet", {"data": IMAGES.tobytes()})
    assert official.SerializeToString(deterministic=True) == encoded
    rows = np.full((2, 10), 0.1, np.float32)
    answer = message("PredictionResponse")(prediction=rows.tobytes()).SerializeToString()
    assert np.array_equal(requests.decode(target("pytorch"), "grpc", answer), rows)
