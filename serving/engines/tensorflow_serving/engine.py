"""TensorFlow Serving as Tandem knows it. Imports the standard library only."""

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
from serving.engines.tensorflow_serving.container import CONTAINER, DEPLOYMENT, DOWNLOAD
from serving.engines.tensorflow_serving.facts import FACTS

if TYPE_CHECKING:
    import numpy as np

    from models.bundle import Bundle
    from serving.engines.tensorflow_serving.identity import Program
    from serving.profile import ServingProfile
    from serving.target import Target


class TensorFlowServing:
    """See `Engine`."""

    id = "tensorflow-serving"
    title = "TensorFlow Serving"
    framework = "TensorFlow"
    export = "savedmodel"
    stands_in_for = ""
    warning = ""
    default_target = "tensorflow"
    program = "tensorflow_model_server"
    download: Download | None = DOWNLOAD
    module = ""
    packages: tuple[str, ...] = ("tensorflow", "tensorflow-serving-api")
    protocols: tuple[str, ...] = ("grpc", "rest", "rest-binary")
    dialect: Path | None = Path(__file__).with_name("metrics.toml")
    metrics_path = "/monitoring/prometheus/metrics"
    facts: tuple[Fact, ...] = FACTS
    container: Container | None = CONTAINER
    deployment: Deployment | None = DEPLOYMENT
    endpoint_only = False
    takes_encoded = True

    def call(self, target: Target, protocol: str) -> Call:
        """See `Engine.call`."""
        from serving.engines.tensorflow_serving import calls

        return calls.call(target, protocol)

    def metadata(self, target: Target, protocol: str) -> Question | None:
        """See `Engine.metadata`."""
        from serving.engines.tensorflow_serving import metadata

        return metadata.question(target, protocol)

    def why_not(self, bundle: Bundle, protocol: str) -> str:
        """See `Engine.why_not`: a user's SavedModel that is served as it came may lack the signature for bytes."""
        from serving.engines.tensorflow_serving.calls import BYTES_SIGNATURE

        file = bundle.own_files.get("savedmodel")
        if protocol != "rest-binary" or file is None or file["around"]:
            return ""
        if BYTES_SIGNATURE.encode() in (bundle.savedmodel / str(bundle.version) / "saved_model.pb").read_bytes():
            return ""
        name = file["name"]
        return f"SAVEDMODEL={name} is served as it came, without a signature {BYTES_SIGNATURE}: leave {protocol} out"

    def version(self, program: Path | None = None) -> str:
        """See `Engine.version`."""
        return self.runs(program).version

    def render(self, profile: ServingProfile, models: Sequence[Served], site: Site) -> Rendering:
        """See `Engine.render`."""
        from serving.engines.tensorflow_serving import rendering

        return rendering.render(profile, models, site)

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
        from serving.engines.tensorflow_serving import server

        return server.launch(self, self.runs(program), bundles, profile, folder, ports=ports, cores=cores)

    def runs(self, named: Path | None = None) -> Program:
        """What runs: the program that was ``named``, else the one on the PATH. Raises `Problem`."""
        from serving.engines.tensorflow_serving import server

        return server.find(self.program, named)

    def in_force(self, log: str) -> tuple[Switch, ...]:
        """See `Engine.in_force`."""
        from serving.engines import gpu, tf32
        from serving.engines.tensorflow_serving import onednn

        return (*onednn.in_force(log), *tf32.in_force(log), *gpu.in_force(log))

    def model_time(self, bundle: Bundle, profile: ServingProfile) -> Callable[[np.ndarray], object]:
        """The SavedModel's serving signature."""
        import os

        from serving.engines import gpu, tf32
        from serving.engines.tensorflow_serving import onednn

        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        for name in (*onednn.VARIABLE.unset(profile), *tf32.unset(profile)):
            os.environ.pop(name, None)
        os.environ.update(
            {**onednn.VARIABLE.variables(profile), **tf32.variables(profile), **gpu.tensorflow_variables(profile)}
        )
        if profile.device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu.NONE
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(profile.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        model = tf.saved_model.load(str(bundle.savedmodel / str(bundle.version)))
        signature = model.signatures["serving_default"]

        def call(rows: np.ndarray) -> object:
            (answer,) = signature(images=tf.constant(rows)).values()
            return answer.numpy()

        return call

    def decoder(self, bundle: Bundle) -> Callable[[Sequence[bytes]], object] | None:
        """The part of the signature for files that comes before the network."""
        import tensorflow as tf

        model = tf.saved_model.load(str(bundle.savedmodel / str(bundle.version)))

        def call(files: Sequence[bytes]) -> object:
            return model.decode(tf.constant(list(files))).numpy()

        return call
