"""What is said of a model, its versions' states and its signatures: the same messages for both front ends."""

from __future__ import annotations

from typing import Any

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from serving.engines.embedded_tfserving.manager import Version


def model_metadata(version: Version) -> Any:
    """A GetModelMetadataResponse with the version's signatures."""
    assert version.servable is not None
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = version.model
    response.model_spec.version.value = version.number
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for key, definition in version.servable.signature_defs.items():
        signatures.signature_def[key].CopyFrom(definition)
    response.metadata["signature_def"].Pack(signatures)
    return response


def model_status(versions: list[Version]) -> Any:
    """A GetModelStatusResponse."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in versions:
        entry = response.model_version_status.add(version=version.number, state=int(version.state))
        entry.status.SetInParent()
        if version.error:
            entry.status.error_code = int(version.error.code)
            entry.status.error_message = version.error.message
    return response
