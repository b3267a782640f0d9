"""Large JSON, read and written in a `SideProcess`."""

from __future__ import annotations

import numpy as np

from serving.engines.embedded_tfserving import json_tensors
from serving.engines.embedded_tfserving.compression import rest_body
from serving.engines.embedded_tfserving.side_process import Done, SideProcess
from serving.engines.embedded_tfserving.signature import Signature, Signatures, rest_signature
from serving.engines.embedded_tfserving.status import ServingError
from serving.wire.grpc_status import Code

Refusal = tuple[Code, str]


class JsonProcess(SideProcess):
    """Each `done(result, error)` is called on the event loop's thread."""

    def read(self, body: bytes, limit: int | None, signatures: Signatures | ServingError, done: Done) -> None:
        """A predict request to the name of its signature, its arrays, and whether it is in row format.

        `limit`: the body is gzip of at most so many bytes; None: it is not. A `ServingError` for the signatures is
        raised where they would be looked at.
        """
        known = (signatures.code, signatures.message) if isinstance(signatures, ServingError) else dict(signatures)
        self.submit(_read, (body, limit, known), done)

    def write(self, signature: Signature, outputs: list[np.ndarray], row_format: bool, done: Done) -> None:
        """A predict answer's JSON."""
        self.submit(json_tensors.write, (signature, outputs, row_format), done)


def _read(
    body: bytes, limit: int | None, signatures: dict[str, Signature] | Refusal
) -> tuple[str, list[np.ndarray], bool]:
    def find(name: str) -> Signature:
        if isinstance(signatures, tuple):
            raise ServingError(*signatures)
        return rest_signature(signatures, name)

    signature, arrays, row_format = json_tensors.read(body if limit is None else rest_body(body, limit), find)
    return signature.name, arrays, row_format
