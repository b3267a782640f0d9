"""Replays the recorded calls of the real server, and names every departure with its reason.

Two kinds of answers differ from the recorded ones: those to calls that are not supported, asserted to the letter, and
departures on purpose.
"""

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
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.serving.engines.embedded_tfserving.conftest import MODELS
from tests.serving.engines.embedded_tfserving.embedded import Embedded, running

pytestmark = [pytest.mark.slow, pytest.mark.beside]

RECORDINGS = Path(__file__).resolve().parent / "recordings"
TABLE = Path(__file__).resolve().parents[4] / "docs" / "tfserving-compatibility.md"
MESSAGES = {
    "tensorflow.serving.PredictRequest": (predict_pb2.PredictRequest, predict_pb2.PredictResponse),
    "tensorflow.serving.ClassificationRequest": (
        classification_pb2.ClassificationRequest,
        classification_pb2.ClassificationResponse,
    ),
    "tensorflow.serving.RegressionRequest": (regression_pb2.RegressionRequest, regression_pb2.RegressionResponse),
    "tensorflow.serving.MultiInferenceRequest": (
        inference_pb2.MultiInferenceRequest,
        inference_pb2.MultiInferenceResponse,
    ),
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

RANK = "another number of dimensions than the signature's is refused where a convolution could end the process"
REST_DEPARTURES = {
    "predict_missing_batch_dim": RANK,
    "predict_wrong_shape_row": RANK,
}
GRPC_DEPARTURES = {
    "predict_wrong_rank": RANK,
    "predict_init_op_signature": "signatures that are no prediction method are not callable",
    "raw_health_check": "grpc.health.v1 is served",
    "raw_profiler_monitor": "there is no profiler service: the code agrees, the message is empty",
}


# Calls that are not supported, and what they are answered with: the recorded status, in our words.
UNSUPPORTED = "embedded-tfserving does not support {}: of the inference calls it answers Predict only"
CLASSIFY, REGRESS = UNSUPPORTED.format("classify"), UNSUPPORTED.format("regress")
REST_UNSUPPORTED = {
    "classify_on_predict_only": (400, CLASSIFY),
    "c_misc_examples": (400, CLASSIFY),
    "c_no_examples": (400, CLASSIFY),
    "c_examples_scalar": (400, REGRESS),
    "c_context": (400, REGRESS),
    "c_unknown_signature": (400, REGRESS),
}
GRPC_UNSUPPORTED = {
    name: ("INVALID_ARGUMENT", UNSUPPORTED.format(call))
    for call, names in {
        "Classify": ("classify_predict_only", "g_classify_misc", "g_classify_no_examples"),
        "Regress": ("regress_predict_only", "g_regress_no_name"),
        "MultiInference": (
            "g_multi_predict_model",
            "g_multi_same_signature",
            "g_multi_no_method",
            "g_multi_no_examples",
        ),
    }.items()
    for name in names
}
# The real server reads such a request further, and finds another fault in it.
OTHER_CODE = {"g_multi_no_method"}


def load(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RECORDINGS / name).read_text().split("\n") if line]


def stateless(*names: str) -> list[dict[str, Any]]:
    """The recordings that may be replayed in any order against a server that others use."""
    return [recorded for name in names for recorded in load(name) if not recorded["name"].startswith("rl_")]


def reloading() -> list[dict[str, Any]]:
    """The second set's calls that change what is served, in their order."""
    by_name = {
        recorded["name"]: recorded
        for recorded in load("probes-2-grpc.jsonl") + load("probes-2-rest.jsonl")
        if recorded["name"].startswith("rl_")
    }
    order = list(by_name)
    order.insert(order.index("rl_two_names_one_path") + 1, order.pop(order.index("rl_then_rest_misc2")))
    return [by_name[name] for name in order]


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


def _rest_answer(server: Embedded, recorded: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    try:
        body = recorded.get("request_body", "").encode()
        if "request_body_b64" in recorded:
            body = base64.b64decode(recorded["request_body_b64"])
        connection.putrequest(recorded["method"], recorded["path"], skip_accept_encoding=True)
        for name, value in recorded["request_headers"].items():
            connection.putheader(name, value)
        if body and not recorded["request_headers"].keys() & {"Content-Length", "Transfer-Encoding"}:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        if recorded["request_headers"].get("Transfer-Encoding") == "chunked":
            connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        else:
            connection.send(body)
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())
    finally:
        connection.close()


def _rest_fault(server: Embedded, recorded: dict[str, Any]) -> str | None:
    status, answer, headers = _rest_answer(server, recorded)
    wanted = recorded.get("response_body", "").encode()
    if "response_body_b64" in recorded:
        wanted = base64.b64decode(recorded["response_body_b64"])
    if status != recorded["status"]:
        return f"{status} {answer[:200]!r} instead of {recorded['status']} {wanted[:200]!r}"
    if not same(_json(answer), _json(wanted)):
        return f"{answer[:300]!r} instead of {wanted[:300]!r}"
    theirs = dict(recorded["response_headers"])
    for name in ("Content-Type", "Connection"):
        if headers.get(name) != theirs.get(name):
            return f"{name}: {headers.get(name)} instead of {theirs.get(name)}"
    return None


def _rest_refusal(server: Embedded, recorded: dict[str, Any]) -> tuple[int, str]:
    status, answer, _ = _rest_answer(server, recorded)
    return status, json.loads(answer)["error"]


def _grpc_answer(server: Embedded, recorded: dict[str, Any]) -> tuple[str, str, bytes]:
    """Code, details and message."""
    if "request_type" in recorded:
        request_type = MESSAGES[recorded["request_type"]][0]
        message = text_format.Parse(recorded["request_textproto"], request_type()).SerializeToString()
    else:
        message = bytes.fromhex(recorded["request_hex"])
    call = server.channel.unary_unary(recorded["method"])
    timeout = 0.001 if recorded["name"] == "predict_deadline_1ms" else 30
    compression = grpc.Compression.Gzip if recorded["name"] == "g_gzip" else None
    metadata = (("x-a-bin", b"\x00\xff"), ("x-b", "b")) if recorded["name"] == "g_metadata_bin" else None
    try:
        return "OK", "", call(message, timeout=timeout, compression=compression, metadata=metadata)
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        return error.code().name, error.details() or "", b""


def _grpc_fault(server: Embedded, recorded: dict[str, Any]) -> str | None:
    code, details, answer = _grpc_answer(server, recorded)
    if code != recorded["code"]:
        return f"{code} {details!r} instead of {recorded['code']} {recorded['details']!r}"
    if code == "DEADLINE_EXCEEDED":
        return None  # the client's own words
    if not same(details, recorded["details"]):
        return f"{details!r} instead of {recorded['details']!r}"
    if code == "OK" and "request_type" in recorded:
        response_type = MESSAGES[recorded["request_type"]][1]
        ours = response_type.FromString(answer)
        theirs = text_format.Parse(recorded["response_textproto"], response_type())
        if not same(json_format.MessageToDict(ours), json_format.MessageToDict(theirs)):
            return f"{str(ours)[:300]} instead of {str(theirs)[:300]}"
    return None


def _grpc_refusal(server: Embedded, recorded: dict[str, Any]) -> tuple[str, str]:
    return _grpc_answer(server, recorded)[:2]


@pytest.mark.parametrize(
    "name",
    [
        *REST_DEPARTURES,
        *REST_UNSUPPORTED,
        *GRPC_DEPARTURES,
        *GRPC_UNSUPPORTED,
    ],
)
def test_every_departure_is_in_the_compatibility_table(name):
    assert f"`{name}`" in TABLE.read_text()


@pytest.mark.parametrize(
    ("files", "fault_of", "refusal_of", "unsupported", "departures"),
    [
        (
            ("rest.jsonl", "probes-2-rest.jsonl"),
            _rest_fault,
            _rest_refusal,
            REST_UNSUPPORTED,
            REST_DEPARTURES,
        ),
        (("grpc.jsonl", "probes-2-grpc.jsonl"), _grpc_fault, _grpc_refusal, GRPC_UNSUPPORTED, GRPC_DEPARTURES),
    ],
    ids=["rest", "grpc"],
)
def test_the_server_answers_as_recorded(recorded_server, capsys, files, fault_of, refusal_of, unsupported, departures):
    recordings = {recorded["name"]: recorded for recorded in stateless(*files)}
    assert len(recordings) == len(stateless(*files))
    faults = {name: fault for name, recorded in recordings.items() if (fault := fault_of(recorded_server, recorded))}
    with capsys.disabled():
        agree, depart = len(recordings) - len(faults), len(faults.keys() - unsupported.keys())
        counts = f"{agree} of {len(recordings)} agree, {len(unsupported)} are of calls that are not supported"
        print(f"\n{' and '.join(files)}: {counts}, {depart} depart")
    explained = {*unsupported, *departures}
    assert faults.keys() == explained, "\n".join(
        f"{name}: {faults.get(name, 'no departure any more')}" for name in faults.keys() ^ explained
    )
    assert {name: refusal_of(recorded_server, recordings[name]) for name in unsupported} == unsupported


def test_what_is_not_supported_has_the_recorded_status_but_where_it_is_said():
    rest = {recorded["name"]: recorded["status"] for recorded in stateless("rest.jsonl", "probes-2-rest.jsonl")}
    codes = {recorded["name"]: recorded["code"] for recorded in stateless("grpc.jsonl", "probes-2-grpc.jsonl")}
    assert all(rest[name] == status for name, (status, _) in REST_UNSUPPORTED.items())
    assert {name for name, (code, _) in GRPC_UNSUPPORTED.items() if codes[name] != code} == OTHER_CODE


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


def test_reload_requests_of_the_second_set_are_answered_as_recorded(models_folder, tmp_path, capsys):
    file = tmp_path / "models.txt"
    file.write_text(MODELS.format(folder=models_folder))
    flags = [f"--model_config_file={file}", "--allow_version_labels_for_unavailable_models=true"]
    recordings, faults = reloading(), {}
    with running(tmp_path, *flags, environment={"TF_ENABLE_ONEDNN_OPTS": "0"}) as server:
        for recorded in recordings:
            if "request_textproto" in recorded:
                recorded["request_textproto"] = recorded["request_textproto"].replace("/srv/models", str(models_folder))
            if fault := (_rest_fault if "path" in recorded else _grpc_fault)(server, recorded):
                faults[recorded["name"]] = fault
    with capsys.disabled():
        print(f"\nprobes-2, reloading: {len(recordings) - len(faults)} of {len(recordings)} recordings agree")
    assert len(recordings) == 8
    assert not faults
