"""Triton's native configuration, rendered from the one `ServingProfile`: a config.pbtxt for each model, and the flags.

What the fields mean: https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from serving.engines import gpu, tf32, torch_switches
from serving.engines.engine import Backend, Knob, KnobKind, Place, Rendering, Served, Site
from serving.engines.triton.backends import ONNX_RUNTIME, TORCHSCRIPT, Library
from serving.engines.triton.container import LIMIT, REPOSITORY, SHARE
from serving.profile import ServingProfile

# Quantile:error of Triton's summaries, which are off unless asked for; those of monitoring/schema.toml, and 0.999.
QUANTILES = "0.5:0.05,0.95:0.01,0.99:0.001,0.999:0.0005"
EXIT_TIMEOUT_S = 20
_UNBOUNDED = (
    "Triton's queue has no bound here, so it refuses nothing: with one, this version leaves some requests lying for "
    "half a second."
)
_MLAS = "ONNX Runtime computes with kernels of its own (MLAS)."


def file_of(model: str) -> str:
    """The rendered file that becomes the model's config.pbtxt in the model repository."""
    return f"{model}.pbtxt"


def render(
    library: Library, backend: Backend, profile: ServingProfile, models: Sequence[Served], site: Site
) -> Rendering:
    """One config.pbtxt a model, named by `file_of`, and the flags but for those that name folders; for a container also
    which models there are.

    ``backend``: one of those of ``library``. A model's path is that of its file.
    """
    outside = backend.place is Place.BESIDE
    flags = {
        "http-address": site.host,
        "http-port": site.ports.rest,
        "grpc-address": site.host,
        "grpc-port": site.ports.grpc,
        "metrics-address": site.host,
        "metrics-port": site.ports.metrics,
        "metrics-config": ["summary_latencies=true", f"summary_quantiles={QUANTILES}"],
        # The machine's, which come from elsewhere.
        "allow-cpu-metrics": "false",
        "allow-gpu-metrics": "false",
        # The files say all; filling them in costs one more start of each model.
        "disable-auto-complete-config": "",
        "exit-timeout-secs": EXIT_TIMEOUT_S,
    }
    if site.connection_age_s:
        flags["grpc-max-connection-age"] = round(site.connection_age_s * 1000)
    torch = library is TORCHSCRIPT
    return Rendering(
        files={
            **{file_of(one.name): _config(library, backend, profile, one) for one in models},
            **({} if outside else {REPOSITORY: _repository(library, profile, models)}),
        },
        arguments=tuple(
            f"--{name}={value}" if value != "" else f"--{name}"
            for name, values in flags.items()
            for value in (values if isinstance(values, list) else [values])
        ),
        environment={
            "OMP_NUM_THREADS": str(profile.threads),
            **(torch_switches.VARIABLE.variables(profile) if torch and outside else {}),
            **tf32.variables(profile),
        },
        unset=(*(torch_switches.VARIABLE.unset(profile) if torch and outside else ()), *tf32.unset(profile)),
        knobs=_knobs(library, backend, profile, len(models)),
        backend=backend,
    )


def _config(library: Library, backend: Backend, profile: ServingProfile, model: Served) -> str:
    kind = "KIND_CPU" if profile.device == "cpu" else "KIND_GPU gpus: [0]"  # as the others, on the first one alone
    if backend.place is Place.BESIDE:
        name = "python"
        parameters = {"library": library.name, "file": model.path, "threads": str(profile.threads)}
    else:
        name = backend.name
        parameters = {library.threads: str(profile.threads)}
    policy = f"  default_queue_policy {{ max_queue_size: {profile.queue_capacity} }}\n" if _bounded(backend) else ""
    # PyTorch's own backend has no names for outputs, but places.
    output = "PROBABILITIES__0" if name == TORCHSCRIPT.native else "probabilities"
    return f"""\
# Rendered by Tandem from its ServingProfile; changes here are lost.
name: {_quoted(model.name)}
backend: {_quoted(name)}
max_batch_size: {profile.max_batch_size}
input [ {{ name: "images" data_type: TYPE_UINT8 dims: {list(model.shape) or [-1, -1, -1]} }} ]
output [ {{ name: {_quoted(output)} data_type: TYPE_FP32 dims: [{model.classes or -1}] }} ]
dynamic_batching {{
  max_queue_delay_microseconds: {_micros(profile)}
{policy}}}
instance_group [ {{ kind: {kind} count: {profile.instances} }} ]
version_policy: {{ specific {{ versions: [{model.version}] }} }}
{_parameters(parameters)}"""


def _bounded(backend: Backend) -> bool:
    """Whether the queue gets its bound. The server of the wheel, 2.51.0, does not: with one it hands a batch on only
    while an instance waits for it, and a request that comes when none does is not looked at for up to 500 ms, unless
    another one comes (`BatcherThread` of the core's dynamic_batch_scheduler.cc): a lone client sees it on one request
    of a hundred."""
    return backend.place is Place.SERVER


def _repository(library: Library, profile: ServingProfile, models: Sequence[Served]) -> str:
    capped = profile.device == "gpu" and library is ONNX_RUNTIME
    share = {SHARE: gpu.per_worker(profile, len(models))} if capped else {}
    listed = {
        one.name: {"version": one.version, "file": library.file, "configuration": file_of(one.name), **share}
        for one in models
    }
    return json.dumps(listed, indent=2) + "\n"


def _parameters(values: Mapping[str, str]) -> str:
    return "".join(
        f"parameters {{ key: {_quoted(key)} value: {{ string_value: {_quoted(value)} }} }}\n"
        for key, value in values.items()
    )


def _micros(profile: ServingProfile) -> int:
    return round(profile.batch_timeout_ms * 1000)


def _knobs(library: Library, backend: Backend, profile: ServingProfile, models: int) -> tuple[Knob, ...]:
    size, same, other = profile.max_batch_size, KnobKind.SAME, KnobKind.OTHER_UNIT
    outside = backend.place is Place.BESIDE
    alone = f"Each of Triton's {models} models has {profile.instances} instance(s) of its own." if models > 1 else ""
    processes = f"Triton's Python backend computes batches in {profile.instances} stub process(es) beside the server."
    apart = f"Each of Triton's {models} models has a queue of its own." if models > 1 else ""
    return (
        Knob("max_batch_size", "max_batch_size", size, "images", same, "", size),
        Knob(
            "batch_timeout_ms",
            "max_queue_delay_microseconds",
            _micros(profile),
            "µs",
            same,
            asked=profile.batch_timeout_ms,
        ),
        Knob(
            name="instances",
            native_key="instance_group",
            value=profile.instances,
            unit="processes" if outside else "instances",
            kind=other if outside else same,
            note=" ".join(filter(None, [processes if outside else "", alone])),
            asked=profile.instances,
        ),
        Knob(
            name="threads",
            native_key="threads" if outside else library.threads,
            value=profile.threads,
            unit="threads",
            asked=profile.threads,
        ),
        Knob(
            name="queue_capacity",
            native_key="max_queue_size",
            value=profile.queue_capacity if _bounded(backend) else None,
            unit="requests",
            kind=same if _bounded(backend) else KnobKind.DIFFERS,
            note=" ".join(filter(None, [apart, "" if _bounded(backend) else _UNBOUNDED])),
            asked=profile.queue_capacity,
        ),
        Knob("device", "kind", "KIND_CPU" if profile.device == "cpu" else "KIND_GPU", asked=profile.device),
        _onednn(library, backend, profile),
        tf32.knob(profile),
        *(_gpu(library, profile, models) if profile.device == "gpu" else ()),
        Knob("front end, gRPC", "", None, kind=KnobKind.NO_COUNTERPART),
        Knob("front end, REST", "http-thread-count", None, "threads", other),
    )


def _onednn(library: Library, backend: Backend, profile: ServingProfile) -> Knob:
    if library is TORCHSCRIPT and backend.place is Place.BESIDE:
        return torch_switches.VARIABLE.knob(profile)
    note = "" if library is TORCHSCRIPT else _MLAS
    return Knob("onednn", "", None, kind=KnobKind.NO_COUNTERPART, note=note, asked=profile.onednn)


def _gpu(library: Library, profile: ServingProfile, models: int) -> tuple[Knob, ...]:
    """The share of the memory, and what cuDNN is asked, of Triton's own backends."""
    asked, share = profile.gpu_memory_fraction, gpu.per_worker(profile, models)
    if library is TORCHSCRIPT:
        uncapped = "Triton's PyTorch backend has no cap: it takes what it needs, and gives nothing back."
        return (
            Knob(gpu.NAME, "", None, kind=KnobKind.NO_COUNTERPART, note=uncapped, asked=asked),
            Knob(gpu.AUTOTUNE, "", None, kind=KnobKind.NO_COUNTERPART),
        )
    each = "" if share == asked else ", each instance"
    bytes_ = "In bytes, which the container works out at its start from the memory of the first GPU."
    timed = "ONNX Runtime times all of cuDNN's algorithms for each batch size that it meets for the first time."
    kind = KnobKind.OTHER_UNIT if each else KnobKind.SAME
    return (
        Knob(gpu.NAME, LIMIT, share, f"of the GPU's memory{each}", kind, bytes_, asked),
        Knob(gpu.AUTOTUNE, "cudnn_conv_algo_search", None, kind=KnobKind.DIFFERS, note=timed),
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
