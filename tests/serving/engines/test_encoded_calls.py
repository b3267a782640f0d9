"""How a JPEG file goes to each server: its bytes as they are, or in base64 where JSON has to carry them."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import numpy as np
import pytest

from models.encoding import Encoding
from serving import requests
from serving.wire.protobuf import tensorflow_serving_pb2, torchserve_pb2
from tests.serving.targets import target

FILE = b"\xff\xd8\xff a JPEG file"
FILES = np.array([FILE], object)
TORCH, TENSORFLOW = (replace(target(name), encoding=Encoding.JPEG) for name in ("pytorch", "tensorflow"))


def test_torchserve_gets_the_file_as_the_body_or_as_an_input_of_its_own():
    head, _, body = requests.encode(TORCH, "rest", FILES).partition(b"\r\n\r\n")
    assert body == FILE
    assert b"Content-Type: image/jpeg\r\n" in head
    message = torchserve_pb2.PredictionsRequest.FromString(requests.encode(TORCH, "grpc", FILES))
    assert dict(message.input) == {"image": FILE}
    rows = requests.decode(TORCH, "rest", b'{"predictions": [[0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]}')
    assert rows.argmax() == 9
    with pytest.raises(ValueError, match="one encoded image or string a request, not 2"):
        requests.encode(TORCH, "grpc", np.array([FILE, FILE], object))


def test_tensorflow_serving_gets_it_as_a_string_for_a_signature_of_its_own():
    _, _, body = requests.encode(TENSORFLOW, "rest", FILES).partition(b"\r\n\r\n")
    assert json.loads(body) == {
        "signature_name": "serving_encoded",
        "instances": [{"b64": base64.b64encode(FILE).decode()}],
    }
    message = tensorflow_serving_pb2.PredictRequest.FromString(requests.encode(TENSORFLOW, "grpc", FILES))
    assert message.model_spec.signature_name == "serving_encoded"
    assert list(message.inputs["encoded_images"].string_val) == [FILE]
    assert message.inputs["encoded_images"].dtype == 7


def test_pixels_are_not_sent_where_files_are_expected():
    with pytest.raises(ValueError, match=r"samples are uint8 \(1, 32, 32, 3\); convnet takes jpeg files, bytes \(N,\)"):
        requests.encode(TENSORFLOW, "grpc", np.zeros((1, 32, 32, 3), np.uint8))
