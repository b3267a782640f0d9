"""TorchServe's native configuration, rendered from the one `ServingProfile`."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

from models.problem import Problem
from serving.engines import gpu, tf32, torch_switches
from serving.engines.engine import Knob, KnobKind, Rendering, Served, Site
from serving.ports import LOOPBACK
from serving.profile import ServingProfile

RESPONSE_TIMEOUT_S = 120
MAX_MESSAGE_BYTES = 100 * 1024 * 1024


def archive_version(archive: Path) -> str:
    """The model version inside a model archive, which TorchServe's settings are keyed by. Raises `Problem`."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return str(json.loads(opened.read("MAR-INF/MANIFEST.json"))["model"]["modelVersion"])
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise Problem(f"{archive}: no TorchServe model archive ({error}); export the model again") from None


def render(profile: ServingProfile, models: Sequence[Served], site: Site) -> Rendering:
    """config.properties, metrics.yaml and log4j2.xml for a server whose archives lie in ``site``'s model store.

    Management stays on loopback, whatever ``site``'s host is.
    """
    delay = max(1, math.floor(profile.batch_timeout_ms + 0.5))
    netty = max(1, min(4, site.cores // 2))
    counts = (
        f"TorchServe's batchSize counts requests, TF Serving's counts images: a batch holds up to "
        f"{profile.max_batch_size} requests of any number of images."
    )
    processes = (
        f"TorchServe computes batches in {profile.instances} worker process(es); TF Serving in threads of one process."
    )
    rounded = (
        f"TorchServe's maxBatchDelay is whole milliseconds from 1 (it reads 0 as its default of 100): "
        f"batch_timeout_ms = {profile.batch_timeout_ms:g} became {delay}."
        if delay != profile.batch_timeout_ms
        else ""
    )
    apart = (
        f"Each of TorchServe's {len(models)} models has {profile.instances} worker process(es) and a queue of its own."
        if len(models) > 1
        else ""
    )
    tuning = {
        "minWorkers": profile.instances,
        "maxWorkers": profile.instances,
        "batchSize": profile.max_batch_size,
        "maxBatchDelay": delay,
        "responseTimeout": RESPONSE_TIMEOUT_S,
    }
    settings = {
        one.name: {one.version: {"defaultVersion": True, "marName": f"{one.name}.mar", **tuning}} for one in models
    }
    comments = "".join(f"# {note}\n" for note in (counts, processes, rounded, apart) if note)
    gpus = 0 if profile.device == "cpu" else 1  # TensorFlow, too, computes on the first one alone
    age_ms = round(site.connection_age_s * 1000) if site.connection_age_s else None
    age = f"grpc_inference_max_connection_age_ms={age_ms}\n" if age_ms else ""
    properties = f"""\
# Rendered by Tandem from its ServingProfile; changes here are lost.
{comments}
inference_address=http://{site.host}:{site.ports.rest}
metrics_address=http://{site.host}:{site.ports.metrics}
grpc_inference_address={site.host}
grpc_inference_port={site.ports.grpc}
{age}# Management is for this machine only, may register no model from any URL or file, and needs no token.
management_address=http://{LOOPBACK}:{site.ports.management}
grpc_management_address={LOOPBACK}
grpc_management_port={site.ports.grpc_management}
allowed_urls=none
enable_model_api=false
disable_token_authorization=true
enable_envvars_config=false

model_store={_escape(site.models)}
load_models={",".join(f"{one.name}={one.name}.mar" for one in models)}
models={_escape(json.dumps(settings))}
# queue_capacity: counts requests (TF Serving's queue counts batches)
job_queue_size={profile.queue_capacity}
default_response_timeout={RESPONSE_TIMEOUT_S}
max_request_size={MAX_MESSAGE_BYTES}
max_response_size={MAX_MESSAGE_BYTES}
number_of_gpu={gpus}

# Few event loops: more of them compete with the workers for the same cores.
number_of_netty_threads={netty}
netty_client_threads={netty}
# The handler parses JSON itself, faster than the worker does.
decode_input_request=false

metrics_mode=prometheus
metrics_config={_escape(f"{site.configuration}/metrics.yaml")}
model_metrics_auto_detect=false
# They start a Python process every minute; node metrics come from elsewhere.
disable_system_metrics=true
"""
    return Rendering(
        files={"config.properties": properties, "metrics.yaml": METRICS_YAML, "log4j2.xml": LOG4J2_XML},
        environment={
            "TANDEM_TORCH_THREADS": str(profile.threads),
            "OMP_NUM_THREADS": str(profile.threads),
            **torch_switches.VARIABLE.variables(profile),
            **tf32.variables(profile, torch=True),
            **gpu.torch_variables(profile, len(models)),
        },
        unset=(*torch_switches.VARIABLE.unset(profile), *tf32.unset(profile)),
        knobs=(
            *_knobs(profile, delay, counts, processes, rounded, apart),
            *gpu.torch_knobs(profile, "TorchServe's workers", len(models)),
            Knob("front end, gRPC", "number_of_netty_threads", netty, "threads", KnobKind.OTHER_UNIT),
            Knob("front end, REST", "number_of_netty_threads", netty, "threads", KnobKind.OTHER_UNIT),
        ),
    )


def _knobs(
    profile: ServingProfile, delay: int, counts: str, processes: str, rounded: str, apart: str
) -> tuple[Knob, ...]:
    """What was set; the texts are the notes on it."""
    size, wait, same = profile.max_batch_size, profile.batch_timeout_ms, KnobKind.SAME
    other, differs = KnobKind.OTHER_UNIT, KnobKind.DIFFERS
    return (
        Knob("max_batch_size", "batchSize", size, "requests", other, counts, size),
        Knob("batch_timeout_ms", "maxBatchDelay", delay, "ms", differs if rounded else same, rounded, wait),
        Knob("instances", "maxWorkers", profile.instances, "processes", other, processes, profile.instances),
        Knob("threads", "TANDEM_TORCH_THREADS", profile.threads, "threads", same, "", profile.threads),
        Knob(
            "queue_capacity", "job_queue_size", profile.queue_capacity, "requests", same, apart, profile.queue_capacity
        ),
        Knob("device", "number_of_gpu", int(profile.device == "gpu"), "", same, "", profile.device),
        torch_switches.VARIABLE.knob(profile),
        tf32.knob(profile, torch=True),
    )


def _escape(value: str) -> str:
    """A value for a .properties file, which Java reads as Latin-1 with backslash escapes."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = [int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)]
    return "".join(chr(code) if code < 128 else f"\\u{code:04x}" for code in codes)


# QueueTime and WorkerThreadTime are gauges of the last request in TorchServe's own metrics file; as histograms they
# give means and quantiles, for REST and gRPC (whole milliseconds, rounded down; buckets end at 10 ms).
# ts_inference_latency_microseconds and ts_queue_latency_microseconds count REST only.
METRICS_YAML = """\
# Rendered by Tandem; changes here are lost.
ts_metrics:
  counter:
    - {name: Requests2XX, unit: Count, dimensions: [Level, Hostname]}
    - {name: Requests4XX, unit: Count, dimensions: [Level, Hostname]}
    - {name: Requests5XX, unit: Count, dimensions: [Level, Hostname]}
    - {name: ts_inference_requests_total, unit: Count, dimensions: [model_name, model_version, hostname]}
    - {name: ts_inference_latency_microseconds, unit: Microseconds, dimensions: [model_name, model_version, hostname]}
    - {name: ts_queue_latency_microseconds, unit: Microseconds, dimensions: [model_name, model_version, hostname]}
  gauge:
    - {name: WorkerLoadTime, unit: Milliseconds, dimensions: [WorkerName, Level, Hostname]}
  histogram:
    - {name: QueueTime, unit: Milliseconds, dimensions: [Level, Hostname]}
    - {name: WorkerThreadTime, unit: Milliseconds, dimensions: [Level, Hostname]}
# The handler's own histograms: counters to TorchServe, because its histograms have fixed buckets.
model_metrics:
  counter:
    - {name: tandem_handler_seconds_bucket, unit: seconds, dimensions: [model, version, protocol, le]}
    - {name: tandem_handler_seconds_sum, unit: seconds, dimensions: [model, version, protocol]}
    - {name: tandem_handler_seconds_count, unit: seconds, dimensions: [model, version, protocol]}
    - {name: tandem_compute_seconds_bucket, unit: seconds, dimensions: [model, version, le]}
    - {name: tandem_compute_seconds_sum, unit: seconds, dimensions: [model, version]}
    - {name: tandem_compute_seconds_count, unit: seconds, dimensions: [model, version]}
    - {name: tandem_batch_images_bucket, unit: count, dimensions: [model, version, le]}
    - {name: tandem_batch_images_sum, unit: count, dimensions: [model, version]}
    - {name: tandem_batch_images_count, unit: count, dimensions: [model, version]}
    - {name: tandem_bad_requests_total, unit: count, dimensions: [model, version, protocol]}
    - {name: tandem_busy_seconds_total, unit: seconds, dimensions: [model, version]}
    - {name: tandem_worker_starts_total, unit: count, dimensions: [model, version, worker]}
    - {name: tandem_worker_heartbeats_total, unit: count, dimensions: [model, version, worker]}
"""

# Access and metric logging cost throughput. A worker's own output (a traceback, say) comes through MODEL_LOG.
LOG4J2_XML = """\
<?xml version="1.0" encoding="UTF-8"?>
<!-- Rendered by Tandem; changes here are lost. -->
<Configuration status="warn">
  <Appenders>
    <Console name="STDOUT" target="SYSTEM_OUT">
      <PatternLayout pattern="%d{ISO8601} [%-5p] %t %c - %m%n"/>
    </Console>
  </Appenders>
  <Loggers>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="MODEL_LOG" level="info"/>
    <Logger name="org.pytorch.serve" level="warn"/>
    <Root level="warn">
      <AppenderRef ref="STDOUT"/>
    </Root>
  </Loggers>
</Configuration>
"""
