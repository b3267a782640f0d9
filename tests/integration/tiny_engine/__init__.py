"""An engine that is no part of Tandem: ONNX Runtime behind a REST and a gRPC API of its own. A test copies this folder
elsewhere and names it in TANDEM_ENGINES."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from serving.engines.engine import (
    Call,
    Download,
    Fact,
    Knob,
    KnobKind,
    Launch,
    Ports,
    Question,
    Rendering,
    Served,
    Site,
    Switch,
    Topic,
)

if TYPE_CHECKING:
    import numpy as np

    from models.bundle import Bundle
    from serving.profile import ServingProfile
    from serving.target import Target


class TinyOnnx:
    id = "tiny-onnx"
    title = "Tiny ONNX"
    framework = "ONNX Runtime"
    export = "onnx"
    stands_in_for = ""
    warning = ""
    default_target = "onnx"
    program = ""
    download: Download | None = None
    module = ""
    packages: tuple[str, ...] = ("onnxruntime",)
    protocols: tuple[str, ...] = ("grpc", "rest")
    dialect: Path | None = None
    metrics_path = ""
    facts: tuple[Fact, ...] = (
        Fact(Topic.EXPERIENCE, "Tiny ONNX is made for a test.", "its only source", "https://example.org/tiny-onnx"),
    )
    container = None
    deployment = None
    endpoint_only = False
    takes_encoded = False

    def call(self, target: Target, protocol: str) -> Call:
        path = "/tiny.Model/Predict" if protocol == "grpc" else f"/{target.model}/predict"
        return Call(path, "application/octet-stream", _raw, partial(_probabilities, target.classes))

    def metadata(self, target: Target, protocol: str) -> Question | None:
        return None

    def version(self, program: Path | None = None) -> str:
        import importlib.metadata

        return importlib.metadata.version("onnxruntime")

    def render(self, profile: ServingProfile, models: Sequence[Served], site: Site) -> Rendering:
        none = KnobKind.NO_COUNTERPART
        return Rendering(
            files={},
            arguments=(f"--threads={profile.threads}",),
            knobs=tuple(
                Knob(name, "--threads", value, "threads", asked=value)
                if name == "threads"
                else Knob(name, "", None, kind=none, asked=value)
                for name, value in profile.to_dict().items()
            ),
        )

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
        import onnxruntime

        from serving.ports import LOOPBACK, choose

        rest, grpc = choose([(ports.rest, "Tiny ONNX's REST API"), (ports.grpc, "Tiny ONNX's gRPC API")])
        chosen = Ports(rest=rest, grpc=grpc, metrics=0)
        served = [Served(one.model, str(one.version), str(one.onnx.resolve())) for one in bundles]
        rendering = self.render(profile, served, Site(LOOPBACK, chosen, str(folder), "", len(cores)))
        rendering.write(folder)
        server = Path(__file__).with_name("server.py")
        models = [f"{one.name}={one.path}" for one in served]
        return Launch(
            command=[sys.executable, str(server), str(rest), str(grpc), *rendering.arguments, *models],
            environment={},
            ports=chosen,
            version=onnxruntime.__version__,
            rendering=rendering,
            ready=lambda log: "serving" in log,
        )

    def why_not(self, bundle: Bundle, protocol: str) -> str:
        return ""

    def in_force(self, log: str) -> tuple[Switch, ...]:
        return ()

    def model_time(self, bundle: Bundle, profile: ServingProfile) -> Callable[[np.ndarray], object]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = profile.threads
        session = onnxruntime.InferenceSession(str(bundle.onnx), options)
        return lambda rows: session.run(None, {"images": rows})

    def decoder(self, bundle: Bundle) -> Callable[[Sequence[bytes]], object] | None:
        return None


def _raw(images: np.ndarray) -> bytes:
    """Height, width and channels, one number a byte, then the pixels."""
    return bytes(images.shape[1:]) + images.tobytes()


def _probabilities(classes: int, body: bytes) -> np.ndarray:
    import numpy as np

    if not body or len(body) % (4 * classes):
        raise ValueError(f"the answer is no float32 (N, {classes}): {body[:200]!r}")
    return np.frombuffer(body, "<f4").reshape(-1, classes)


ENGINE = TinyOnnx()
