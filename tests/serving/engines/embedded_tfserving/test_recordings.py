"""Replays the recorded calls of the real server that are in scope, and names every departure with its reason."""

from __future__ import annotations

import base64
import http.client
import json
import math
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, text_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.serving.engines.embedded_tfserving.conftest import MODELS
from tests.serving.engines.embedded_tfserving.embedded import running

RECORDINGS = Path(__file__).resolve().parent / "recordings"
TABLE = Path(__file__).resolve().parents[4] / "docs" / "tfserving-compatibility.md"
MESSAGES = {
    "tensorflow.serving.PredictRequest": (predict_pb2.PredictRequest, predict_pb2.PredictResponse),
    "tensorflow.serving.ClassificationRequest": (
        classification_pb2.ClassificationRequest,
        classification_pb2.ClassificationResponse,
    ),
    "tensorflow.serving.RegressionRequest": (regression_pb2.RegressionRequest, regression_pb2.RegressionResponse),
    "tensorflow.serving.GetModelMetadataRequest": (
        get_model_metadata_pb2.GetModelMetadataRequest,
        get_model_metadata_pb2.GetModelMetadataResponse,
    ),
    "tensorflow.serving.GetModelStatusRequest": (
        get_model_status_pb2.GetModelStatusRequest,
        get_model_status_pb2.GetModelStatusResponse,
    ),
    "tensorflow.serving.ReloadConfigRequest": (
        model_management_pb2.ReloadConfigRequest,
        model_management_pb2.ReloadConfigResponse,
    ),
}

SHAPE = "the input's shape is compared with the signature before the graph runs"
REST_DEPARTURES = {
    "predict_missing_batch_dim": SHAPE,
    "predict_wrong_shape_row": SHAPE,
    "predict_wrong_shape_4d": SHAPE + " (the real server answers 200 without predictions)",
    "misc_scalar_instances": SHAPE,
    "misc_col_scalar": SHAPE,
    "misc_wrong_inner": SHAPE,
    "scalar_row": SHAPE + ": rows of a signature without a batch dimension have one",
}
GRPC_DEPARTURES = {
    "predict_wrong_rank": SHAPE,
    "predict_wrong_dims_16": SHAPE,
    "predict_wrong_channels": SHAPE,
    "predict_init_op_signature": "signatures that are no prediction method are not callable",
    "raw_health_check": "grpc.health.v1 is served",
    "raw_profiler_monitor": "there is no profiler service: the code agrees, the message is empty",
}


def load(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RECORDINGS / name).read_text().splitlines()]


def same(left: Any, right: Any) -> bool:
    """Equal as data, numbers to 1e-5."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, float) and isinstance(right, float):
        return (
            left == right or (math.isnan(left) and math.isnan(right)) or abs(left - right) <= 1e-5 * max(1, abs(right))
        )
    return type(left) is type(right) and _without_nodes(left) == _without_nodes(right)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("latin-1")


def _without_nodes(text: Any) -> Any:
    """Functions are numbered as the exporting process went along, and of two nodes that fail either may say so."""
    return re.sub(r"__inference_([a-z]+)_[0-9]+}}{{node [a-z]+", r"\1", text) if isinstance(text, str) else text


def _rest_fault(server: Any, recorded: dict[str, Any]) -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    try:
        body = recorded.get("request_body", "").encode()
        if "request_body_b64" in recorded:
            body = base64.b64decode(recorded["request_body_b64"])
        connection.putrequest(recorded["method"], recorded["path"], skip_accept_encoding=True)
        for name, value in recorded["request_headers"].items():
            connection.putheader(name, value)
        connection.endheaders()
        if recorded["request_headers"].get("Transfer-Encoding") == "chunked":
            connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        else:
            connection.send(body)
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    wanted = recorded.get("response_body", "").encode()
    if "response_body_b64" in recorded:
        wanted = base64.b64decode(recorded["response_body_b64"])
    if response.status != recorded["status"]:
        return f"{response.status} {answer[:200]!r} instead of {recorded['status']} {wanted[:200]!r}"
    if not same(_json(answer), _json(wanted)):
        return f"{answer[:300]!r} instead of {wanted[:300]!r}"
    ours, theirs = dict(response.getheaders()), dict(recorded["response_headers"])
    for name in ("Content-Type", "Connection"):
        if ours.get(name) != theirs.get(name):
            return f"{name}: {ours.get(name)} instead of {theirs.get(name)}"
    return None


def _grpc_fault(server: Any, recorded: dict[str, Any]) -> str | None:
    request_type, response_type = MESSAGES.get(recorded.get("request_type", ""), (None, None))
    if request_type:
        message = text_format.Parse(recorded["request_textproto"], request_type()).SerializeToString()
    else:
        message = bytes.fromhex(recorded["request_hex"])
    call = server.channel.unary_unary(recorded["method"])
    timeout = 0.001 if recorded["name"] == "predict_deadline_1ms" else 30
    try:
        answer, code, details = call(message, timeout=timeout), "OK", ""
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        answer, code, details = b"", error.code().name, error.details() or ""
    if code != recorded["code"]:
        return f"{code} {details!r} instead of {recorded['code']} {recorded['details']!r}"
    if code == "DEADLINE_EXCEEDED":
        return None  # the client's own words
    if not same(details, recorded["details"]):
        return f"{details!r} instead of {recorded['details']!r}"
    if code == "OK" and response_type:
        ours = response_type.FromString(answer)
        theirs = text_format.Parse(recorded["response_textproto"], response_type())
        if not same(json_format.MessageToDict(ours), json_format.MessageToDict(theirs)):
            return f"{str(ours)[:300]} instead of {str(theirs)[:300]}"
    return None


@pytest.mark.parametrize("name", [*REST_DEPARTURES, *GRPC_DEPARTURES])
def test_every_departure_is_in_the_compatibility_table(name):
    assert f"`{name}`" in TABLE.read_text()


@pytest.mark.parametrize(
    ("file", "fault_of", "departures"),
    [("rest.jsonl", _rest_fault, REST_DEPARTURES), ("grpc.jsonl", _grpc_fault, GRPC_DEPARTURES)],
    ids=["rest", "grpc"],
)
def test_the_server_answers_as_recorded(recorded_server, capsys, file, fault_of, departures):
    recordings = load(file)
    faults = {recorded["name"]: fault for recorded in recordings if (fault := fault_of(recorded_server, recorded))}
    with capsys.disabled():
        agree = len(recordings) - len(faults)
        print(f"\n{file}: {agree} of {len(recordings)} recordings agree, {len(faults)} depart")
    unexplained = {name: fault for name, fault in faults.items() if name not in departures}
    assert not unexplained, "\n".join(f"{name}: {fault}" for name, fault in unexplained.items())
    assert not departures.keys() - faults.keys(), "no departure any more"


CNN = 'config {{ name: "cnn" base_path: "/srv/models/cnn" model_platform: "tensorflow" {} }}'
MISC = 'config { name: "misc" base_path: "/srv/models/misc" model_platform: "tensorflow" }'
# What must have been sent before a recorded call, to judge by its answer: these requests themselves were not recorded.
SENT_BEFORE = {
    "reload_then_predict_stable": [
        CNN.format(
            'model_version_policy { all {} } version_labels { key: "stable" value: 2 } '
            'version_labels { key: "canary" value: 1 }'
        ),
        MISC,
        'config { name: "cnn_b" base_path: "/srv/models/cnn" model_platform: "tensorflow" }',
    ],
    "reload_policy_specific_status": [CNN.format("model_version_policy { specific { versions: 1 } }"), MISC],
}


def test_reload_requests_are_answered_as_recorded(models_folder, tmp_path, capsys):
    file = tmp_path / "models.txt"
    file.write_text(MODELS.format(folder=models_folder))
    flags = [f"--model_config_file={file}", "--allow_version_labels_for_unavailable_models=true"]
    recordings = load("reload.jsonl")
    faults = {}
    with running(tmp_path, *flags, environment={"TF_ENABLE_ONEDNN_OPTS": "0"}) as server:
        for recorded in recordings:
            recorded["request_textproto"] = recorded["request_textproto"].replace("/srv/models", str(models_folder))
            if models := SENT_BEFORE.get(recorded["name"]):
                text = " ".join(models).replace("/srv/models", str(models_folder))
                sent = {
                    "request_type": "tensorflow.serving.ReloadConfigRequest",
                    "request_textproto": f"config {{ model_config_list {{ {text} }} }}",
                    "method": "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
                    "name": f"before {recorded['name']}",
                    "code": "OK",
                    "details": "",
                    "response_textproto": "status { }",
                }
                assert _grpc_fault(server, sent) is None
            if fault := _grpc_fault(server, recorded):
                faults[recorded["name"]] = fault
    with capsys.disabled():
        print(f"\nreload.jsonl: {len(recordings) - len(faults)} of {len(recordings)} recordings agree")
    assert not faults
