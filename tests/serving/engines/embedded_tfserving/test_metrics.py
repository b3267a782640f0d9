"""The metrics page has the recorded families, labels and buckets, counts right, and says whose page it is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

RECORDED = Path(__file__).resolve().parent / "recordings" / "metrics.txt"
PAGE = "/monitoring/prometheus/metrics"
# Families without any series in the recording, of parts that this server does not have.
ABSENT = {":tensorflow:serving:mlmd_map"}


def families(page: str) -> dict[str, str]:
    """Type by name, of the promised families."""
    return dict(re.findall(r"^# TYPE (:tensorflow:serving:\S+) (\S+)$", page, re.MULTILINE))


def bounds(page: str, family: str) -> list[str]:
    """The `le` values of a family's first histogram."""
    values = re.findall(rf'^{family}_bucket{{.*?le="([^"]+)"}}', page, re.MULTILINE)
    return values[: values.index("+Inf") + 1]


def value(page: str, series: str) -> float:
    match = re.search(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE)
    return float(match[1]) if match else 0.0


def test_the_page_is_that_of_the_recording(batching_server):
    images = np.zeros((1, 32, 32, 3), np.uint8)
    count = ':tensorflow:serving:request_count{model_name="cnn",status="%s"}'
    latency = ':tensorflow:serving:request_latency_count{model_name="cnn",API="%s",entrypoint="%s"}'
    runs = ':tensorflow:serving:runtime_latency_count{model_name="cnn",API="Predict",runtime="TF1"}'
    rows = ":tensorflow:serving:batching_session:%s_sum{}"
    series = [count % "OK", count % "INVALID_ARGUMENT", latency % ("Predict", "GRPC"), latency % ("predict", "REST")]
    series += [latency % ("", "REST"), runs, rows % "input_batch_size", rows % "processed_batch_size"]

    def page() -> str:
        status, body = batching_server.http("GET", PAGE)
        assert status == 200
        return body.decode()

    before = page()
    for _ in range(3):
        batching_server.predict("cnn", {"images": images})
    batching_server.http("POST", "/v1/models/cnn:predict", {"instances": images.tolist()})
    assert batching_server.http("POST", "/v1/models/cnn:predict", {"instances": [[[1.5]]]})[0] == 400
    for name in ("nope", "another", "and-another"):
        assert batching_server.http("GET", f"/v1/models/{name}")[0] == 404
    assert batching_server.http("GET", "/v1/models/cnn")[0] == 200
    after = page()

    growth = [value(after, name) - value(before, name) for name in series]
    assert growth == [5, 1, 3, 1, 1, 4, 4, 4]
    assert 'model_name="nope"' not in after
    assert value(after, ':tensorflow:serving:request_count{model_name="(unknown)",status="NOT_FOUND"}') >= 3

    recorded = RECORDED.read_text()
    assert families(after).items() >= {k: v for k, v in families(recorded).items() if k not in ABSENT}.items()
    for family in ("request_latency", "runtime_latency", *[f"batching_session:{name}" for name in BATCHING]):
        assert bounds(after, ":tensorflow:serving:" + family) == bounds(recorded, ":tensorflow:serving:" + family)
    assert 'embedded_tfserving_build_info{name="embedded-tfserving"' in after


BATCHING = ("input_batch_size", "padding_size", "processed_batch_size", "queuing_latency")


def test_a_value_on_a_bound_lands_above_it():
    from serving.engines.embedded_tfserving.metrics import SIZE_BOUNDS, Histogram

    histogram = Histogram(SIZE_BOUNDS)
    histogram.observe(1)
    assert histogram.lines("f", "")[:2] == ['f_bucket{le="1"} 0', 'f_bucket{le="2"} 1']


def test_it_never_calls_itself_tensorflow_serving(batching_server):
    log = batching_server.log.read_text()
    assert "embedded-tfserving" in log
    assert "--rest_api_num_threads has no effect here" in log
    assert log.count("TensorFlow Serving") == log.count("not TensorFlow Serving")
    assert b"ModelServer" not in batching_server.http("GET", PAGE)[1]
