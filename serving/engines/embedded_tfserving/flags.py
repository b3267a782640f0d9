"""TensorFlow Serving's command-line flags: the same names, types and defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from models.problem import Problem

CPUS = len(os.sched_getaffinity(0))


@dataclass
class Flags:
    """Every flag that this server acts on; the field's name is the flag's name."""

    port: int = 8500
    rest_api_port: int = 0
    rest_api_timeout_in_ms: int = 30000
    rest_api_enable_cors_support: bool = False
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: str = ""
    model_config_file_poll_wait_seconds: int = 0
    file_system_poll_wait_seconds: int = 1
    allow_version_labels_for_unavailable_models: bool = False
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60 * 1000 * 1000
    saved_model_tags: str = "serve"
    enable_batching: bool = False
    batching_parameters_file: str = ""
    enable_per_model_batching_parameters: bool = False
    monitoring_config_file: str = ""
    grpc_max_threads: int = 4 * CPUS
    grpc_channel_arguments: str = ""
    tensorflow_session_parallelism: int = 0
    tensorflow_intra_op_parallelism: int = 0
    tensorflow_inter_op_parallelism: int = 0
    enable_serialization_as_tensor_content: bool = False
    per_process_gpu_memory_fraction: float = 0.0
    bind_address: str = "0.0.0.0"  # not a flag of TensorFlow Serving, which always listens everywhere
    version: bool = False
    without_effect: list[str] = field(default_factory=list)


# Flags of TensorFlow Serving 2.20 that are accepted so that a command line written for it works, and that change
# nothing here, with the type of each.
WITHOUT_EFFECT: dict[str, type] = {
    "rest_api_num_threads": int,
    "num_load_threads": int,
    "num_unload_threads": int,
    "enable_model_warmup": bool,
    "num_request_iterations_for_warmup": int,
    "enable_signature_method_name_check": bool,
    "grpc_socket_path": str,
    "ssl_config_file": str,
    "platform_config_file": str,
    "tensorflow_session_config_file": str,
    "flush_filesystem_caches": bool,
    "use_tflite_model": bool,
    "num_tflite_interpreters_per_pool": int,
    "num_tflite_pools": int,
    "remove_unused_fields_from_bundle_metagraph": bool,
    "prefer_tflite_model": bool,
    "xla_cpu_compilation_enabled": bool,
    "xla_gpu_compilation_enabled": bool,
    "enable_profiler": bool,
    "thread_pool_factory_config_file": str,
    "skip_initialize_tpu": bool,
    "enable_grpc_healthcheck_service": bool,
}


# The channel arguments with a meaning here (gRPC's GRPC_ARG_MAX_CONNECTION_AGE_MS and its grace), with the least value.
CHANNEL_ARGUMENTS = {"grpc.max_connection_age_ms": 1, "grpc.max_connection_age_grace_ms": 0}
ENDLESS_MS = 2**31 - 1  # gRPC's word for "never"


def channel_arguments(text: str) -> dict[str, str]:
    """The comma-separated key=value pairs of --grpc_channel_arguments. Raises `Problem`."""
    pairs = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise Problem(f"--grpc_channel_arguments={text}: {pair} has no value; write key=value,key=value")
        if key in CHANNEL_ARGUMENTS and not (value.isdecimal() and int(value) >= CHANNEL_ARGUMENTS[key]):
            least = CHANNEL_ARGUMENTS[key]
            raise Problem(f"--grpc_channel_arguments: {key}={value}: use whole milliseconds, {least} or more")
        pairs[key] = value
    return pairs


def connection_age_s(flags: Flags) -> tuple[float | None, float | None]:
    """Seconds after which a gRPC connection is retired, and then left to finish its calls; None: without limit."""
    given = channel_arguments(flags.grpc_channel_arguments)
    age, grace = (int(given.get(key, ENDLESS_MS)) for key in CHANNEL_ARGUMENTS)
    return (age / 1000 if age < ENDLESS_MS else None, grace / 1000 if grace < ENDLESS_MS else None)


def _number(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError(text)
    return value


def _truth(text: str) -> bool:
    if text in ("", "true", "True", "1"):
        return True
    if text in ("false", "False", "0"):
        return False
    raise ValueError(text)


READERS: dict[type, tuple[str, Callable[[str], Any]]] = {
    int: ("a whole number", _number),
    bool: ("true or false", _truth),
    str: ("a text", str),
    float: ("a number", float),
}


def parse(argv: Sequence[str]) -> Flags:
    """Read `--name=value` (or `--name` for a truth value).

    Raises `Problem` for an unknown flag, a stray word, or a value of the wrong type.
    """
    flags = Flags()
    known: dict[str, type] = {f.name: type(getattr(flags, f.name)) for f in fields(Flags) if f.name != "without_effect"}
    for word in argv:
        name, equals, text = word.removeprefix("--").partition("=")
        kind = known.get(name) or WITHOUT_EFFECT.get(name)
        if not word.startswith("--") or kind is None:
            raise Problem(f"unknown argument: {word}; the flags are TensorFlow Serving's, written --name=value")
        wanted, read = READERS[kind]
        if not equals and kind is not bool:
            raise Problem(f"--{name}: a value is missing; write --{name}=<{wanted}>")
        try:
            value = read(text)
        except ValueError:
            raise Problem(f"--{name}={text}: use {wanted}") from None
        if name in known:
            setattr(flags, name, value)
        elif name not in flags.without_effect:
            flags.without_effect.append(name)
    unused = channel_arguments(flags.grpc_channel_arguments).keys() - CHANNEL_ARGUMENTS.keys()
    flags.without_effect += [f"grpc_channel_arguments={key}" for key in sorted(unused)]
    if not 0 <= flags.per_process_gpu_memory_fraction <= 1:
        raise Problem(
            f"--per_process_gpu_memory_fraction={flags.per_process_gpu_memory_fraction:g}: use a share, 0 to 1"
        )
    for name in ("port", "rest_api_port"):
        if not 0 <= getattr(flags, name) <= 65535:
            raise Problem(f"--{name}={getattr(flags, name)}: use a port from 0 to 65535")
    return flags
