"""Warm-up records that travel with a SavedModel (https://www.tensorflow.org/tfx/serving/saved_model_warmup)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from serving.engines.embedded_tfserving import examples
from serving.engines.embedded_tfserving.classify_regress import CLASSIFY, REGRESS, plan
from serving.engines.embedded_tfserving.metrics import Metrics
from serving.engines.embedded_tfserving.predict_request import arguments
from serving.engines.embedded_tfserving.servable import Servable
from serving.engines.embedded_tfserving.status import Code, ServingError, invalid

RECORDS = Path("assets.extra") / "tf_serving_warmup_requests"
MOST = 1000
METHODS = {"classify_log": CLASSIFY, "regress_log": REGRESS}


def replay(servable: Servable, times: int, metrics: Metrics) -> None:
    """Send a version's records, if it has any, through the model `times` times each. Raises `ServingError`, with the
    real server's message, for a record that cannot be read or that the model refuses."""
    path = servable.path / RECORDS
    if not path.exists():
        return
    started = time.perf_counter()
    for number, record in enumerate(_records(path), start=1):
        if number > MOST:
            raise invalid(f"Number of warmup records exceeds the maximum ({MOST}) at {path}")
        for _ in range(times):
            _run(servable, record)
        metrics.warmup_records.of(str(servable.path), "OK").add()
    metrics.warmup_latency.of(str(servable.path), "OK").observe((time.perf_counter() - started) * 1e6)


def _records(path: Path) -> Iterator[prediction_log_pb2.PredictionLog]:
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(path)):
            yield prediction_log_pb2.PredictionLog.FromString(record)
    except tf.errors.OpError as error:
        advice = ". Please verify your warmup data is in TFRecord format." if error.error_code == Code.DATA_LOSS else ""
        raise ServingError(Code(error.error_code), f"{error.message}{advice}") from None
    except DecodeError:
        raise invalid(f"Failed to parse warmup record: {path}") from None


def _run(servable: Servable, record: prediction_log_pb2.PredictionLog) -> None:
    kind = record.WhichOneof("log_type")
    if kind == "predict_log":
        servable.run(*arguments(servable, record.predict_log.request))
    elif kind in METHODS:
        request = getattr(record, kind).request
        signature = METHODS[kind].signature(servable, request.model_spec.signature_name)
        servable.run(signature, [examples.serialized(request.input)])
    elif kind == "multi_inference_log":
        request = record.multi_inference_log.request
        for _, signature in plan(servable, request.tasks):
            servable.run(signature, [examples.serialized(request.input)])
    else:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
