"""Triton as Tandem knows it. Imports the standard library only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from serving.engines.container import Container, Deployment
from serving.engines.engine import Call, Fact, Launch, Ports, Question, Rendering, Served, Site, Switch, Wheel
from serving.engines.triton.backends import ONNX_RUNTIME, TORCHSCRIPT, Library
from serving.engines.triton.container import CONTAINER, DEPLOYMENT
from serving.engines.triton.facts import FACTS

if TYPE_CHECKING:
    import numpy as np

    from models.bundle import Bundle
    from serving.profile import ServingProfile
    from serving.target import Target

ROOT = Path(__file__).resolve().parents[3]
# Its metadata asks for numpy < 2, so it must not share an environment with Tandem; what is used of it does not.
WHEEL = Wheel(
    lock=ROOT / "requirements-triton.lock",
    program="pytriton/tritonserver/bin/tritonserver",
    machine="x86_64",
    size_mb=60,
)


class Triton:
    """See `Engine`."""

    id = "triton"
    title = "Triton"
    framework = "ONNX Runtime"
    export = "onnx"
    stands_in_for = ""
    warning = ""
    default_target = "triton"
    endpoint_only = False
    takes_encoded = False
    program = ""
    download: Wheel | None = WHEEL
    module = ""
    packages: tuple[str, ...] = ("onnxruntime",)
    protocols: tuple[str, ...] = ("grpc", "rest", "rest-binary")
    dialect: Path | None = Path(__file__).with_name("metrics.toml")
    metrics_path = "/metrics"
    facts: tuple[Fact, ...] = FACTS
    container: Container | None = CONTAINER
    deployment: Deployment | None = DEPLOYMENT
    library: Library = ONNX_RUNTIME

    def call(self, target: Target, protocol: str) -> Call:
        """See `Engine.call`."""
        from serving.engines import open_inference_calls

        return open_inference_calls.call(target, protocol)

    def metadata(self, target: Target, protocol: str) -> Question | None:
        """See `Engine.metadata`."""
        from serving.engines import open_inference_calls

        return open_inference_calls.question(target, protocol)

    def why_not(self, bundle: Bundle, protocol: str) -> str:  # noqa: ARG002 - as the protocol has it
        """Nothing is in the way."""
        return ""

    def version(self, program: Path | None = None) -> str:
        """See `Engine.version`."""
        from serving.engines.triton import server

        return server.version(self, self.library, program)

    def render(self, profile: ServingProfile, models: Sequence[Served], site: Site) -> Rendering:
        """For Triton's own backend, which containers have; `launch` renders for the Python backend."""
        from serving.engines.triton import rendering

        return rendering.render(self.library, self.library.own, profile, models, site)

    def launch(
        self,
        bundles: Sequence[Bundle],
        profile: ServingProfile,
        folder: Path,
        *,
        ports: Ports,
        cores: Sequence[int],
        program: Path | None = None,
    ) -> Launch:
        """See `Engine.launch`."""
        from serving.engines.triton import server

        return server.launch(self, self.library, bundles, profile, folder, ports=ports, cores=cores, program=program)

    def in_force(self, log: str) -> tuple[Switch, ...]:
        """See `Engine.in_force`."""
        from serving.engines import torch_switches

        return torch_switches.in_force(log)

    def model_time(self, bundle: Bundle, profile: ServingProfile) -> Callable[[np.ndarray], object]:
        """The ONNX file as the Python backend runs it."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = profile.threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(bundle.onnx), options, providers=["CPUExecutionProvider"])
        return lambda rows: session.run(None, {"images": rows})

    def decoder(self, bundle: Bundle) -> Callable[[Sequence[bytes]], object] | None:  # noqa: ARG002 - as the protocol has it
        """Its models take tensors alone."""
        return None


class TritonTorchScript(Triton):
    """The same server around PyTorch."""

    id = "triton-torchscript"
    framework = "TorchScript in PyTorch"
    export = "torchscript"
    default_target = "triton-torchscript"
    # Triton's own backend has a PyTorch of its own, and a TorchScript file does not load in an older one than wrote it.
    container: Container | None = None
    deployment: Deployment | None = None
    packages: tuple[str, ...] = ("torch",)
    library: Library = TORCHSCRIPT

    def model_time(self, bundle: Bundle, profile: ServingProfile) -> Callable[[np.ndarray], object]:
        """The TorchScript file as the Python backend runs it."""
        from serving.engines import torchscript_in_process

        return torchscript_in_process.load(bundle, profile)
