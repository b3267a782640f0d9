"""What is made of TorchServe's answers: of Tandem's own handler, and of the handlers that users have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serving.engines import registry
from serving.target import Target
from serving.wire.protobuf import torchserve_pb2 as messages
from tests.serving.targets import target

THEIRS = replace(target("pytorch"), classes=0, is_endpoint=True)


def decode(where: Target, protocol: str, body: bytes) -> list[list[float]]:
    if protocol == "grpc":
        body = messages.PredictionResponse(prediction=body).SerializeToString()
    found = registry.engine("torchserve").call(where, protocol).decode(body)
    assert found.ndim == 2
    return [[round(float(value), 4) for value in row] for row in found]


@pytest.mark.parametrize("protocol", ["rest", "rest-binary", "grpc"])
@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b'{"predictions": [[0.1, 0.9], [0.5, 0.5]]}', [[0.1, 0.9], [0.5, 0.5]]),
        (b"[0.1, 0.9]", [[0.1, 0.9]]),
        (b"[[0.1, 0.9], [0.5, 0.5]]", [[0.1, 0.9], [0.5, 0.5]]),
        (b"7", [[7.0]]),
        # The image classifier's: the best first, so in another order each time.
        (b'{"tabby": 0.7, "fox": 0.3}', [[0.3, 0.7]]),
        (b'{"fox": 0.6, "tabby": 0.4}', [[0.6, 0.4]]),
        (b'[{"b": 1, "a": [2, 3]}, {"a": [4, 5], "b": 6}]', None),
        (b'[{"tabby": 0.7, "fox": 0.3}, {"fox": 0.6, "tabby": 0.4}]', [[0.3, 0.7], [0.6, 0.4]]),
    ],
)
def test_answers_of_any_handler(protocol, body, rows):
    if rows is None:
        with pytest.raises(ValueError, match="the answer"):
            decode(THEIRS, protocol, body)
    else:
        assert decode(THEIRS, protocol, body) == rows


@pytest.mark.parametrize("body", [b"", b"tabby", b'{"predictions": "none"}', b"null"])
def test_an_answer_without_numbers_is_an_error_that_shows_it(body):
    with pytest.raises(ValueError, match="the answer"):
        decode(THEIRS, "rest", body)


def test_of_a_bundles_model_only_its_own_form_is_right():
    where = replace(target("pytorch"), classes=2)
    assert decode(where, "rest", b'{"predictions": [[0.25, 0.75]]}') == [[0.25, 0.75]]
    with pytest.raises(ValueError, match="no predictions"):
        decode(where, "rest", b"[0.25, 0.75]")
    assert decode(where, "grpc", np.array([[0.25, 0.75]], "<f4").tobytes()) == [[0.25, 0.75]]
