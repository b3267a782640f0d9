"""The calls of TensorFlow Serving's API that this server knows and does not answer.

The status is the one that the real server gives where the model has no signature for such a call: INVALID_ARGUMENT,
over REST 400. Our message names the call.
"""

from __future__ import annotations

from serving.engines.embedded_tfserving.identity import NAME
from serving.engines.embedded_tfserving.status import ServingError, invalid

GRPC_CALLS = ("Classify", "Regress", "MultiInference")


def refusal(call: str) -> ServingError:
    """Why `call` (a gRPC method, or the verb of a REST path) is not answered."""
    return invalid(f"{NAME} does not support {call}: of the inference calls it answers Predict only")
