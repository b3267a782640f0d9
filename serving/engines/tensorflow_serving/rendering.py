"""TensorFlow Serving's native configuration, rendered from the one `ServingProfile`.

The same files and flags start the real ``tensorflow_model_server`` and the embedded server.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from serving.engines import gpu, tf32
from serving.engines.engine import Knob, KnobKind, Rendering, Served, Site
from serving.engines.tensorflow_serving import onednn
from serving.profile import ServingProfile

METRICS_PATH = "/monitoring/prometheus/metrics"
REST_TIMEOUT_MS = 120_000
MODELS = "models.txt"
GPU_SHARE = "per_process_gpu_memory_fraction"


def render(profile: ServingProfile, models: Sequence[Served], site: Site) -> Rendering:
    """batching.txt, monitoring.txt and the flags; models.txt where there are several models."""
    queue = math.ceil(profile.queue_capacity / profile.max_batch_size)
    computing = profile.instances * profile.max_batch_size
    # Each model has a queue of its own.
    grpc_threads = len(models) * (profile.queue_capacity + computing) + 16
    rest_threads = max(16, 4 * computing * len(models))
    micros = round(profile.batch_timeout_ms * 1000)
    batches = (
        f"TF Serving's queue counts batches: queue_capacity = {profile.queue_capacity} became "
        f"{queue} batches of up to {profile.max_batch_size} images."
    )
    batching = f"""\
# Rendered by Tandem from its ServingProfile; changes here are lost.
# {batches}
max_batch_size {{ value: {profile.max_batch_size} }}
batch_timeout_micros {{ value: {micros} }}
num_batch_threads {{ value: {profile.instances} }}
max_enqueued_batches {{ value: {queue} }}
"""
    flags = {
        "port": site.ports.grpc,
        "rest_api_port": site.ports.rest,
        **_which(models, site.configuration),
        "enable_batching": "true",
        "batching_parameters_file": f"{site.configuration}/batching.txt",
        "monitoring_config_file": f"{site.configuration}/monitoring.txt",
        "grpc_max_threads": grpc_threads,
        "rest_api_num_threads": rest_threads,
        "rest_api_timeout_in_ms": REST_TIMEOUT_MS,
        "tensorflow_intra_op_parallelism": profile.threads,
        "tensorflow_inter_op_parallelism": profile.instances,
    }
    if profile.device == "gpu":
        flags[GPU_SHARE] = profile.gpu_memory_fraction
    if site.connection_age_s:
        flags["grpc_channel_arguments"] = f"grpc.max_connection_age_ms={round(site.connection_age_s * 1000)}"
    files = {
        "batching.txt": batching,
        "monitoring.txt": f'prometheus_config {{ enable: true, path: "{METRICS_PATH}" }}\n',
    }
    if len(models) > 1:
        files[MODELS] = _model_config(models)
    shared = f"TF Serving's {len(models)} models share its batch threads; each has a queue of its own."
    size, same = profile.max_batch_size, KnobKind.SAME
    return Rendering(
        files=files,
        arguments=tuple(f"--{key}={value}" for key, value in flags.items()),
        environment={
            "OMP_NUM_THREADS": str(profile.threads),
            **onednn.VARIABLE.variables(profile),
            **tf32.variables(profile),
            **gpu.tensorflow_variables(profile),
        },
        unset=(*onednn.VARIABLE.unset(profile), *tf32.unset(profile)),
        knobs=(
            Knob("max_batch_size", "max_batch_size", size, "images", same, "", size),
            Knob("batch_timeout_ms", "batch_timeout_micros", micros, "µs", same, "", profile.batch_timeout_ms),
            Knob(
                name="instances",
                native_key="num_batch_threads",
                value=profile.instances,
                unit="threads",
                note=shared if len(models) > 1 else "",
                asked=profile.instances,
            ),
            Knob("threads", "tensorflow_intra_op_parallelism", profile.threads, "threads", same, "", profile.threads),
            Knob(
                name="queue_capacity",
                native_key="max_enqueued_batches",
                value=queue,
                unit="batches",
                kind=KnobKind.OTHER_UNIT,
                note=batches,
                asked=profile.queue_capacity,
            ),
            Knob("device", "", None, kind=KnobKind.NO_COUNTERPART, asked=profile.device),
            onednn.VARIABLE.knob(profile),
            tf32.knob(profile),
            *gpu.tensorflow_knobs(profile, GPU_SHARE),
            Knob(
                name="front end, gRPC",
                native_key="grpc_max_threads",
                value=grpc_threads,
                unit="threads",
                kind=KnobKind.OTHER_UNIT,
                note="TF Serving refuses gRPC calls beyond its threads (default 4 x CPUs): "
                f"grpc_max_threads raised to {grpc_threads}.",
            ),
            Knob(
                name="front end, REST",
                native_key="rest_api_num_threads",
                value=rest_threads,
                unit="threads",
                kind=KnobKind.OTHER_UNIT,
                note="A REST call holds a thread while its batch fills: rest_api_num_threads raised to "
                f"{rest_threads}; REST calls beyond that wait outside the batching queue.",
            ),
        ),
    )


def _which(models: Sequence[Served], configuration: str) -> dict[str, str]:
    """The flags that say which models to serve."""
    if len(models) > 1:
        return {"model_config_file": f"{configuration}/{MODELS}"}
    (model,) = models
    return {"model_name": model.name, "model_base_path": model.path}


def _model_config(models: Sequence[Served]) -> str:
    """A ModelServerConfig in protobuf's text format."""
    text = "".join(
        f'  config {{ name: {_quoted(one.name)} base_path: {_quoted(one.path)} model_platform: "tensorflow" }}\n'
        for one in models
    )
    return f"# Rendered by Tandem; changes here are lost.\nmodel_config_list {{\n{text}}}\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
