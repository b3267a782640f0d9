"""What a PredictRequest asks of a servable, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.engines.embedded_tfserving import tensors
from serving.engines.embedded_tfserving.servable import Servable
from serving.engines.embedded_tfserving.signature import DEFAULT_SIGNATURE, Signature
from serving.engines.embedded_tfserving.status import ServingError
from serving.wire.grpc_status import Code


def arguments(servable: Servable, request: Any) -> tuple[Signature, list[np.ndarray]]:
    """The signature that a PredictRequest means and its inputs in the signature's order; raises `ServingError`."""
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = servable.signature(name)
    if signature is None:
        raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    inputs = request.inputs
    signature.check_names(inputs)
    protos = [inputs[info.alias] for info in signature.inputs]
    arrays = [tensors.decode(proto, info.alias) for proto, info in zip(protos, signature.inputs, strict=True)]
    for position, info in enumerate(signature.inputs):
        info.check_type(position, protos[position].dtype)
    return signature, arrays
