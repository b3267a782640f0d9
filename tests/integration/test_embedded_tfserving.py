"""The embedded server on a real bundle: both protocols and both signatures give the reference's probabilities."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from tests.serving.engines.embedded_tfserving.embedded import running

pytestmark = pytest.mark.slow

SAMPLES = 20


@pytest.fixture(scope="module")
def served(bundle, tmp_path_factory):
    flags = [f"--model_name={bundle.model}", f"--model_base_path={bundle.savedmodel.resolve()}"]
    with running(tmp_path_factory.mktemp("embedded"), *flags) as server:
        yield server


def test_every_way_to_ask_gives_the_reference(served, bundle):
    reference = np.load(bundle.reference)
    images, wanted = reference["images"][:SAMPLES], reference["probabilities"][:SAMPLES]
    path = f"/v1/models/{bundle.model}:predict"

    output = served.predict(bundle.model, {"images": images}).outputs["probabilities"]
    by_grpc = np.array(output.float_val).reshape(wanted.shape)
    rows = {"instances": images.tolist()}
    columns = {"inputs": {"images": images.tolist()}}
    encoded = [{"b64": base64.b64encode(image.tobytes()).decode()} for image in images]
    answers = {}
    for name, body in (
        ("predictions", rows),
        ("outputs", columns),
        ("predictions ", {"signature_name": "serving_bytes", "instances": encoded}),
    ):
        status, answer = served.http("POST", path, body)
        assert status == 200, answer
        answers[name] = json.loads(answer)[name.strip()]
    for probabilities in (by_grpc, *answers.values()):
        np.testing.assert_allclose(probabilities, wanted, atol=1e-4)


def test_metadata_names_the_bundles_signatures(served, bundle):
    status, body = served.http("GET", f"/v1/models/{bundle.model}/metadata")
    assert status == 200
    signatures = json.loads(body)["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "serving_bytes"} <= signatures.keys()
    assert signatures["serving_default"]["inputs"]["images"]["dtype"] == "DT_UINT8"
