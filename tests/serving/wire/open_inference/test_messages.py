"""Messages of the gRPC service, well formed and malformed; the service's own stubs are a test against a real server."""

from __future__ import annotations

import numpy as np
import pytest

from serving.wire.open_inference import rpc
from serving.wire.open_inference.records import NamedTensor, TensorMetadata
from serving.wire.protobuf import open_inference_pb2 as messages


def test_the_methods():
    assert rpc.MODEL_INFER == "/inference.GRPCInferenceService/ModelInfer"
    assert rpc.MODEL_METADATA == "/inference.GRPCInferenceService/ModelMetadata"
    assert rpc.SERVER_READY == "/inference.GRPCInferenceService/ServerReady"


def test_a_request_has_raw_contents_in_the_order_of_its_inputs():
    inputs = [
        NamedTensor("a", "INT16", np.array([[1, -1]], np.int16)),
        NamedTensor("b", "BYTES", np.array([b"xy", None], object)[:1]),
    ]
    encoded = rpc.encode("m", inputs, ["p"], version="3", id="42")
    assert messages.ModelInferRequest.FromString(encoded) == messages.ModelInferRequest(
        model_name="m",
        model_version="3",
        id="42",
        inputs=[
            {"name": "a", "datatype": "INT16", "shape": [1, 2]},
            {"name": "b", "datatype": "BYTES", "shape": [1]},
        ],
        outputs=[{"name": "p"}],
        raw_input_contents=[b"\1\0\xff\xff", b"\2\0\0\0xy"],
    )


@pytest.mark.parametrize(
    ("datatype", "contents", "values"),
    [
        ("BOOL", {"bool_contents": [True, False]}, [True, False]),
        *((f"UINT{bits}", {"uint_contents": [0, 255]}, [0, 255]) for bits in (8, 16, 32)),
        ("UINT64", {"uint64_contents": [0, 2**64 - 1]}, [0, 2**64 - 1]),
        *((f"INT{bits}", {"int_contents": [-128, 127]}, [-128, 127]) for bits in (8, 16, 32)),
        ("INT64", {"int64_contents": [-(2**63), 1]}, [-(2**63), 1]),
        ("FP32", {"fp32_contents": [0.5, float("inf")]}, [0.5, float("inf")]),
        ("FP64", {"fp64_contents": [0.1, -1e300]}, [0.1, -1e300]),
        ("BYTES", {"bytes_contents": [b"a", b"\xff"]}, [b"a", b"\xff"]),
    ],
)
def test_contents_by_type(datatype, contents, values):
    answer = messages.ModelInferResponse(
        model_name="m", outputs=[{"name": "o", "datatype": datatype, "shape": [2], "contents": contents}]
    )
    (output,) = rpc.decode(answer.SerializeToString()).outputs
    assert (output.name, output.datatype, output.values.tolist()) == ("o", datatype, values)


def test_answers_parameters_are_no_matter():
    answer = messages.ModelInferResponse(
        parameters={"sequence_end": messages.InferParameter(bool_param=True)},
        outputs=[{"name": "o", "datatype": "UINT8", "shape": [1], "parameters": {"x": {"double_param": 0.5}}}],
        raw_output_contents=[b"\7"],
    )
    assert rpc.decode(answer.SerializeToString()).outputs[0].values.tolist() == [7]


def test_metadata_and_readiness():
    server = messages.ServerMetadataResponse(name="triton", version="2.51.0", extensions=["statistics"])
    found = rpc.read_server(server.SerializeToString())
    assert (found.name, found.version, found.extensions) == ("triton", "2.51.0", ("statistics",))
    model = messages.ModelMetadataResponse(
        name="m",
        versions=["1"],
        platform="python",
        inputs=[{"name": "x", "datatype": "BF16", "shape": [-1, 4]}],
        outputs=[{"name": "y", "datatype": "FP16", "shape": [-1]}],
    )
    said = rpc.read_model(model.SerializeToString())
    assert (said.name, said.versions, said.platform) == ("m", ("1",), "python")
    assert said.inputs == (TensorMetadata("x", "BF16", (-1, 4)),)
    assert said.outputs == (TensorMetadata("y", "FP16", (-1,)),)
    asked = messages.ModelReadyRequest.FromString(rpc.about_model("m", "1"))
    assert (asked.name, asked.version) == ("m", "1")
    for value in (True, False):
        assert rpc.read_live(messages.ServerLiveResponse(live=value).SerializeToString()) is value
        assert rpc.read_ready(messages.ServerReadyResponse(ready=value).SerializeToString()) is value
        assert rpc.read_ready(messages.ModelReadyResponse(ready=value).SerializeToString()) is value


FP32 = {"name": "o", "datatype": "FP32", "shape": [2]}
MALFORMED = {
    "datatype": ([{**FP32, "datatype": "FP8"}], [b""], r"outputs\[0\].datatype: 'FP8'"),
    "no datatype": ([{"name": "o", "shape": [1]}], [], r"outputs\[0\].datatype: ''"),
    "shape": ([{**FP32, "shape": [-1]}], [b""], r"outputs\[0\].shape: -1 is no size"),
    "raw too short": ([FP32], [b"1234"], r"raw_output_contents\[0\]: 4 bytes of FP32, where shape \[2\] takes 8"),
    "raw of fewer": ([FP32, FP32], [b"12345678"], "raw_output_contents: 1, of 2 outputs"),
    "raw of more": ([FP32], [b"12345678", b""], "raw_output_contents: 2, of 1 outputs"),
    "given twice": (
        [{**FP32, "contents": {"fp32_contents": [1, 2]}}],
        [b"12345678"],
        r"outputs\[0\].contents: given, though raw_output_contents are, too",
    ),
    "no contents": ([FP32], [], r"outputs\[0\].contents.fp32_contents: 0 values, where shape \[2\] takes 2"),
    "another field": ([{**FP32, "contents": {"fp64_contents": [1, 2]}}], [], "fp32_contents: 0 values"),
    "too many": ([{**FP32, "contents": {"fp32_contents": [1, 2, 3]}}], [], "fp32_contents: 3 values"),
    "out of range": (
        [{"name": "o", "datatype": "INT8", "shape": [1], "contents": {"int_contents": [128]}}],
        [],
        r"outputs\[0\].contents.int_contents: 128 is no INT8",
    ),
    "half by type": (
        [{"name": "o", "datatype": "FP16", "shape": [1], "contents": {"bytes_contents": [b"12"]}}],
        [],
        r"raw_output_contents: missing, and outputs\[0\] is FP16, which is only sent raw",
    ),
    "BYTES": ([{**FP32, "datatype": "BYTES"}], [b"\1\0\0\0a\1"], r"raw_output_contents\[0\]: value 1 of BYTES ends"),
}


@pytest.mark.parametrize(("outputs", "raw", "said"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_answer_is_an_error_with_the_field_named(outputs, raw, said):
    answer = messages.ModelInferResponse(outputs=outputs, raw_output_contents=raw)
    with pytest.raises(ValueError, match=said):
        rpc.decode(answer.SerializeToString())


@pytest.mark.parametrize("read", [rpc.decode, rpc.read_server, rpc.read_model, rpc.read_live, rpc.read_ready])
def test_what_is_no_message_says_so(read):
    with pytest.raises(ValueError, match=r"the answer is no \w+Response"):
        read(b"\xff\xff\xff")


def test_malformed_metadata_are_an_error_with_the_field_named():
    for tensor, said in [
        ({"name": "x", "datatype": "", "shape": [1]}, r"inputs\[0\].datatype: ''"),
        ({"name": "x", "datatype": "FP32", "shape": [-2]}, r"inputs\[0\].shape: -2 is no size"),
    ]:
        with pytest.raises(ValueError, match=said):
            rpc.read_model(messages.ModelMetadataResponse(name="m", inputs=[tensor]).SerializeToString())
