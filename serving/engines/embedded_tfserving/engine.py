"""The embedded server as Tandem knows it: TensorFlow Serving in calls, metrics and configuration, not in what runs.

Imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from serving.engines.container import Container, Deployment
from serving.engines.embedded_tfserving.container import CONTAINER, DEPLOYMENT
from serving.engines.embedded_tfserving.identity import NAME
from serving.engines.engine import Download, Rendering, Served, Site
from serving.engines.tensorflow_serving.engine import TensorFlowServing

if TYPE_CHECKING:
    from serving.engines.tensorflow_serving.identity import Program
    from serving.profile import ServingProfile


class EmbeddedTensorFlowServing(TensorFlowServing):
    """See `Engine`."""

    id = NAME
    title = NAME
    stands_in_for = TensorFlowServing.id
    warning = (
        f"{NAME} is this project's own server around TensorFlow: it speaks TensorFlow Serving's API, but its speed is "
        f"not TensorFlow Serving's. make {TensorFlowServing.id} fetches the production server for the runs that follow."
    )
    default_target = NAME
    program = ""
    download: Download | None = None
    module = "serving.engines.embedded_tfserving.main"
    container: Container | None = CONTAINER
    deployment: Deployment | None = DEPLOYMENT

    def render(self, profile: ServingProfile, models: Sequence[Served], site: Site) -> Rendering:
        """TensorFlow Serving's, and the address that it binds to; its models do not share batch threads."""
        rendering = super().render(profile, models, site)
        notes = {}
        if len(models) > 1:
            notes["instances"] = (
                f"Each of the embedded server's {len(models)} models has batch threads of its own; TF Serving's share "
                "them."
            )
        knobs = [replace(knob, note=notes.get(knob.name, knob.note)) for knob in rendering.knobs]
        arguments = (*rendering.arguments, f"--bind_address={site.host}")
        return replace(rendering, arguments=arguments, knobs=tuple(knobs))

    def runs(self, named: Path | None = None) -> Program:  # noqa: ARG002 - as the protocol has it
        """This package's own server."""
        import sys
        from importlib.metadata import version

        from serving.engines.tensorflow_serving.identity import Program

        return Program(
            (sys.executable, "-m", "serving.engines.embedded_tfserving"), f"tensorflow {version('tensorflow')}"
        )
