"""REST's predict: its JSON to arrays, the prediction, and the answer's JSON.

Short JSON is read and written on the event loop, which is the shortest way; what may take longer than about 10 ms goes
to a process of its own.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from serving.engines.embedded_tfserving import json_document, json_tensors
from serving.engines.embedded_tfserving.compression import inflated_size, rest_body
from serving.engines.embedded_tfserving.json_images import images
from serving.engines.embedded_tfserving.json_process import JsonProcess
from serving.engines.embedded_tfserving.manager import Version
from serving.engines.embedded_tfserving.predict import Predictor
from serving.engines.embedded_tfserving.rest_front_end import MAX_BODY, Answer, Request, Response, refusal
from serving.engines.embedded_tfserving.side_process import Done
from serving.engines.embedded_tfserving.signature import Signature, rest_signature
from serving.engines.embedded_tfserving.status import ServingError

# What is handled on the event loop at most: bytes of plain rows of images; bytes and values (commas) of any other JSON;
# values of an answer; bytes of a body that is no JSON, to find what is wrong.
IMAGES_AT_ONCE = 2**20
JSON_AT_ONCE = 2**18
VALUES_AT_ONCE = 2**14
FAULT_AT_ONCE = 2**14

Read = tuple[Version, Signature, list[np.ndarray], bool]


class Named(NamedTuple):
    """What a path names."""

    model: str
    version: int | None
    label: str | None


class RestPredict:
    """Answers predict requests."""

    def __init__(self, predictor: Predictor, process: JsonProcess) -> None:
        self.predictor = predictor
        self.process = process

    def start(self, request: Request, named: Named, answer: Answer) -> None:
        """Answer one request, now or later."""
        body, packed = request.body, "gzip" in request.headers.get("content-encoding", "")
        if packed and inflated_size(body, MAX_BODY) <= JSON_AT_ONCE:
            body, packed = rest_body(body, MAX_BODY), False
        done = partial(self._done, request, named, answer)
        try:
            read = None if packed else self._read_at_once(body, named)
            if read is None:
                self._read_elsewhere(body, MAX_BODY if packed else None, named, done)
            else:
                self._run(*read, done)
        except ServingError as error:
            done(None, error)

    def _find(self, named: Named) -> Version:
        return self.predictor.manager.find(named.model, named.version, named.label)

    def _read_at_once(self, body: bytes, named: Named) -> Read | None:
        """The version and what it is asked; None where to read that may take long. Raises `ServingError`."""
        version: Version

        def find(name: str) -> Signature:
            nonlocal version
            version = self._find(named)
            assert version.servable is not None
            return rest_signature(version.servable.signatures, name)

        fast = images(body, find) if len(body) <= IMAGES_AT_ONCE else None
        if fast is not None:
            return version, fast[0], [fast[1]], True
        if len(body) > JSON_AT_ONCE or body.count(b",") > VALUES_AT_ONCE:
            return None
        parse = json_document.parse if len(body) <= FAULT_AT_ONCE else json_document.read
        try:
            signature, arrays, row_format = json_tensors.read_any(body, find, parse)
        except json_document.NotJson:
            return None
        return version, signature, arrays, row_format

    def _read_elsewhere(self, body: bytes, limit: int | None, named: Named, done: Done) -> None:
        try:
            version = self._find(named)
        except ServingError as error:  # is said only where the body is good
            self.process.read(body, limit, error, done)
            return
        assert version.servable is not None
        signatures = version.servable.signatures

        def read(found: tuple[str, list[np.ndarray], bool] | None, error: ServingError | None) -> None:
            try:
                if found is None:
                    done(None, error)
                else:
                    name, arrays, row_format = found
                    self._run(version, signatures[name], arrays, row_format, done)
            except ServingError as refused:
                done(None, refused)
            finally:
                version.end()

        version.begin()  # it stays until it has been asked
        self.process.read(body, limit, signatures, read)

    def _run(
        self, version: Version, signature: Signature, arrays: list[np.ndarray], row_format: bool, done: Done
    ) -> None:
        """Predict, and write the answer; raises `ServingError` for what is refused at once."""

        def predicted(outputs: list[np.ndarray] | None, error: ServingError | None) -> None:
            if outputs is None:
                done(None, error)
            elif sum([array.size for array in outputs]) > VALUES_AT_ONCE:
                self.process.write(signature, outputs, row_format, done)
            else:
                try:
                    written = json_tensors.write(signature, outputs, row_format)
                except ServingError as refused:
                    done(None, refused)
                else:
                    done(written, None)

        self.predictor.run(version, signature, arrays, predicted)

    def _done(
        self, request: Request, named: Named, answer: Answer, written: bytes | None, error: ServingError | None
    ) -> None:
        if error is None:
            assert written is not None
            answer(Response(200, written))
        else:
            answer(refusal(error))
        self.predictor.count(named.model, "predict", "REST", request.started, error)
