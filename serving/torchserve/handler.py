"""TorchServe handler of an exported image classifier.

This file goes into the model archive and runs inside TorchServe's worker, so it imports nothing of Tandem.

Requests  one to many uint8 images [N, H, W, C]: raw bytes (gRPC input ``data``, or a REST body of any other type), or a
          REST body of type application/json: ``{"instances": [...]}``.
Answers   float32 little-endian bytes [N, classes] for raw bytes; ``{"predictions": [...]}`` for JSON.
Errors    a bad request gets its own 400 and a JSON ``{"code", "type", "message"}``; the others of its batch are
          answered. TorchServe sends a handler's status on REST only: over gRPC the call succeeds and this JSON is the
          prediction, so the JSON is padded to a length that no float32 array has.
Metrics   ``tandem_batch_latency_seconds`` (one handler call), ``tandem_batch_images`` (images in it): see `Histogram`.
Settings  ``handler.input_shape`` ([H, W, C]) in the archive's model-config.yaml; environment variable
          ``TANDEM_TORCH_THREADS`` (threads of one computation), else ``handler.threads``, else 1.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import torch
from ts.metrics.metric_cache_errors import MetricsCacheKeyError
from ts.metrics.metric_type_enum import MetricTypes

try:
    import orjson
except ImportError:  # an image without orjson still serves, slower
    orjson = None  # type: ignore[assignment]

JSON_TYPE = "application/json"
BINARY_TYPE = "application/octet-stream"
DEFAULT_SHAPE = (32, 32, 3)
WARM_UP_BATCHES = (1, 2, 8, 32)
LATENCY_BUCKETS = (
    *(0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
FLUSH_SECONDS = 0.25


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[bytes] | None:
    """TorchServe's entry point: called once without data when the worker starts, then once a batch."""
    global _classifier  # noqa: PLW0603  TorchServe's function entry point has no other place for state
    if data is None:
        _classifier = ImageClassifier(context)
        return None
    assert _classifier is not None
    return _classifier.handle(data, context)


class Histogram:
    """A Prometheus histogram ``<name>_bucket{le}``, ``_sum``, ``_count`` with buckets of our own.

    TorchServe's histograms have fixed buckets (0.005 to 10) and cost a log line for every value, written and parsed on
    the way of the answer. So this one is made of TorchServe counters and sends sums, some times a second and off that
    way.
    """

    def __init__(self, metrics: Any, name: str, unit: str, model: str, bounds: Sequence[float]) -> None:
        def counter(suffix: str, *labels: str) -> Any:
            try:  # declared in the server's metrics file
                return metrics.get_metric(name + suffix, MetricTypes.COUNTER)
            except MetricsCacheKeyError:
                return metrics.add_metric_to_cache(name + suffix, unit, ["ModelName", *labels], MetricTypes.COUNTER)

        self.bucket, self.sum, self.count = counter("_bucket", "le"), counter("_sum"), counter("_count")
        self.model = model
        self.bounds = list(bounds)
        self.labels = [f"{bound:g}" for bound in bounds] + ["+Inf"]
        self.lock = threading.Lock()
        self.counts = [0] * len(self.labels)
        self.total = 0.0
        self._send([0] * len(self.labels), 0.0)  # the series exist before the first value, so that rates miss none

    def observe(self, value: float) -> None:
        """Count ``value``."""
        with self.lock:
            self.counts[bisect_left(self.bounds, value)] += 1
            self.total += value

    def flush(self) -> None:
        """Send what was observed since the last flush."""
        with self.lock:
            counts, total = self.counts, self.total
            self.counts, self.total = [0] * len(counts), 0.0
        if any(counts):
            self._send(counts, total)

    def _send(self, counts: list[int], total: float) -> None:
        for label, upto in zip(self.labels, accumulate(counts), strict=True):
            if upto or not any(counts):
                self.bucket.add_or_update(upto, [self.model, label])
        self.sum.add_or_update(round(total, 6), [self.model])
        self.count.add_or_update(sum(counts), [self.model])


class ImageClassifier:
    """Answers a whole batch of requests, of any number of images each, with one forward pass."""

    def __init__(self, context: Any) -> None:
        """Load the frozen TorchScript model that the archive names, and run it a few times."""
        settings = (context.model_yaml_config or {}).get("handler") or {}
        self.shape: tuple[int, ...] = tuple(settings.get("input_shape", DEFAULT_SHAPE))
        self.image_bytes = math.prod(self.shape)
        torch.set_num_threads(int(os.environ.get("TANDEM_TORCH_THREADS") or settings.get("threads", 1)))

        properties = context.system_properties
        gpu = properties.get("gpu_id")
        self.device = torch.device(f"cuda:{gpu}" if gpu is not None and torch.cuda.is_available() else "cpu")
        path = os.path.join(properties["model_dir"], context.manifest["model"]["serializedFile"])
        self.model = torch.jit.load(path, map_location=self.device).eval()
        for images in WARM_UP_BATCHES * 2:  # TorchScript specialises itself in the first runs
            self._predict(bytearray(images * self.image_bytes))

        def histogram(name: str, unit: str, bounds: Sequence[float]) -> Histogram:
            return Histogram(context.metrics, name, unit, context.model_name, bounds)

        self.latency = histogram("tandem_batch_latency_seconds", "seconds", LATENCY_BUCKETS)
        self.size = histogram("tandem_batch_images", "count", SIZE_BUCKETS)
        threading.Thread(target=self._flush, name="tandem-metrics", daemon=True).start()
        _quiet_worker()

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer the batch ``data``, one element per request, in the same order."""
        start = time.perf_counter()
        payloads: list[bytes | bytearray] = []
        spans: list[tuple[int, int, bool] | str] = []  # first image, end, whether JSON; or what is wrong
        images = 0
        for index, request in enumerate(data):
            try:
                payload, is_json = self._payload(request, context, index)
            except ValueError as error:
                spans.append(str(error))
                continue
            count = len(payload) // self.image_bytes
            payloads.append(payload)
            spans.append((images, images + count, is_json))
            images += count

        probabilities = self._predict(bytearray().join(payloads)) if images else np.empty((0, 0), np.float32)
        answers = []
        for index, span in enumerate(spans):
            if isinstance(span, str):
                context.set_response_status(code=400, phrase="Bad Request", idx=index)
                context.set_response_content_type(index, JSON_TYPE)
                answers.append(_error(span))
            else:
                first, end, is_json = span
                rows = probabilities[first:end]
                context.set_response_status(code=200, phrase="OK", idx=index)
                context.set_response_content_type(index, JSON_TYPE if is_json else BINARY_TYPE)
                answers.append(_json_answer(rows) if is_json else rows.tobytes())
        if images:
            self.latency.observe(time.perf_counter() - start)
            self.size.observe(images)
        return answers

    def _payload(self, request: dict[str, Any], context: Any, index: int) -> tuple[bytes | bytearray, bool]:
        """The raw bytes of a request's images, and whether they came as JSON. ValueError says what is wrong."""
        name = "body" if "body" in request else "data"
        payload = request.get(name)
        if payload is None:
            raise ValueError('no input: send a body (REST) or the input "data" (gRPC)')
        headers = context.get_request_header(index, name) or {}
        if str(headers.get("content-type", "")).lower().startswith(JSON_TYPE):
            return _images_of_json(payload, self.shape), True
        if isinstance(payload, str):
            raise ValueError("text body: send application/octet-stream or application/json")
        if not payload or len(payload) % self.image_bytes:
            shape = "x".join(map(str, self.shape))
            raise ValueError(
                f"{len(payload)} bytes are no uint8 images: send a multiple of {self.image_bytes} ({shape})"
            )
        return payload, False

    def _flush(self) -> None:
        while True:
            time.sleep(FLUSH_SECONDS)
            self.latency.flush()
            self.size.flush()

    @torch.inference_mode()
    def _predict(self, pixels: bytearray) -> np.ndarray:
        """Class probabilities, float32 [N, classes], of N images laid one after the other."""
        images = torch.frombuffer(pixels, dtype=torch.uint8).view(-1, *self.shape).to(self.device)
        return self.model(images).to("cpu", torch.float32).contiguous().numpy()


def _quiet_worker() -> None:
    """Stop two log lines that TorchServe's worker writes for every batch and its frontend reads: that a request came,
    and PredictionTime, a gauge of the last batch only."""
    logging.getLogger().setLevel(logging.WARNING)
    metrics = logging.getLogger("ts.metrics.caching_metric")
    metrics.setLevel(logging.INFO)
    metrics.addFilter(lambda record: "PredictionTime" not in str(record.msg))


_classifier: ImageClassifier | None = None


def _images_of_json(payload: Any, shape: tuple[int, ...]) -> bytes:
    """The pixels of ``{"instances": [...]}``, checked for shape and range. ValueError says what is wrong."""
    try:
        if isinstance(payload, (bytes, bytearray)):
            payload = orjson.loads(payload) if orjson else json.loads(payload)
        level = payload["instances"]
        if not level:
            raise ValueError("instances is empty")
        for size in shape:
            level = list(chain.from_iterable(level)) if _sizes(level) == {size} else None
        return bytes(level)
    except (KeyError, TypeError, ValueError) as error:
        wanted = "x".join(map(str, shape))
        raise ValueError(f'bad JSON: send {{"instances": [...]}} with {wanted} integers 0-255 each ({error})') from None


def _sizes(lists: Any) -> set[int]:
    return set(map(len, lists))


def _json_answer(rows: np.ndarray) -> bytes:
    if orjson:
        return orjson.dumps({"predictions": rows}, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps({"predictions": rows.tolist()}).encode()


def _error(message: str) -> bytes:
    answer = json.dumps({"code": 400, "type": "BadRequest", "message": message}).encode()
    return answer if len(answer) % 4 else answer + b"\n"
