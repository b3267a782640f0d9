"""TensorFlow Serving's REST API (https://www.tensorflow.org/tfx/serving/api_rest) and the metrics page."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from serving.engines.embedded_tfserving import json_tensors, unsupported
from serving.engines.embedded_tfserving.flags import Flags
from serving.engines.embedded_tfserving.manager import Version
from serving.engines.embedded_tfserving.metrics import Metrics
from serving.engines.embedded_tfserving.model_information import model_metadata, model_status
from serving.engines.embedded_tfserving.predict import Predictor
from serving.engines.embedded_tfserving.rest_front_end import Answer, Request, Response
from serving.engines.embedded_tfserving.servable import Signature
from serving.engines.embedded_tfserving.status import HTTP_STATUS, ServingError, invalid

NAMED = r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
PREDICT = re.compile(NAMED + ":predict", re.IGNORECASE)
UNSUPPORTED = re.compile(NAMED + ":(?P<method>(?-i:classify|regress))", re.IGNORECASE)
STATUS = re.compile(NAMED + "(?P<metadata>/metadata)?", re.IGNORECASE)
ANYTHING = re.compile(r"/v1/.*", re.IGNORECASE)

# What libevent answers for a path that nobody registered.
NOT_FOUND_PAGE = b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
CORS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "POST, GET"),
    ("Access-Control-Allow-Headers", "Content-Type"),
)


class RestApi:
    """Routes and answers requests."""

    def __init__(self, predictor: Predictor, metrics: Metrics, metrics_path: str | None, flags: Flags) -> None:
        self.predictor = predictor
        self.manager = predictor.manager
        self.metrics = metrics
        self.metrics_path = metrics_path
        self.cors = CORS if flags.rest_api_enable_cors_support else ()

    def handle(self, request: Request, answer: Answer) -> None:
        """Answer one request, now or later."""
        if self.cors:
            inner = answer

            def answer(response: Response) -> None:
                response.headers += self.cors
                inner(response)

        if request.path == self.metrics_path and request.method == "GET":
            answer(Response(200, self.metrics.page(), "text/plain"))
        elif not ANYTHING.fullmatch(request.path):
            answer(Response(404, NOT_FOUND_PAGE, "text/html", close=True))
        elif request.method == "OPTIONS":
            status = 200 if "origin" in request.headers else 400
            answer(Response(status, content_type="text/html; charset=ISO-8859-1"))
        else:
            self._route(request, answer)

    def _route(self, request: Request, answer: Answer) -> None:
        predict = PREDICT.fullmatch(request.path) if request.method == "POST" else None
        other = UNSUPPORTED.fullmatch(request.path) if request.method == "POST" and not predict else None
        named = STATUS.fullmatch(request.path) if request.method == "GET" else None
        match = predict or other or named
        if match and match["version"] and (len(match["version"]) > 19 or int(match["version"]) >= 2**63):
            answer(Response(400))
        elif predict:
            self._predict(request, predict, answer)
        elif other:
            self._refuse(request, other, answer)
        elif named:
            self._describe(request, named, answer)
        elif request.method == "GET" and request.path.lower() == "/v1/models":
            answer(_refusal(invalid("Missing model name in request.")))
        else:
            answer(_refusal(invalid(f"Malformed request: {request.method} {request.path}")))

    def _find(self, match: re.Match[str]) -> Version:
        number = match["version"]
        return self.manager.find(match["model"], int(number) if number else None, match["label"])

    def _predict(self, request: Request, match: re.Match[str], answer: Answer) -> None:
        model = match["model"]
        row_format = True
        version: Version
        signature: Signature

        def find(name: str) -> Signature:
            nonlocal version
            version = self._find(match)
            assert version.servable is not None
            found = version.servable.signature(name)
            if found is None:
                raise invalid(f'Serving signature name: "{name or "serving_default"}" not found in signature def')
            return found

        def finish(outputs: list[np.ndarray] | None, error: ServingError | None) -> None:
            if outputs is not None:
                try:
                    body = json_tensors.write(signature, outputs, row_format)
                except ServingError as refused:
                    error = refused
                else:
                    answer(Response(200, body))
            if error is not None:
                answer(_refusal(error))
            self.predictor.count(model, "predict", "REST", request.started, error)

        try:
            signature, arrays, row_format = json_tensors.read(request.body, find)
            for position, (info, array) in enumerate(zip(signature.inputs, arrays, strict=True)):
                info.check(position, array, info.dtype)
            self.predictor.run(version, signature, arrays, finish)
        except ServingError as error:
            finish(None, error)

    def _refuse(self, request: Request, match: re.Match[str], answer: Answer) -> None:
        """A call of inference that is not supported."""
        error = unsupported.refusal(match["method"])
        answer(_refusal(error))
        self.predictor.count(match["model"], match["method"], "REST", request.started, error)

    def _describe(self, request: Request, match: re.Match[str], answer: Answer) -> None:
        """Status or metadata of a model."""
        failed: ServingError | None = None
        try:
            if match["metadata"]:
                answer(Response(200, _metadata_json(self._find(match))))
            else:
                number = int(match["version"]) if match["version"] else None
                versions = self.manager.status(match["model"], number)
                answer(Response(200, _indented(_as_dict(model_status(versions))) + b"\n"))
        except ServingError as error:
            failed = error
            answer(_refusal(error))
        self.predictor.count(match["model"], "", "REST", request.started, failed)


def _refusal(error: ServingError) -> Response:
    text = json.dumps(error.message, ensure_ascii=False)
    body = f'{{\n    "error": {text}\n}}'.encode("utf-8", "replace")
    return Response(HTTP_STATUS[error.code], body)


def _as_dict(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _indented(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def _metadata_json(version: Version) -> bytes:
    response = model_metadata(version)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    spec = {"name": version.model, "version": str(version.number), "signature_name": ""}
    return _indented({"model_spec": spec, "metadata": {"signature_def": _as_dict(signatures)}}) + b"\n"
