"""The Open Inference Protocol spoken with a server that was not written here: MLServer, over REST and gRPC.

It knows no binary data in REST, which Triton's tests speak, and no BF16.
"""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from serving import description, wire_parity
from serving.client import Client, RequestFailed
from serving.engines import open_inference_calls
from serving.engines.engine import Description, Question, Tensor
from serving.target import HttpRequest, Target
from serving.wire.open_inference import datatypes, rest, rpc
from serving.wire.open_inference.records import Answer, NamedTensor
from serving.wire.protobuf import open_inference_pb2 as messages
from tests.components import require
from tests.mlserver.running import PROGRAM, MlServer, mlserver

pytestmark = [pytest.mark.slow, pytest.mark.beside]

IMAGES = np.random.default_rng(3).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
BRIGHT = IMAGES.reshape(64, -1).mean(axis=1) / 255
RIGHT = np.stack([BRIGHT, 1 - BRIGHT], axis=1).astype(np.float32)
TYPES = [one.name for one in datatypes.DATATYPES if one.name != "BF16"]


@pytest.fixture(scope="module")
def server() -> Iterator[MlServer]:
    with mlserver() as running:
        yield running


@pytest.fixture
def target(server) -> Target:
    return Target(
        name="mine",
        engine="open-inference",
        engine_version="",
        runtime="remote",
        model="brightness",
        version=1,
        input_shape=(8, 8, 1),
        classes=2,
        grpc=server.grpc,
        rest=server.rest,
    )


def over_rest(address: str, path: str, body: bytes | None = None, kind: str = rest.CONTENT_TYPE) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://{address}{path}", body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def over_grpc(address: str, method: str, message: bytes) -> bytes:
    with grpc.insecure_channel(address) as channel:
        answer: bytes = channel.unary_unary(method)(message, timeout=30)
        return answer


def test_images_are_answered_alike_over_every_protocol_that_it_speaks(target, tmp_path):
    np.savez(tmp_path / "reference.npz", images=IMAGES, probabilities=RIGHT)
    found = wire_parity.check(target, tmp_path / "reference.npz", protocols=["grpc", "rest"], tolerance=1e-6)
    assert {name: one.top1_agreement for name, one in found.items()} == {"grpc": 1.0, "rest": 1.0}


def test_a_described_model_is_asked_by_what_the_server_says(target):
    inputs = (Tensor("images", "uint8", (-1, 8, 8, 1)),)
    outputs = (Tensor("probabilities", "float32", (-1, 2)),)
    expected = Description("mlserver", inputs, outputs, ("1",))

    def ask(question: Question) -> Description:
        if question.message is not None:
            return question.read(over_grpc(target.grpc, question.path, question.message))
        status, body = over_rest(target.rest, question.path)
        assert status == 200
        return question.read(body)

    for protocol in ("rest", "grpc"):
        question = open_inference_calls.question(replace(target, pinned_version="1"), protocol)
        found = ask(question)
        for further in question.also:
            found = found.completed(ask(further))
        assert replace(found, server=found.server.split()[0]) == expected
        assert found.server.startswith("mlserver 1.")
    described = replace(target, inputs=inputs, outputs=outputs, classes=0, pinned_version="1")
    with Client(described) as client:
        for protocol in ("rest", "grpc"):
            np.testing.assert_allclose(client.predict(protocol, IMAGES[:3]), RIGHT[:3], atol=1e-6)


def test_a_request_of_the_users_own_is_answered_alike(target):
    """The engine for servers of no known protocol, with a server that somebody has."""
    body = '{"inputs": [{"name": "images", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": $image}]}'
    request = HttpRequest(path="/v2/models/brightness/infer", body=body, answer="/outputs/0/data")
    with Client(replace(target, engine="http", request=request)) as client:
        np.testing.assert_allclose(client.predict("rest", IMAGES[:1]), RIGHT[:1], atol=1e-6)
    wrong = HttpRequest(path="/v2/models/brightness/infer", body=body, answer="/outputs/1/data")
    with Client(replace(target, engine="http", request=wrong)) as client:
        with pytest.raises(RequestFailed, match="/outputs/1/data: a list of 1 at /outputs, no '1'"):
            client.predict("rest", IMAGES[:1])


def values(datatype: str) -> np.ndarray:
    dtype = datatypes.BY_NAME[datatype].numpy
    if dtype == "bytes":
        found = np.empty((2, 2), object)
        found[:] = [[b"a", "Zürich".encode()], [b"", b"{}"]]
        return found
    if dtype == "bool":
        return np.array([[True, False], [False, True]])
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return np.array([[0.1, -1.5], [np.finfo(kind).max, np.finfo(kind).tiny]], kind)
    return np.array([[0, 1], [np.iinfo(kind).max, np.iinfo(kind).min]], kind)


def echoed(answer: Answer, sent: NamedTensor) -> None:
    (found,) = answer.outputs
    assert (answer.model, answer.version) == ("echo", "v2")
    assert (found.name, found.datatype, found.values.dtype) == (sent.name, sent.datatype, sent.values.dtype)
    np.testing.assert_array_equal(found.values, sent.values)


@pytest.mark.parametrize("datatype", TYPES)
def test_every_type_that_it_knows_comes_back(datatype, server):
    sent = NamedTensor("x", datatype, values(datatype))
    status, body = over_rest(server.rest, rest.infer_path("echo", "v2"), rest.encode([sent], id="42"))
    assert status == 200
    assert rest.decode(body).id == "42"
    echoed(rest.decode(body), sent)
    message = rpc.encode("echo", [sent], version="v2", id="42")
    answered = over_grpc(server.grpc, rpc.MODEL_INFER, message)
    assert messages.ModelInferResponse.FromString(answered).raw_output_contents  # as it was asked
    echoed(rpc.decode(answered), sent)


def test_bytes_that_are_no_text_go_over_grpc(server):
    sent = NamedTensor("x", "BYTES", np.array([b"\xff\xd8jpeg", b"\0"], object))
    echoed(rpc.decode(over_grpc(server.grpc, rpc.MODEL_INFER, rpc.encode("echo", [sent]))), sent)


@pytest.mark.parametrize("datatype", [one for one in TYPES if one != "FP16"])
def test_its_answers_by_type_are_read(datatype, server):
    """Which it gives to whoever asks by type."""
    sent = NamedTensor("x", datatype, values(datatype))
    asked = messages.ModelInferRequest.FromString(rpc.encode("echo", [sent]))
    del asked.raw_input_contents[:]
    getattr(asked.inputs[0].contents, datatypes.BY_NAME[datatype].contents).extend(sent.values.ravel().tolist())
    answered = over_grpc(server.grpc, rpc.MODEL_INFER, asked.SerializeToString())
    assert not messages.ModelInferResponse.FromString(answered).raw_output_contents
    echoed(rpc.decode(answered), sent)


def test_it_is_live_and_ready(server):
    for path in (rest.SERVER_LIVE, rest.SERVER_READY, rest.ready_path("echo"), rest.ready_path("echo", "v2")):
        status, body = over_rest(server.rest, path)
        assert (status, rest.read_ready(body)) == (200, True)
    assert rpc.read_live(over_grpc(server.grpc, rpc.SERVER_LIVE, rpc.NO_FIELDS))
    assert rpc.read_ready(over_grpc(server.grpc, rpc.SERVER_READY, rpc.NO_FIELDS))
    assert rpc.read_ready(over_grpc(server.grpc, rpc.MODEL_READY, rpc.about_model("echo", "v2")))


def test_what_it_refuses_is_passed_on(target):
    status, body = over_rest(target.rest, rest.model_path("nobody"))
    assert status == 404
    with pytest.raises(ValueError, match="the server says: Model nobody not found"):
        rest.read_model(body)
    with Client(replace(target, model="nobody")) as client:
        for protocol, said in [("rest", "HTTP 404: .*Model nobody not found"), ("grpc", "NOT_FOUND: .*nobody")]:
            with pytest.raises(RequestFailed, match=said):
                client.predict(protocol, IMAGES[:1])


def test_binary_data_are_refused_not_misread(target):
    with Client(target) as client, pytest.raises(RequestFailed, match=r"HTTP (422|500)"):
        client.predict("rest-binary", IMAGES[:1])


def official(code: str, stdin: bytes) -> bytes:
    """What a program says that runs in MLServer's environment, where NVIDIA's client library is, too."""
    require("mlserver")
    python = PROGRAM.with_name("python")
    return subprocess.run([python, "-c", code], input=stdin, capture_output=True, check=True, cwd="/").stdout


def test_a_binary_request_is_what_nvidias_own_client_sends():
    code = """
import json, sys
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
images = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(-1, 8, 8, 1)
tensor = InferInput("images", images.shape, "UINT8")
tensor.set_data_from_numpy(images)
outputs = [InferRequestedOutput("probabilities")]
body, length = InferenceServerClient.generate_request_body([tensor], outputs=outputs)
sys.stdout.buffer.write(length.to_bytes(4, "big") + body)
"""
    theirs = official(code, IMAGES[:2].tobytes())
    length, theirs = int.from_bytes(theirs[:4], "big"), theirs[4:]
    ours, own_length = rest.encode_binary([NamedTensor("images", "UINT8", IMAGES[:2])], ["probabilities"])
    assert json.loads(theirs[:length]) == json.loads(ours[:own_length])
    assert theirs[length:] == ours[own_length:]


def test_a_binary_answer_is_what_nvidias_own_client_reads():
    outputs = [
        NamedTensor("probabilities", "FP32", RIGHT),
        NamedTensor("text", "BYTES", values("BYTES")),
        NamedTensor("half", "FP16", values("FP16")),
    ]
    request, length = rest.encode_binary(outputs)
    head = json.dumps({"model_name": "m", "outputs": json.loads(request[:length])["inputs"]}).encode()
    code = """
import sys
from tritonclient.http import InferResult
body = sys.stdin.buffer.read()
length, body = int.from_bytes(body[:4], "big"), body[4:]
result = InferResult.from_response_body(body, header_length=length)
for name in ("probabilities", "half"):
    sys.stdout.buffer.write(result.as_numpy(name).tobytes())
sys.stdout.buffer.write(b"".join(result.as_numpy("text").ravel().tolist()))
"""
    answer = head + request[length:]
    read = official(code, len(head).to_bytes(4, "big") + answer)
    assert read == RIGHT.tobytes() + values("FP16").tobytes() + b"".join(values("BYTES").ravel().tolist())
    np.testing.assert_array_equal(rest.decode(answer).outputs[0].values, RIGHT)


def test_messages_are_byte_for_byte_the_servers_own():
    sent = [NamedTensor("x", "INT64", values("INT64")), NamedTensor("y", "BYTES", values("BYTES"))]
    encoded = rpc.encode("m", sent, ["p"], version="3", id="42")
    code = """
import sys
from mlserver.grpc import dataplane_pb2 as official
request = official.ModelInferRequest.FromString(sys.stdin.buffer.read())
assert (request.model_name, request.model_version, request.id) == ("m", "3", "42")
assert [(one.name, one.datatype, list(one.shape)) for one in request.inputs] == [
    ("x", "INT64", [2, 2]), ("y", "BYTES", [2, 2])]
assert [one.name for one in request.outputs] == ["p"] and len(request.raw_input_contents) == 2
sys.stdout.buffer.write(request.SerializeToString(deterministic=True))
"""
    assert official(code, encoded) == encoded


SEVERAL = np.array([((1, 2, 3), 2), ((4, 5, 6), -1)], [("points", "f4", (3,)), ("weight", "i8")])


def test_several_inputs_and_the_output_that_is_named(target):
    """As it describes them; the second output is the judged one."""
    asked = replace(target, model="weighted", input_shape=(), classes=0)
    for protocol in ("rest", "grpc"):
        said = description.describe(asked, protocol)
        assert said
        assert [(one.name, one.datatype, one.shape) for one in said.inputs] == [
            ("points", "float32", (-1, 3)),
            ("weight", "int64", (-1,)),
        ]
        to = replace(asked, inputs=said.inputs, outputs=said.outputs, output="total")
        with Client(to) as client:
            assert client.predict(protocol, SEVERAL).tolist() == [[12], [-15]]
            named = replace(to, output="scaled")
        with Client(named) as client:
            assert client.predict(protocol, SEVERAL).tolist() == [[2, 4, 6], [-4, -5, -6]]


def test_several_inputs_as_binary_data_are_what_nvidias_own_client_sends():
    code = """
import sys
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
values = {"points": np.array([[1, 2, 3], [4, 5, 6]], np.float32), "weight": np.array([2, -1], np.int64)}
tensors = []
for name, kind in (("points", "FP32"), ("weight", "INT64")):
    tensors.append(InferInput(name, values[name].shape, kind))
    tensors[-1].set_data_from_numpy(values[name])
body, length = InferenceServerClient.generate_request_body(
    tensors, outputs=[InferRequestedOutput("scaled"), InferRequestedOutput("total")])
sys.stdout.buffer.write(length.to_bytes(4, "big") + body)
"""
    theirs = official(code, b"")
    length, theirs = int.from_bytes(theirs[:4], "big"), theirs[4:]
    tensors = [NamedTensor("points", "FP32", SEVERAL["points"]), NamedTensor("weight", "INT64", SEVERAL["weight"])]
    ours, own_length = rest.encode_binary(tensors, ["scaled", "total"])
    assert json.loads(theirs[:length]) == json.loads(ours[:own_length])
    assert theirs[length:] == ours[own_length:]


def test_every_message_has_the_fields_of_the_published_schema():
    """MLServer's are generated from it, with `parameters` of its own in metadata, and messages of its repository."""
    code = """
import json, sys
from mlserver.grpc import dataplane_pb2 as official
def told(message):
    fields = {one.name: [one.number, one.type] for one in message.fields}
    nested = {f"{message.name}.{k}": v for one in message.nested_types for k, v in told(one).items()}
    return {message.name: fields, **nested}
found = {}
for message in official.DESCRIPTOR.message_types_by_name.values():
    found.update(told(message))
json.dump(found, sys.stdout)
"""

    def told(message: Any) -> dict[str, dict[str, list[int]]]:
        fields = {one.name: [one.number, one.type] for one in message.fields}
        nested = {f"{message.name}.{name}": of for one in message.nested_types for name, of in told(one).items()}
        return {message.name: fields, **nested}

    ours: dict[str, dict[str, list[int]]] = {}
    for message in messages.DESCRIPTOR.message_types_by_name.values():
        ours |= told(message)
    theirs = json.loads(official(code, b""))
    for name, of in ours.items():
        added = {key: value for key, value in theirs[name].items() if key not in of}
        newer = {"double_param", "uint64_param"} if name == "InferParameter" else set()  # than its copy of the schema
        assert {key: value for key, value in theirs[name].items() if key in of} == {
            key: value for key, value in of.items() if key not in newer
        }, name
        assert not added or (set(added) == {"parameters"} and name.startswith("ModelMetadata")), name
    left_out = [one for one in theirs.keys() - ours.keys() if "Repository" not in one and "Metadata" not in one]
    assert not left_out
