"""TensorFlow Serving's text-format configuration files, read by protobuf.

`ModelServerConfig` is tensorflow-serving-api's own message. That package ships neither `BatchingParameters` nor
`MonitoringConfig`, so their (text-format) fields are declared here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message
from tensorflow_serving.config import model_server_config_pb2

from serving.engines.embedded_tfserving.flags import CPUS, Flags
from serving.engines.embedded_tfserving.status import ServingError, invalid
from serving.engines.tensorflow_serving.engine import TensorFlowServing
from serving.wire.grpc_status import Code

FieldType = descriptor_pb2.FieldDescriptorProto
AnyMessage = TypeVar("AnyMessage", bound=Message)


def _declare() -> tuple[type[Message], type[Message]]:
    """The message classes BatchingParameters and MonitoringConfig."""
    file = descriptor_pb2.FileDescriptorProto(
        name="embedded_tfserving/config.proto",
        package="embedded_tfserving",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    batching = file.message_type.add(name="BatchingParameters")
    wrapped = {
        "max_batch_size": "Int64Value",
        "batch_timeout_micros": "Int64Value",
        "max_enqueued_batches": "Int64Value",
        "num_batch_threads": "Int64Value",
        "thread_pool_name": "StringValue",
        "enable_large_batch_splitting": "BoolValue",
        "max_execution_batch_size": "Int64Value",
    }
    for number, (name, kind) in enumerate(wrapped.items(), start=1):
        batching.field.add(
            name=name,
            number=number,
            label=FieldType.LABEL_OPTIONAL,
            type=FieldType.TYPE_MESSAGE,
            type_name=f".google.protobuf.{kind}",
        )
    batching.field.add(name="allowed_batch_sizes", number=20, label=FieldType.LABEL_REPEATED, type=FieldType.TYPE_INT64)
    batching.field.add(
        name="pad_variable_length_inputs", number=21, label=FieldType.LABEL_OPTIONAL, type=FieldType.TYPE_BOOL
    )
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, label=FieldType.LABEL_OPTIONAL, type=FieldType.TYPE_BOOL)
    prometheus.field.add(name="path", number=2, label=FieldType.LABEL_OPTIONAL, type=FieldType.TYPE_STRING)
    monitoring = file.message_type.add(name="MonitoringConfig")
    monitoring.field.add(
        name="prometheus_config",
        number=1,
        label=FieldType.LABEL_OPTIONAL,
        type=FieldType.TYPE_MESSAGE,
        type_name=".embedded_tfserving.PrometheusConfig",
    )
    pool = descriptor_pool.Default()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return (
        message_factory.GetMessageClass(find("embedded_tfserving.BatchingParameters")),
        message_factory.GetMessageClass(find("embedded_tfserving.MonitoringConfig")),
    )


from google.protobuf import wrappers_pb2  # noqa: E402, F401 (registers the wrapper types that _declare refers to)

BatchingParametersMessage, MonitoringConfigMessage = _declare()


def _read(path: str, message: AnyMessage, *, may_be_empty: bool = True) -> AnyMessage:
    """Parse one text-format file into `message`; raises `ServingError` with the real server's message."""
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise ServingError(Code.NOT_FOUND, f"{path}; {error.strerror}") from None
    except UnicodeDecodeError:
        raise invalid(f"Invalid protobuf file: '{path}'") from None
    if not text and not may_be_empty:
        raise invalid(f"{path}; Invalid argument")
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise invalid(f"Invalid protobuf file: '{path}' ({error})") from None


class BatchingParameters:
    """How the batch scheduler is set: sizes in rows of the 0th dimension, time in microseconds.

    Defaults are those of tensorflow_serving/batching/batching_session.h and shared_batch_scheduler.h.
    """

    def __init__(self, message: Any) -> None:
        def value(name: str, default: Any) -> Any:
            return getattr(message, name).value if message.HasField(name) else default

        self.max_batch_size: int = value("max_batch_size", 1000)
        self.batch_timeout_micros: int = value("batch_timeout_micros", 0)
        self.max_enqueued_batches: int = value("max_enqueued_batches", 10)
        self.num_batch_threads: int = value("num_batch_threads", CPUS)
        self.thread_pool_name: str = value("thread_pool_name", "")
        self.splitting: bool = value("enable_large_batch_splitting", False)
        self.max_execution_batch_size: int = (
            value("max_execution_batch_size", self.max_batch_size) if self.splitting else self.max_batch_size
        )
        self.allowed_batch_sizes: list[int] = list(message.allowed_batch_sizes)

    def check(self) -> None:
        """Raises `ServingError` for parameters that the scheduler refuses (the real server crashes on some)."""
        for name in ("max_batch_size", "num_batch_threads", "max_enqueued_batches", "max_execution_batch_size"):
            if getattr(self, name) < 1:
                raise invalid(f"{name} must be positive; was {getattr(self, name)}")
        if self.batch_timeout_micros < 0:
            raise invalid(f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}")
        if self.max_execution_batch_size > self.max_batch_size:
            raise invalid(
                f"max_execution_batch_size ({self.max_execution_batch_size}) must not be larger than "
                f"max_batch_size ({self.max_batch_size})"
            )
        sizes = self.allowed_batch_sizes
        if sizes and sizes[-1] != self.max_batch_size:  # with splitting, too: startup.jsonl, batching_split
            raise invalid(
                "Last entry in allowed_batch_sizes must match max_batch_size; "
                f"last entry was {sizes[-1]}; expected {self.max_batch_size}"
            )
        if sizes != sorted(set(sizes)) or (sizes and sizes[0] < 1):
            raise invalid("allowed_batch_sizes entries must be positive and monotonically increasing")


def model_configs(flags: Flags) -> list[Any]:
    """The `ModelConfig`s to serve, from --model_config_file or --model_base_path; raises `ServingError`."""
    if flags.model_config_file:
        config = _read(flags.model_config_file, model_server_config_pb2.ModelServerConfig())
        if config.WhichOneof("config") != "model_config_list":
            raise invalid(f"{flags.model_config_file}: a model_config_list is needed")
        models = list(config.model_config_list.config)
    elif flags.model_base_path:
        models = [
            model_server_config_pb2.ModelConfig(
                name=flags.model_name, base_path=flags.model_base_path, model_platform="tensorflow"
            )
        ]
    else:
        raise invalid("Both server_options.model_base_path and server_options.model_config_file are empty!")
    return models


def check_models(models: Sequence[Any]) -> None:
    """Raises `ServingError` for a list of `ModelConfig`s that cannot be served."""
    names = set()
    for model in models:
        if model.name in names:
            raise invalid(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
        if not model.base_path.startswith("/"):
            raise invalid(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )


def batching_parameters(flags: Flags) -> BatchingParameters | None:
    """The batching parameters, or None when batching is off; raises `ServingError`."""
    if not flags.enable_batching:
        if flags.batching_parameters_file:
            raise invalid(
                "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
            )
        return None
    message = BatchingParametersMessage()
    if flags.batching_parameters_file:
        _read(flags.batching_parameters_file, message, may_be_empty=False)
    return BatchingParameters(message)


def per_model_batching(version: Path) -> BatchingParameters | None:
    """What `batching_params.pbtxt` in a version's folder says; None, no batching, without that file. Raises
    `ServingError`."""
    path = version / "batching_params.pbtxt"
    return BatchingParameters(_read(str(path), BatchingParametersMessage())) if path.exists() else None


def metrics_path(flags: Flags) -> str | None:
    """The path of the Prometheus page on the REST port, or None when it is off; raises `ServingError`."""
    if not flags.monitoring_config_file:
        return None
    config: Any = _read(flags.monitoring_config_file, MonitoringConfigMessage())
    prometheus = config.prometheus_config
    return (prometheus.path or TensorFlowServing.metrics_path) if prometheus.enable else None


@dataclass(frozen=True)
class Configuration:
    """What the flags and the files that they name say, checked as far as it can be without loading a model."""

    models: list[Any]
    batching: BatchingParameters | None
    metrics_path: str | None


def read(flags: Flags) -> Configuration:
    """Read all configuration files. Raises `ServingError`, with the real server's message where it has one."""
    if flags.port == 0:
        raise invalid("At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.")
    if flags.port == flags.rest_api_port:
        raise invalid(
            "server_options.http_port cannot be same as grpc_port. Please use a different port for HTTP/REST API."
        )
    models = model_configs(flags)
    check_models(models)
    return Configuration(models, batching_parameters(flags), metrics_path(flags))
