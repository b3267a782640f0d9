"""PredictionService, ModelService and grpc.health.v1 on `grpc_front_end`."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    predict_pb2,
)

from serving.engines.embedded_tfserving import large_requests, tensors, unsupported
from serving.engines.embedded_tfserving.grpc_front_end import Call, Method, answering
from serving.engines.embedded_tfserving.manager import Version
from serving.engines.embedded_tfserving.model_information import model_metadata, model_status
from serving.engines.embedded_tfserving.predict import Predictor
from serving.engines.embedded_tfserving.predict_request import arguments
from serving.engines.embedded_tfserving.side_process import SideProcess
from serving.engines.embedded_tfserving.signature import Signature
from serving.engines.embedded_tfserving.status import ServingError, invalid
from serving.wire.grpc_status import Code

PREDICTION_SERVICE = "/tensorflow.serving.PredictionService/"
MODEL_SERVICE = "/tensorflow.serving.ModelService/"
HEALTH_SERVICE = "/grpc.health.v1.Health/"
SERVICES = ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")


class GrpcService:
    """The methods, for the running event loop. `serving` says whether the server takes requests, for health checks."""

    def __init__(self, predictor: Predictor, *, as_content: bool) -> None:
        self.predictor = predictor
        self.process = SideProcess(asyncio.get_running_loop())
        self.manager = predictor.manager
        self.as_content = as_content
        self.serving = True
        self.reloads: set[asyncio.Future[None]] = set()
        self.model_specs: dict[tuple[str, int, str], bytes] = {}

    def methods(self) -> dict[str, Method]:
        """By path."""
        return {
            PREDICTION_SERVICE + "Predict": self.predict,
            PREDICTION_SERVICE + "GetModelMetadata": self.metadata,
            MODEL_SERVICE + "GetModelStatus": self.status,
            MODEL_SERVICE + "HandleReloadConfigRequest": self.reload,
            HEALTH_SERVICE + "Check": self.health,
            **{PREDICTION_SERVICE + name: partial(self.refuse, name) for name in unsupported.GRPC_CALLS},
        }

    def predict(self, message: bytes, call: Call) -> None:
        """PredictionService.Predict."""
        started = time.perf_counter()
        if len(message) > large_requests.PARSED_AT_ONCE:
            self._decode_elsewhere(message, call, started)
            return
        request = _parse(predict_pb2.PredictRequest, message)
        if len(message) > large_requests.VALUES_AT_ONCE and large_requests.takes_long(request):
            self._decode_elsewhere(message, call, started)
        else:
            self._predict(request, None, call, started)

    def _decode_elsewhere(self, message: bytes, call: Call, started: float) -> None:
        def decoded(result: tuple[bytes, large_requests.Inputs] | None, error: ServingError | None) -> None:
            with answering(call):
                if result is None:
                    assert error is not None
                    raise error
                rest, inputs = result
                self._predict(_parse(predict_pb2.PredictRequest, rest), inputs, call, started)

        self.process.submit(large_requests.decode, (message,), decoded)

    def _predict(self, request: Any, decoded: large_requests.Inputs | None, call: Call, started: float) -> None:
        """Predict, and answer; ``decoded``: the inputs, where ``request`` is without them."""
        name = request.model_spec.name

        def answer(message: bytes | None, error: ServingError | None) -> None:
            if message is not None:
                call.reply(message + self._model_spec(version, signature))
            elif error is not None:
                call.fail(error)
            self.predictor.count(name, "Predict", "GRPC", started, error)

        def finish(outputs: list[np.ndarray] | None, error: ServingError | None) -> None:
            if outputs is None:
                answer(None, error)
                return
            chosen = [
                (info.alias, array, info.dtype)
                for position, (info, array) in enumerate(zip(signature.outputs, outputs, strict=True))
                if wanted is None or position in wanted
            ]
            if large_requests.encoding_takes_long(chosen, self.as_content):
                self.process.submit(large_requests.encode, (chosen, self.as_content), answer)
            else:
                answer(large_requests.encode(chosen, self.as_content), None)

        try:
            version = self._find(request)
            assert version.servable is not None
            signature, arrays = arguments(version.servable, request, decoded)
            wanted = signature.filter(request.output_filter) if request.output_filter else None
            self.predictor.run(version, signature, arrays, finish)
        except ServingError as error:
            finish(None, error)

    def _model_spec(self, version: Version, signature: Signature) -> bytes:
        """What was called, as a field of the response."""
        key = (version.model, version.number, signature.name)
        spec = self.model_specs.get(key)
        if spec is None:
            number = tensors.field(2, b"\x08" + tensors.varint(version.number))
            spec = tensors.field(1, version.model.encode()) + number + tensors.field(3, signature.name.encode())
            spec = self.model_specs[key] = tensors.field(2, spec)
        return spec

    def refuse(self, name: str, message: bytes, call: Call) -> None:  # noqa: ARG002 - as the protocol has it
        """A call of PredictionService that is not supported. Its message, which names the model, is not read."""
        error = unsupported.refusal(name)
        call.fail(error)
        self.predictor.count("", name, "GRPC", time.perf_counter(), error)

    def metadata(self, message: bytes, call: Call) -> None:
        """PredictionService.GetModelMetadata."""
        request = _parse(get_model_metadata_pb2.GetModelMetadataRequest, message)
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != "signature_def":
                raise invalid(f"Metadata field {name} is not supported")
        call.reply(model_metadata(self._find(request)).SerializeToString())

    def status(self, message: bytes, call: Call) -> None:
        """ModelService.GetModelStatus."""
        request = _parse(get_model_status_pb2.GetModelStatusRequest, message)
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        number = spec.version.value if spec.HasField("version") else None
        call.reply(model_status(self.manager.status(spec.name, number)).SerializeToString())

    def reload(self, message: bytes, call: Call) -> None:
        """ModelService.HandleReloadConfigRequest: answered when the models that are new are available."""
        request = _parse(model_management_pb2.ReloadConfigRequest, message)
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )

        async def work() -> None:
            try:
                await self.manager.reload(list(request.config.model_config_list.config))
            except ServingError as error:
                call.fail(error)
            else:
                response = model_management_pb2.ReloadConfigResponse()
                response.status.SetInParent()
                call.reply(response.SerializeToString())

        self.reloads.add(task := asyncio.ensure_future(work()))
        task.add_done_callback(self.reloads.discard)

    def health(self, message: bytes, call: Call) -> None:
        """grpc.health.v1.Health.Check (not in the real server)."""
        request = _parse(health_pb2.HealthCheckRequest, message)
        if request.service not in SERVICES:
            raise ServingError(Code.NOT_FOUND, f"unknown service {request.service}")
        state = health_pb2.HealthCheckResponse.SERVING if self.serving else health_pb2.HealthCheckResponse.NOT_SERVING
        call.reply(health_pb2.HealthCheckResponse(status=state).SerializeToString())

    def _find(self, request: Any) -> Version:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        return self.manager.find(
            spec.name,
            spec.version.value if choice == "version" else None,
            spec.version_label if choice == "version_label" else None,
        )


def _parse(kind: type[Message], message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except DecodeError:
        raise ServingError(Code.INTERNAL, "") from None
