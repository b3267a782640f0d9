"""A model that nobody described here, asked by what its server says of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serving.client import Client
from serving.engines import registry
from serving.engines.engine import Description, Tensor
from serving.target import Target
from tests.serving.targets import target

pytestmark = [pytest.mark.slow, pytest.mark.beside]


def described(server, model: str, protocol: str, version: str = "") -> tuple[Target, Description]:
    """The target with its inputs and outputs, and all that was said."""
    to = replace(
        target("tensorflow", classes=0),
        model=model,
        grpc=f"127.0.0.1:{server.port}",
        rest=f"127.0.0.1:{server.rest_port}",
        pinned_version=version,
    )
    question = registry.engine(to.engine).metadata(to, protocol)
    assert question is not None
    if question.message is None:
        status, body = server.http("GET", question.path)
        assert status == 200, body
    else:
        body = server.channel.unary_unary(question.path)(question.message, timeout=30)
    said = question.read(body)
    return replace(to, inputs=said.inputs, outputs=said.outputs, input_shape=said.inputs[0].shape[1:]), said


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_model_of_floats(recorded_server, protocol):
    to, said = described(recorded_server, "misc", protocol)
    assert said == Description(
        "", (Tensor("x", "float32", (-1, 2)),), (Tensor("y", "float32", (-1, 2)),), versions=("1",)
    )
    samples = np.array([[0.5, -1], [2, 3]], np.float32)
    with Client(to) as client:
        np.testing.assert_array_equal(client.predict(protocol, samples), 2 * samples)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_version_that_a_label_names(recorded_server, protocol):
    images = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    answers = {}
    for version in ("canary", "2", "1"):
        to, said = described(recorded_server, "cnn", protocol, version)
        assert said.versions == ("1" if version == "1" else "2",)
        first = next(one for one in said.outputs if one.name == "probabilities")
        with Client(replace(to, outputs=(first,))) as client:
            answers[version] = client.predict(protocol, images)
    assert answers["1"].shape == (3, 10)
    np.testing.assert_array_equal(answers["canary"], answers["2"])
    assert not np.allclose(answers["1"], answers["2"])
