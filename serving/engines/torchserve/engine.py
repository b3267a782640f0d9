"""TorchServe as Tandem knows it. Imports the standard library only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from serving.engines.container import Container, Deployment
from serving.engines.engine import (
    Call,
    Download,
    Fact,
    Launch,
    Ports,
    Question,
    Rendering,
    Served,
    Site,
    Switch,
)
from serving.engines.torchserve.container import CONTAINER, DEPLOYMENT
from serving.engines.torchserve.facts import FACTS

if TYPE_CHECKING:
    import numpy as np

    from models.bundle import Bundle
    from serving.profile import ServingProfile
    from serving.target import Target


class TorchServe:
    """See `Engine`."""

    id = "torchserve"
    title = "TorchServe"
    framework = "PyTorch"
    export = "torchscript"
    stands_in_for = ""
    warning = "TorchServe is archived upstream: 0.12.0 (September 2024) is its last release and gets no fixes."
    default_target = "pytorch"
    program = ""
    download: Download | None = None
    module = ""
    packages: tuple[str, ...] = ("torch", "torchserve")
    protocols: tuple[str, ...] = ("grpc", "rest", "rest-binary")
    dialect: Path | None = Path(__file__).with_name("metrics.toml")
    metrics_path = "/metrics"
    facts: tuple[Fact, ...] = FACTS
    container: Container | None = CONTAINER
    deployment: Deployment | None = DEPLOYMENT
    endpoint_only = False
    takes_encoded = True

    def call(self, target: Target, protocol: str) -> Call:
        """See `Engine.call`."""
        from serving.engines.torchserve import calls

        return calls.call(target, protocol)

    def metadata(self, target: Target, protocol: str) -> Question | None:  # noqa: ARG002 - as the protocol has it
        """Its inference API describes no model's inputs: what they are is the handler's business."""
        return None

    def why_not(self, bundle: Bundle, protocol: str) -> str:  # noqa: ARG002 - as the protocol has it
        """Nothing is in the way."""
        return ""

    def version(self, program: Path | None = None) -> str:  # noqa: ARG002 - as the protocol has it
        """See `Engine.version`."""
        from serving.engines.torchserve import java, server

        return server.versions(java.find())

    def render(self, profile: ServingProfile, models: Sequence[Served], site: Site) -> Rendering:
        """See `Engine.render`."""
        from serving.engines.torchserve import rendering

        return rendering.render(profile, models, site)

    def launch(
        self,
        bundles: Sequence[Bundle],
        profile: ServingProfile,
        folder: Path,
        *,
        ports: Ports,
        cores: Sequence[int],
        program: Path | None = None,  # noqa: ARG002 - as the protocol has it
    ) -> Launch:
        """See `Engine.launch`."""
        from serving.engines.torchserve import server

        return server.launch(bundles, profile, folder, ports=ports, cores=cores)

    def in_force(self, log: str) -> tuple[Switch, ...]:
        """See `Engine.in_force`."""
        from serving.engines import torch_switches
        from serving.engines.torchserve import workers

        return (*torch_switches.in_force(log), *workers.transport(log))

    def model_time(self, bundle: Bundle, profile: ServingProfile) -> Callable[[np.ndarray], object]:
        """The TorchScript file as TorchServe's worker runs it."""
        from serving.engines import torchscript_in_process

        return torchscript_in_process.load(bundle, profile)

    def decoder(self, bundle: Bundle) -> Callable[[Sequence[bytes]], object] | None:
        """The archive's own decoder, which the handler calls file by file."""
        import importlib.util
        import zipimport

        specification = zipimport.zipimporter(str(bundle.archive)).find_spec("image_decoding")
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        decoded, shape = module.decoded, bundle.input_shape
        return lambda files: [decoded(file, shape) for file in files]
