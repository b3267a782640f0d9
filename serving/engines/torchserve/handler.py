"""TorchServe handler of an exported image classifier.

This file goes into the model archive and runs inside TorchServe's worker, so it imports nothing of Tandem.

Requests  one to many uint8 images [N, H, W, C]: raw bytes (gRPC input ``data``, or a REST body of any other type), or a
          REST body of type application/json: ``{"instances": [...]}``.
          Where the archive decodes them (``handler.encoded``) also one JPEG or PNG file: gRPC input ``image``, or a
          REST body of a type image/*.
Answers   float32 little-endian bytes [N, classes] for raw bytes, and over gRPC; ``{"predictions": [...]}`` for JSON,
          and for a file over REST.
Errors    a bad request gets its own 400 and a JSON ``{"code", "type", "message"}``; the others of its batch are
          answered. TorchServe sends a handler's status on REST only: over gRPC the call succeeds and this JSON is the
          prediction, so the JSON is padded to a length that no float32 array has.
Metrics   One observation a request: ``tandem_handler_seconds{protocol}`` (the handler's call that answered it) and
          ``tandem_compute_seconds`` (the model in that call); a batch: ``tandem_batch_images``; counters:
          ``tandem_bad_requests_total{protocol}``, ``tandem_busy_seconds_total`` and, by worker,
          ``tandem_worker_starts_total`` and ``tandem_worker_heartbeats_total`` (one a second).
Settings  ``handler.input_shape`` ([H, W, C]) in the archive's model-config.yaml; environment variable
          ``TANDEM_TORCH_THREADS`` (threads of one computation), else ``handler.threads``, else 1; ``0`` or ``1`` in
          ``TANDEM_TORCH_ONEDNN``: without oneDNN or with it, else as PyTorch decides; ``0`` or ``1`` in
          ``TANDEM_TORCH_TF32``: a GPU multiplies float32 as such, or in TF32, else as PyTorch decides;
          ``TANDEM_TORCH_GPU_MEMORY``: the share of the GPU's memory that this worker may take, beside its context, and
          ``TANDEM_TORCH_WARM_UP``: batches of every size up to this one are run when it loads. While the
          file that ``TANDEM_REFUSING`` names is there, REST requests get a 503: TorchServe closes their connections
          when it stops, answered or not, whereas it waits for gRPC's.
Output    One line when the model is loaded: ``tandem switches`` and, as JSON, those of PyTorch that are in force.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import math
import os
import re
import sys
import threading
import time
import warnings
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np
import torch
from ts.metrics.metric_cache_errors import MetricsCacheKeyError
from ts.metrics.metric_type_enum import MetricTypes

try:
    import orjson
except ImportError:  # an image without orjson still serves, slower
    orjson = None  # type: ignore[assignment]

Request = dict[str, Any]  # one of a batch, as TorchServe gives it: names of inputs and headers to what came

JSON_TYPE, IMAGE_TYPE = "application/json", "image/"
BINARY_TYPE = "application/octet-stream"
ENCODED_INPUT = "image"  # of gRPC
DEFAULT_SHAPE = (32, 32, 3)
WARM_UP_BATCHES = (1, 2, 8, 32)
# TensorFlow Serving's own latency buckets, 10 µs x 1.8^n, so that both servers' quantiles are equally coarse.
LATENCY_BUCKETS = tuple(float(f"{10e-6 * 1.8**n:g}") for n in range(5, 22))
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
FLUSH_SECONDS = 0.25
HEARTBEAT_SECONDS = 1.0
# How a request came in: TorchServe calls a REST request's only input "body".
STOPPING = "this server is stopping: send the request to another"
GRPC, REST = PROTOCOLS = ("grpc", "rest")


def handle(data: list[Request] | None, context: Any) -> list[bytes] | None:
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
    way. It is not locked: `Metrics` does that.
    """

    def __init__(self, metrics: Any, name: str, unit: str, labels: dict[str, str], bounds: Sequence[float]) -> None:
        self.bucket = _counter(metrics, name + "_bucket", unit, [*labels, "le"])
        self.sum = _counter(metrics, name + "_sum", unit, list(labels))
        self.count = _counter(metrics, name + "_count", unit, list(labels))
        self.values = list(labels.values())
        self.bounds = list(bounds)
        self.labels = [f"{bound:g}" for bound in bounds] + ["+Inf"]
        self.counts = [0] * len(self.labels)
        self.total = 0.0
        self.send((self.counts, 0.0))  # the series exist before the first value, so that rates miss none

    def observe(self, value: float, times: int = 1) -> None:
        """Count ``value`` so many times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def take(self) -> tuple[list[int], float]:
        """What was observed since the last call, for `send`."""
        taken = self.counts, self.total
        self.counts, self.total = [0] * len(self.counts), 0.0
        return taken

    def send(self, taken: tuple[list[int], float]) -> None:
        """Add what was taken to TorchServe's counters."""
        counts, total = taken
        for label, upto in zip(self.labels, accumulate(counts), strict=True):
            if upto or not any(counts):
                self.bucket.add_or_update(upto, [*self.values, label])
        self.sum.add_or_update(round(total, 6), self.values)
        self.count.add_or_update(sum(counts), self.values)


class Metrics:
    """What this worker tells of itself: recorded in microseconds after each batch, sent by a thread of its own."""

    def __init__(self, metrics: Any, model: str, version: str, worker: str) -> None:
        labels = {"model": model, "version": version}
        self.lock = threading.Lock()
        self.handler = {
            protocol: Histogram(
                metrics, "tandem_handler_seconds", "seconds", {**labels, "protocol": protocol}, LATENCY_BUCKETS
            )
            for protocol in PROTOCOLS
        }
        self.compute = Histogram(metrics, "tandem_compute_seconds", "seconds", labels, LATENCY_BUCKETS)
        self.images = Histogram(metrics, "tandem_batch_images", "count", labels, SIZE_BUCKETS)
        self.histograms = [*self.handler.values(), self.compute, self.images]
        self.busy = _counter(metrics, "tandem_busy_seconds_total", "seconds", list(labels))
        self.bad = _counter(metrics, "tandem_bad_requests_total", "count", [*labels, "protocol"])
        self.heartbeats = _counter(metrics, "tandem_worker_heartbeats_total", "count", [*labels, "worker"])
        self.labels, self.worker = list(labels.values()), worker
        self.busy_s = 0.0
        self.bad_requests = dict.fromkeys(PROTOCOLS, 0)
        self.next_beat = 0.0
        self.busy.add_or_update(0, self.labels)
        for protocol in PROTOCOLS:
            self.bad.add_or_update(0, [*self.labels, protocol])
        starts = _counter(metrics, "tandem_worker_starts_total", "count", [*labels, "worker"])
        starts.add_or_update(1, [*self.labels, worker])

    def batch(self, took: float, computed: float, images: int, good: dict[str, int], bad: dict[str, int]) -> None:
        """Record a batch: seconds in the handler and in the model, images, and requests by protocol."""
        with self.lock:
            self.busy_s += took
            for protocol in PROTOCOLS:
                if good[protocol]:
                    self.handler[protocol].observe(took, good[protocol])
                self.bad_requests[protocol] += bad[protocol]
            if images:
                self.compute.observe(computed, sum(good.values()))
                self.images.observe(images)

    def flush(self) -> None:
        """Send what was recorded since the last flush, and once a second that this worker is alive."""
        now = time.monotonic()
        if now >= self.next_beat:
            self.next_beat = now + HEARTBEAT_SECONDS
            self.heartbeats.add_or_update(1, [*self.labels, self.worker])
        with self.lock:
            taken = [histogram.take() for histogram in self.histograms]
            busy, self.busy_s = self.busy_s, 0.0
            bad, self.bad_requests = self.bad_requests, dict.fromkeys(PROTOCOLS, 0)
        for histogram, one in zip(self.histograms, taken, strict=True):
            if any(one[0]):
                histogram.send(one)
        if busy:
            self.busy.add_or_update(round(busy, 6), self.labels)
        for protocol, count in bad.items():
            if count:
                self.bad.add_or_update(count, [*self.labels, protocol])


def _counter(metrics: Any, name: str, unit: str, labels: list[str]) -> Any:
    try:  # declared in the server's metrics file
        return metrics.get_metric(name, MetricTypes.COUNTER)
    except MetricsCacheKeyError:
        return metrics.add_metric_to_cache(name, unit, labels, MetricTypes.COUNTER)


class ImageClassifier:
    """Answers a whole batch of requests, of any number of images each, with one forward pass."""

    def __init__(self, context: Any) -> None:
        """Load the frozen TorchScript model that the archive names, and run it a few times."""
        settings = (context.model_yaml_config or {}).get("handler") or {}
        self.shape: tuple[int, ...] = tuple(settings.get("input_shape", DEFAULT_SHAPE))
        self.image_bytes = math.prod(self.shape)
        self.decode = _decoder() if settings.get("encoded") else None
        torch.set_num_threads(int(os.environ.get("TANDEM_TORCH_THREADS") or settings.get("threads", 1)))
        if onednn := os.environ.get("TANDEM_TORCH_ONEDNN"):
            torch.backends.mkldnn.enabled = onednn == "1"
        if tf32 := os.environ.get("TANDEM_TORCH_TF32"):
            _allow_tf32(tf32 == "1")

        properties = context.system_properties
        self.device = _device(properties.get("gpu_id"), os.environ.get("TANDEM_TORCH_GPU_MEMORY"))
        path = os.path.join(properties["model_dir"], context.manifest["model"]["serializedFile"])
        self.model = torch.jit.load(path, map_location=self.device).eval()
        # TorchScript specialises itself in the first runs, and a GPU's memory and kernels come with each batch size.
        every = range(1, int(os.environ.get("TANDEM_TORCH_WARM_UP") or 0) + 1)
        for images in (*every, *WARM_UP_BATCHES * 2):
            self._predict(bytearray(images * self.image_bytes))

        version = str(context.manifest["model"].get("modelVersion", "unknown"))
        self.metrics = Metrics(context.metrics, context.model_name, version, _worker(sys.argv))
        self.refusing = os.environ.get("TANDEM_REFUSING")
        threading.Thread(target=self._flush, name="tandem-metrics", daemon=True).start()
        _quiet_worker()
        print("tandem switches", json.dumps(_switches(self.device)), flush=True)
        # What is loaded stays: a collection that looks at all of torch stops every request for 50 ms and more.
        gc.collect()
        gc.freeze()

    def handle(self, data: list[Request], context: Any) -> list[bytes]:
        """Answer the batch ``data``, one element per request, in the same order."""
        start = time.perf_counter()
        payloads: list[bytes | bytearray] = []
        spans: list[tuple[int, int, bool] | str] = []  # first image, end, whether JSON; or what is wrong
        images = 0
        good, bad = dict.fromkeys(PROTOCOLS, 0), dict.fromkeys(PROTOCOLS, 0)
        stopping = self.refusing is not None and os.path.exists(self.refusing)
        for index, request in enumerate(data):
            protocol = REST if "body" in request else GRPC
            if stopping and protocol == REST:
                spans.append(STOPPING)
                continue
            try:
                payload, is_json = self._payload(request, context, index)
            except ValueError as error:
                spans.append(str(error))
                bad[protocol] += 1
                continue
            good[protocol] += 1
            count = len(payload) // self.image_bytes
            payloads.append(payload)
            spans.append((images, images + count, is_json))
            images += count

        pixels = bytearray().join(payloads)
        began = time.perf_counter()
        probabilities = self._predict(pixels) if images else np.empty((0, 0), np.float32)
        computed = time.perf_counter() - began
        answers = []
        for index, span in enumerate(spans):
            if isinstance(span, str):
                code, phrase = (503, "Service Unavailable") if span is STOPPING else (400, "Bad Request")
                context.set_response_status(code=code, phrase=phrase, idx=index)
                context.set_response_content_type(index, JSON_TYPE)
                answers.append(_error(span, code, phrase))
            else:
                first, end, is_json = span
                rows = probabilities[first:end]
                context.set_response_status(code=200, phrase="OK", idx=index)
                context.set_response_content_type(index, JSON_TYPE if is_json else BINARY_TYPE)
                answers.append(_json_answer(rows) if is_json else rows.tobytes())
        self.metrics.batch(time.perf_counter() - start, computed, images, good, bad)
        return answers

    def _payload(self, request: Request, context: Any, index: int) -> tuple[bytes | bytearray, bool]:
        """The raw bytes of a request's images, and whether they came as JSON. ValueError says what is wrong."""
        name = next((name for name in ("body", ENCODED_INPUT) if name in request), "data")
        payload = request.get(name)
        if payload is None:
            raise ValueError('no input: send a body (REST) or the input "data" (gRPC)')
        headers = context.get_request_header(index, name) or {}
        if str(headers.get("content-type", "")).lower().startswith(JSON_TYPE):
            return _images_of_json(payload, self.shape), True
        if name == ENCODED_INPUT or _is_image(headers):
            return self._decoded(bytes(payload)), name == "body"
        if isinstance(payload, str):
            raise ValueError("text body: send application/octet-stream or application/json")
        if not payload or len(payload) % self.image_bytes:
            shape = "x".join(map(str, self.shape))
            raise ValueError(
                f"{len(payload)} bytes are no uint8 images: send a multiple of {self.image_bytes} ({shape})"
            )
        return payload, False

    def _decoded(self, file: bytes) -> bytes:
        """The pixels of a JPEG or PNG file. ValueError says what is wrong with it."""
        if self.decode is None:
            raise ValueError("this model takes no JPEG or PNG files: send its pixels")
        return self.decode(file, self.shape).tobytes()

    def _flush(self) -> None:
        while True:
            time.sleep(FLUSH_SECONDS)
            self.metrics.flush()

    @torch.inference_mode()
    def _predict(self, pixels: bytearray) -> np.ndarray:
        """Class probabilities, float32 [N, classes], of N images laid one after the other."""
        images = torch.frombuffer(pixels, dtype=torch.uint8).view(-1, *self.shape).to(self.device)
        probabilities: np.ndarray = self.model(images).to("cpu", torch.float32).contiguous().numpy()
        return probabilities


def _decoder() -> Callable[[bytes, tuple[int, ...]], np.ndarray]:
    """What makes pixels of files: a module in the archive, beside this one."""
    module = importlib.import_module("image_decoding")
    return module.decoded  # type: ignore[no-any-return]


def _is_image(headers: dict[str, Any]) -> bool:
    return str(headers.get("content-type", "")).lower().startswith(IMAGE_TYPE)


def _quiet_worker() -> None:
    """Stop two log lines that TorchServe's worker writes for every batch and its frontend reads: that a request came,
    and PredictionTime, a gauge of the last batch only."""
    logging.getLogger().setLevel(logging.WARNING)
    metrics = logging.getLogger("ts.metrics.caching_metric")
    metrics.setLevel(logging.INFO)
    metrics.addFilter(lambda record: "PredictionTime" not in str(record.msg))


def _device(gpu: int | None, share: str | None) -> torch.device:
    """Where to compute; a worker that is given a ``share`` of a GPU's memory computes there, or not at all."""
    if gpu is not None and torch.cuda.is_available():
        if share:
            torch.cuda.set_per_process_memory_fraction(float(share), gpu)
        return torch.device(f"cuda:{gpu}")
    if share:
        build = "is a build for CPUs" if torch.version.cuda is None else "finds no GPU"
        raise RuntimeError(f"this worker is to compute on a GPU, and torch {torch.__version__} {build}")
    return torch.device("cpu")


def _switches(device: torch.device) -> dict[str, bool | str]:
    """What PyTorch computes with, by the names that Tandem shows."""
    return {
        "oneDNN": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        "TF32": _tf32(),
        "quantized engine": torch.backends.quantized.engine,
        **(_gpu_switches(device) if device.type == "cuda" else {}),
    }


def _gpu_switches(device: torch.device) -> dict[str, bool | str]:
    return {"GPU": torch.cuda.get_device_name(device), "cuDNN autotune": bool(torch.backends.cudnn.benchmark)}


def _allow_tf32(allowed: bool) -> None:
    """Let a GPU compute float32 in TF32, or not, by PyTorch's old switches as well as by its new ones: which of them a
    kernel reads hangs on the kernel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old ones are deprecated
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed
    cudnn = torch.backends.cudnn
    for switch in (torch.backends.cuda.matmul, cudnn, cudnn.conv, cudnn.rnn):
        switch.fp32_precision = "tf32" if allowed else "ieee"


def _tf32() -> bool | str:
    """Whether a GPU would compute in TF32, or where alone it would."""
    convolutions = bool(torch.backends.cudnn.conv.fp32_precision == "tf32")
    products = bool(torch.backends.cuda.matmul.fp32_precision == "tf32")
    if convolutions == products:
        return convolutions
    return "in convolutions" if convolutions else "in matrix products"


def _worker(arguments: Sequence[str]) -> str:
    """The number that TorchServe gave this worker: it is in the worker's socket or port, and a restart keeps it."""
    for option, value in pairwise(arguments):
        number = re.search(r"\d+$", value)
        if option in ("--sock-name", "--port") and number:
            return number[0]
    return "0"


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


def _error(message: str, code: int, phrase: str) -> bytes:
    answer = json.dumps({"code": code, "type": phrase.replace(" ", ""), "message": message}).encode()
    return answer if len(answer) % 4 else answer + b"\n"
