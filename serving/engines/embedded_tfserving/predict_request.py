"""What a PredictRequest asks of a servable, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.engines.embedded_tfserving import tensors
from serving.engines.embedded_tfserving.large_requests import Inputs
from serving.engines.embedded_tfserving.servable import Servable
from serving.engines.embedded_tfserving.signature import DEFAULT_SIGNATURE, Signature
from serving.engines.embedded_tfserving.status import ServingError
from serving.wire.grpc_status import Code


def arguments(servable: Servable, request: Any, decoded: Inputs | None = None) -> tuple[Signature, list[np.ndarray]]:
    """The signature that a PredictRequest means and its inputs in the signature's order; raises `ServingError`.

    ``decoded``: the inputs, where the request does not hold them any more.
    """
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = servable.signature(name)
    if signature is None:
        raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    inputs = request.inputs if decoded is None else decoded
    signature.check_names(inputs)
    given = [inputs[info.alias] for info in signature.inputs]
    if decoded is None:
        arrays = [tensors.decode(proto, info.alias) for proto, info in zip(given, signature.inputs, strict=True)]
    else:
        arrays = [one.values() for one in given]
    for position, info in enumerate(signature.inputs):
        info.check_type(position, given[position].dtype)
    return signature, arrays
