"""The examples of TensorFlow Serving's own documentation (tensorflow.org/tfx/serving/api_rest), as they stand there."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator

import pytest
import tensorflow as tf

from tests.components import require
from tests.serving.engines.embedded_tfserving.embedded import Embedded, running

pytestmark = [pytest.mark.slow, pytest.mark.beside]


class HalfPlusThree(tf.Module):
    """The documentation's model: y = x / 2 + 3."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def predict(self, x):
        return {"y": x / 2 + 3}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(self, inputs):
        x = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]
        return {"outputs": x / 2 + 3}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Embedded]:
    folder = tmp_path_factory.mktemp("documentation")
    model = HalfPlusThree()
    signatures = {"serving_default": model.predict, "regress_x_to_y": model.regress}
    tf.saved_model.save(model, f"{folder}/half_plus_three/123", signatures=signatures)
    flags = ["--model_name=half_plus_three", f"--model_base_path={folder}/half_plus_three"]
    with running(folder / "server", *flags) as started:
        yield started


def curl(server: Embedded, words: str) -> object:
    require("curl")
    command = shlex.split(words.replace("localhost:8501", f"127.0.0.1:{server.rest_port}"))
    done = subprocess.run([*command, "-s"], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (
            """curl -d '{"instances": [1.0,2.0,5.0]}' -X POST http://localhost:8501/v1/models/half_plus_three:predict""",
            {"predictions": [3.5, 4.0, 5.5]},
        ),
        (
            """curl -X POST http://localhost:8501/v1/models/half_plus_three/versions/123:predict """
            """-d '{"signature_name": "serving_default", "inputs": {"x": [1.0, 2.0, 5.0]}}'""",
            {"outputs": [3.5, 4.0, 5.5]},
        ),
        (
            """curl -d '{"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]}' """
            """-X POST http://localhost:8501/v1/models/half_plus_three:regress""",
            {"error": "embedded-tfserving does not support regress: of the inference calls it answers Predict only"},
        ),
        (
            "curl http://localhost:8501/v1/models/half_plus_three",
            {
                "model_version_status": [
                    {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
                ]
            },
        ),
    ],
)
def test_curl_as_documented(server: Embedded, words: str, answer: object):
    assert curl(server, words) == answer


def test_the_documented_metadata_call(server: Embedded):
    found = curl(server, "curl http://localhost:8501/v1/models/half_plus_three/metadata")
    assert isinstance(found, dict)
    assert found["model_spec"] == {"name": "half_plus_three", "signature_name": "", "version": "123"}
    signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert signature["method_name"] == "tensorflow/serving/predict"
