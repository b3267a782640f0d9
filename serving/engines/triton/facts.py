"""What the report's checklist states of Triton."""

from __future__ import annotations

from serving.engines.engine import Fact, Topic

_SERVER = "https://github.com/triton-inference-server/server"
_DOCS = f"{_SERVER}/blob/main/docs/user_guide"

FACTS = (
    Fact(
        Topic.EXPERIENCE,
        "Triton runs a file by a backend, which a configuration file for each model names; pre- and post-processing "
        "are models of their own, in Python if wanted, joined in an ensemble.",
        "Triton: ensemble models",
        f"{_DOCS}/ensemble_models.md",
    ),
    Fact(
        Topic.NEEDS,
        "Triton has backends for ONNX Runtime, PyTorch, TensorRT, OpenVINO and Python, among others, and others can "
        "be written.",
        "Triton: backends",
        "https://github.com/triton-inference-server/backend",
    ),
    Fact(
        Topic.NEEDS,
        "Triton speaks the Open Inference Protocol over REST and gRPC, as KServe and others do: clients need not "
        "change with the server.",
        "Triton: inference protocols",
        f"{_SERVER}/blob/main/docs/customization_guide/inference_protocols.md",
    ),
    Fact(
        Topic.SCALE,
        "Triton batches requests that wait together; without a queue delay it takes those that are there and waits for "
        "none.",
        "Triton: batchers",
        f"{_DOCS}/batcher.md",
    ),
    Fact(
        Topic.HARDWARE,
        "Triton runs on GPUs, x86 and Arm CPUs, and AWS Inferentia; NVIDIA publishes it as container images.",
        "Triton’s README",
        _SERVER,
    ),
    Fact(
        Topic.DOCUMENTATION,
        "Triton’s documentation lies beside its code, with tutorials in a repository of their own.",
        "Triton’s documentation",
        "https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/index.html",
    ),
    Fact(
        Topic.MAINTENANCE,
        "Triton is released by NVIDIA about once a month; 26.10 is the newest that was seen here. The package that "
        "this project starts as a process, nvidia-pytriton 0.7.0, carries 2.51.0, which is 24.10.",
        "Triton: release notes",
        "https://docs.nvidia.com/deeplearning/triton-inference-server/release-notes/index.html",
    ),
)
