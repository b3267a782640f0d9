"""TensorFlow Serving's REST API (https://www.tensorflow.org/tfx/serving/api_rest) and the metrics page."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from serving.engines.embedded_tfserving import unsupported
from serving.engines.embedded_tfserving.flags import Flags
from serving.engines.embedded_tfserving.json_process import JsonProcess
from serving.engines.embedded_tfserving.manager import Version
from serving.engines.embedded_tfserving.metrics import Metrics
from serving.engines.embedded_tfserving.model_information import model_metadata, model_status
from serving.engines.embedded_tfserving.predict import Predictor
from serving.engines.embedded_tfserving.rest_front_end import Answer, Request, Response, error_page, refusal
from serving.engines.embedded_tfserving.rest_predict import Named, RestPredict
from serving.engines.embedded_tfserving.status import ServingError, invalid

# Of a path, only the verb and `metadata` are taken in lower case alone.
NAMED = r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
INFERENCE = re.compile(NAMED + ":(?P<verb>(?-i:predict|classify|regress))", re.IGNORECASE)
DESCRIPTION = re.compile(NAMED + "(?P<metadata>/metadata)?", re.IGNORECASE)
ANYTHING = re.compile(r"/v1/.*", re.IGNORECASE)

CORS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "POST, GET"),
    ("Access-Control-Allow-Headers", "Content-Type"),
)


class RestApi:
    """Routes and answers requests."""

    def __init__(
        self, predictor: Predictor, metrics: Metrics, metrics_path: str | None, flags: Flags, process: JsonProcess
    ) -> None:
        self.predictor = predictor
        self.manager = predictor.manager
        self.predict = RestPredict(predictor, process)
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

        if self.metrics_path and request.path.startswith(self.metrics_path):
            self._page(request.path, answer)
        elif not ANYTHING.fullmatch(request.path):
            answer(error_page(404))
        elif request.method == "OPTIONS":
            status = 200 if "origin" in request.headers else 400
            answer(Response(status, content_type="text/html; charset=ISO-8859-1"))
        else:
            self._route(request, answer)

    def _page(self, path: str, answer: Answer) -> None:
        """The metrics, whatever the method."""
        if path == self.metrics_path:
            answer(Response(200, self.metrics.page(), "text/plain"))
        elif path.startswith((f"{self.metrics_path}?", f"{self.metrics_path}#")):
            text = f"Unexpected path: {path}. Should be {self.metrics_path}"
            answer(Response(400, text.encode(), "text/plain"))
        else:
            answer(error_page(404))

    def _route(self, request: Request, answer: Answer) -> None:
        path = request.path
        inference = INFERENCE.fullmatch(path) if request.method == "POST" else None
        match = inference or (DESCRIPTION.fullmatch(path) if request.method == "GET" else None)
        if match is None and request.method == "GET" and path.lower() == "/v1/models":
            answer(refusal(invalid("Missing model name in request.")))
        elif match is None:
            answer(refusal(invalid(f"Malformed request: {request.method} {path}")))
        elif match["version"] and (len(match["version"]) > 19 or int(match["version"]) >= 2**63):
            answer(Response(400))
        elif inference is None:
            self._describe(request, _named(match), match["metadata"] == "/metadata", answer)
        elif inference["verb"] == "predict":
            self.predict.start(request, _named(match), answer)
        else:
            self._refuse(request, _named(match), inference["verb"], answer)

    def _refuse(self, request: Request, named: Named, verb: str, answer: Answer) -> None:
        """A call of inference that is not supported."""
        error = unsupported.refusal(verb)
        answer(refusal(error))
        self.predictor.count(named.model, verb, "REST", request.started, error)

    def _describe(self, request: Request, named: Named, metadata: bool, answer: Answer) -> None:
        """Status or metadata of a model."""
        failed: ServingError | None = None
        try:
            if metadata:
                answer(Response(200, _metadata_json(self.manager.find(*named))))
            else:
                versions = self.manager.status(named.model, named.version)
                answer(Response(200, _indented(_as_dict(model_status(versions))) + b"\n"))
        except ServingError as error:
            failed = error
            answer(refusal(error))
        self.predictor.count(named.model, "", "REST", request.started, failed)


def _named(match: re.Match[str]) -> Named:
    """What a path names; model and label may be percent-encoded, nothing else."""
    version, label = match["version"], match["label"]
    return Named(_decoded(match["model"]), int(version) if version else None, _decoded(label) if label else label)


def _decoded(text: str) -> str:
    return unquote(text) if "%" in text else text


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
