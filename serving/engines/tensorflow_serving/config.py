"""TensorFlow Serving's native configuration, rendered from the one `ServingProfile`.

The same files and flags start the real ``tensorflow_model_server`` and the embedded server.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.problem import Problem
from serving import ports
from serving.profile import ServingProfile

METRICS_PATH = "/monitoring/prometheus/metrics"
REST_TIMEOUT_MS = 120_000
PROGRAM = "tensorflow_model_server"
EMBEDDED = "embedded-tfserving"
MODELS = "models.txt"


@dataclass(frozen=True)
class Engine:
    """What serves the SavedModel: a command to put flags behind, and what to know of it beside the figures."""

    name: str
    version: str
    command: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rendering:
    """Configuration files (name to text), flags, the tuning for the report, and what has no exact counterpart."""

    files: dict[str, str]
    flags: tuple[str, ...]
    settings: dict[str, Any]
    notes: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write the files into ``folder``, and the command line's flags for the reader."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (folder / name).write_text(text)
        (folder / "flags.txt").write_text("\n".join(self.flags) + "\n")


def embedded() -> Engine:
    """The embedded server, on loopback."""
    command = (sys.executable, "-m", "serving", "embedded-tfserving", f"--bind_address={ports.LOOPBACK}")
    notes = ("The embedded server computes with oneDNN (TF_ENABLE_ONEDNN_OPTS=1) unless told otherwise.",)
    return Engine(EMBEDDED, f"tensorflow {version('tensorflow')}", command, notes)


def find_engine(model_server: Path | None = None) -> Engine:
    """The real server (``model_server``, else on PATH), else the embedded one.

    Raises `Problem` where ``model_server`` is given and does not run.
    """
    program = str(model_server) if model_server else shutil.which(PROGRAM)
    if program is None:
        return embedded()
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Problem(f"{program} --version fails ({error}): name a working {PROGRAM}") from None
    found = re.search(r"ModelServer:\s*(\S+)", done.stdout)
    library = re.search(r"Library:\s*(\S+)", done.stdout)
    text = f"{found[1] if found else 'unknown'}" + (f" (tensorflow {library[1]})" if library else "")
    return Engine("tensorflow-serving", text, (program,))


def render(
    profile: ServingProfile,
    *,
    model: str,
    model_base_path: str,
    configuration: str,
    grpc_port: int,
    rest_port: int,
    connection_age_s: float | None = None,
    beside: Mapping[str, str] | None = None,
) -> Rendering:
    """Render batching.txt, monitoring.txt and the flags; models.txt where there are several models.

    ``model_base_path`` and ``configuration`` (the folder of the files) are paths as the server will see them;
    ``connection_age_s``: the server asks gRPC clients to connect anew after so many seconds (None: never); ``beside``:
    other models of the same server and their base paths.
    """
    served = {model: model_base_path, **(beside or {})}
    queue = math.ceil(profile.queue_capacity / profile.max_batch_size)
    computing = profile.instances * profile.max_batch_size
    # Each model has a queue of its own.
    grpc_threads = len(served) * (profile.queue_capacity + computing) + 16
    rest_threads = max(16, 4 * computing * len(served))
    notes = [
        f"TF Serving's queue counts batches: queue_capacity = {profile.queue_capacity} became "
        f"{queue} batches of up to {profile.max_batch_size} images.",
        f"TF Serving refuses gRPC calls beyond its threads (default 4 x CPUs): "
        f"grpc_max_threads raised to {grpc_threads}.",
        f"A REST call holds a thread while its batch fills: rest_api_num_threads raised to {rest_threads}; "
        f"REST calls beyond that wait outside the batching queue.",
    ]
    micros = round(profile.batch_timeout_ms * 1000)
    batching = f"""\
# Rendered by Tandem from its ServingProfile; changes here are lost.
# {notes[0]}
max_batch_size {{ value: {profile.max_batch_size} }}
batch_timeout_micros {{ value: {micros} }}
num_batch_threads {{ value: {profile.instances} }}
max_enqueued_batches {{ value: {queue} }}
"""
    monitoring = f'prometheus_config {{ enable: true, path: "{METRICS_PATH}" }}\n'
    flags = {
        "port": grpc_port,
        "rest_api_port": rest_port,
        **_which(served, configuration),
        "enable_batching": "true",
        "batching_parameters_file": f"{configuration}/batching.txt",
        "monitoring_config_file": f"{configuration}/monitoring.txt",
        "grpc_max_threads": grpc_threads,
        "rest_api_num_threads": rest_threads,
        "rest_api_timeout_in_ms": REST_TIMEOUT_MS,
        "tensorflow_intra_op_parallelism": profile.threads,
        "tensorflow_inter_op_parallelism": profile.instances,
    }
    if connection_age_s:
        flags["grpc_channel_arguments"] = f"grpc.max_connection_age_ms={round(connection_age_s * 1000)}"
    settings = {
        **profile.to_dict(),
        "batch_timeout_micros": micros,
        "num_batch_threads": profile.instances,
        "max_enqueued_batches": queue,
        "grpc_max_threads": grpc_threads,
        "rest_api_num_threads": rest_threads,
        "tensorflow_intra_op_parallelism": profile.threads,
        "tensorflow_inter_op_parallelism": profile.instances,
    }
    files = {"batching.txt": batching, "monitoring.txt": monitoring}
    if beside:
        files[MODELS] = _model_config(served)
    return Rendering(files, tuple(f"--{key}={value}" for key, value in flags.items()), settings, tuple(notes))


def sharing(engine: Engine, models: int) -> tuple[str, ...]:
    """Notes on how an engine's batch threads serve so many models."""
    if models == 1:
        return ()
    if engine.name == EMBEDDED:
        return (
            f"Each of the embedded server's {models} models has batch threads of its own; TF Serving's share them.",
        )
    return (f"TF Serving's {models} models share its batch threads; each has a queue of its own.",)


def _which(served: Mapping[str, str], configuration: str) -> dict[str, Any]:
    """The flags that say which models to serve."""
    if len(served) > 1:
        return {"model_config_file": f"{configuration}/{MODELS}"}
    ((model, base_path),) = served.items()
    return {"model_name": model, "model_base_path": base_path}


def _model_config(served: Mapping[str, str]) -> str:
    """A ModelServerConfig in protobuf's text format."""
    models = "".join(
        f'  config {{ name: {_quoted(name)} base_path: {_quoted(path)} model_platform: "tensorflow" }}\n'
        for name, path in served.items()
    )
    return f"# Rendered by Tandem; changes here are lost.\nmodel_config_list {{\n{models}}}\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def command_line(engine: Engine, rendering: Rendering) -> Sequence[str]:
    """The whole command that starts ``engine``."""
    return [*engine.command, *rendering.flags]
