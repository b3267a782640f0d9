"""What the report's checklist states of TorchServe."""

from __future__ import annotations

from serving.engines.engine import Fact, Topic

FACTS = (
    Fact(
        Topic.EXPERIENCE,
        "TorchServe runs a handler written in Python: pre- and post-processing can be any Python code.",
        "TorchServe: custom service",
        "https://docs.pytorch.org/serve/custom_service.html",
    ),
    Fact(
        Topic.NEEDS,
        "TorchScript, which TorchServe loads here, is deprecated in favour of torch.export.",
        "PyTorch: TorchScript",
        "https://docs.pytorch.org/docs/stable/jit.html",
    ),
    Fact(
        Topic.NEEDS,
        "TorchServe registers and scales models and versions over a management API while it runs.",
        "TorchServe: management API",
        "https://docs.pytorch.org/serve/management_api.html",
    ),
    Fact(
        Topic.SCALE,
        "TorchServe batches requests that wait together; how long a batch may wait trades latency for throughput.",
        "TorchServe: batch inference",
        "https://docs.pytorch.org/serve/batch_inference_with_ts.html",
    ),
    Fact(
        Topic.HARDWARE,
        "TorchServe can be installed for CPU, CUDA and ROCm.",
        "TorchServe: getting started",
        "https://docs.pytorch.org/serve/getting_started.html",
    ),
    Fact(
        Topic.DOCUMENTATION,
        "TorchServe’s documentation is still online and carries the notice that it is no longer maintained.",
        "TorchServe’s documentation",
        "https://docs.pytorch.org/serve/",
    ),
    Fact(
        Topic.MAINTENANCE,
        "TorchServe is no longer actively maintained: no updates, bug fixes or security patches are planned. Its "
        "repository was archived on 7 August 2025; 0.12.0 (September 2024) is its last release.",
        "TorchServe’s README",
        "https://github.com/pytorch/serve",
    ),
)
