"""TorchServe's native configuration, rendered from the one `ServingProfile`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.engines.torchserve.rendering import LOG4J2_XML, METRICS_YAML, _escape, archive_version
from serving.ports import LOOPBACK
from serving.profile import ServingProfile

__all__ = ["LOG4J2_XML", "METRICS_YAML", "archive_version"]
RESPONSE_TIMEOUT_S = 120
MAX_MESSAGE_BYTES = 100 * 1024 * 1024
METRICS_PATH = "/metrics"


@dataclass(frozen=True)
class Ports:
    """TorchServe's five ports."""

    rest: int
    management: int
    metrics: int
    grpc: int
    grpc_management: int


@dataclass(frozen=True)
class Rendering:
    """Configuration files (name to text), the tuning for the report, and where the profile has no exact counterpart."""

    files: dict[str, str]
    settings: dict[str, Any]
    notes: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write the files into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (folder / name).write_text(text)


def render(
    profile: ServingProfile,
    *,
    model: str,
    model_version: str,
    model_store: str,
    metrics_config: str,
    ports: Ports,
    host: str = LOOPBACK,
    cores: int = 1,
    connection_age_s: float | None = None,
    beside: Mapping[str, str] | None = None,
) -> Rendering:
    """Render config.properties, metrics.yaml and log4j2.xml.

    ``model_store`` and ``metrics_config`` are paths as the server will see them; ``host`` is the address of the
    inference and metrics APIs (management stays on loopback); ``cores`` is the number of CPUs the server may use;
    ``connection_age_s``: the server asks gRPC clients to connect anew after so many seconds (None: never), so that they
    find new replicas and leave those that stop; ``beside``: other models of the same server and their versions, whose
    archives lie in the model store, too.
    """
    delay = max(1, math.floor(profile.batch_timeout_ms + 0.5))
    netty = max(1, min(4, cores // 2))
    notes = [
        f"TorchServe's batchSize counts requests, TF Serving's counts images: a batch holds up to "
        f"{profile.max_batch_size} requests of any number of images.",
        f"TorchServe computes batches in {profile.instances} worker process(es); TF Serving in threads of one process.",
    ]
    if delay != profile.batch_timeout_ms:
        notes.append(
            f"TorchServe's maxBatchDelay is whole milliseconds from 1 (it reads 0 as its default of 100): "
            f"batch_timeout_ms = {profile.batch_timeout_ms:g} became {delay}."
        )
    served = {model: model_version, **(beside or {})}
    if beside:
        notes.append(
            f"Each of TorchServe's {len(served)} models has {profile.instances} worker process(es) and a queue of its "
            "own."
        )
    tuning = {
        "minWorkers": profile.instances,
        "maxWorkers": profile.instances,
        "batchSize": profile.max_batch_size,
        "maxBatchDelay": delay,
        "responseTimeout": RESPONSE_TIMEOUT_S,
    }
    models = {
        name: {version: {"defaultVersion": True, "marName": f"{name}.mar", **tuning}}
        for name, version in served.items()
    }
    comments = "".join(f"# {note}\n" for note in notes)
    gpus = "number_of_gpu=0\n" if profile.device == "cpu" else ""
    age = f"grpc_inference_max_connection_age_ms={round(connection_age_s * 1000)}\n" if connection_age_s else ""
    properties = f"""\
# Rendered by Tandem from its ServingProfile; changes here are lost.
{comments}
inference_address=http://{host}:{ports.rest}
metrics_address=http://{host}:{ports.metrics}
grpc_inference_address={host}
grpc_inference_port={ports.grpc}
{age}# Management is for this machine only, may register no model from any URL or file, and needs no token.
management_address=http://{LOOPBACK}:{ports.management}
grpc_management_address={LOOPBACK}
grpc_management_port={ports.grpc_management}
allowed_urls=none
enable_model_api=false
disable_token_authorization=true
enable_envvars_config=false

model_store={_escape(model_store)}
load_models={",".join(f"{name}={name}.mar" for name in served)}
models={_escape(json.dumps(models))}
# queue_capacity: counts requests (TF Serving's queue counts batches)
job_queue_size={profile.queue_capacity}
default_response_timeout={RESPONSE_TIMEOUT_S}
max_request_size={MAX_MESSAGE_BYTES}
max_response_size={MAX_MESSAGE_BYTES}
{gpus}
# Few event loops: more of them compete with the workers for the same cores.
number_of_netty_threads={netty}
netty_client_threads={netty}
# The handler parses JSON itself, faster than the worker does.
decode_input_request=false

metrics_mode=prometheus
metrics_config={_escape(metrics_config)}
model_metrics_auto_detect=false
# They start a Python process every minute; node metrics come from elsewhere.
disable_system_metrics=true
"""
    settings = {
        **profile.to_dict(),
        **tuning,
        "job_queue_size": profile.queue_capacity,
        "number_of_netty_threads": netty,
        "netty_client_threads": netty,
    }
    files = {"config.properties": properties, "metrics.yaml": METRICS_YAML, "log4j2.xml": LOG4J2_XML}
    return Rendering(files, settings, tuple(notes))
