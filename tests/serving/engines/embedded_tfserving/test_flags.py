"""TensorFlow Serving's command line and config files, and what is said about mistakes in them."""

from __future__ import annotations

import pytest

from models.problem import Problem
from serving.engines.embedded_tfserving import config
from serving.engines.embedded_tfserving.flags import Flags, connection_age_s, parse
from serving.engines.embedded_tfserving.main import main
from serving.engines.embedded_tfserving.status import ServingError
from serving.wire.grpc_status import Code

AGE = "grpc.max_connection_age_ms"

# As issue 3 of Tandem lists them.
NAMES = [
    "port",
    "rest_api_port",
    "model_name",
    "model_base_path",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "file_system_poll_wait_seconds",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
    "grpc_max_threads",
    "rest_api_timeout_in_ms",
    "rest_api_num_threads",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
    "allow_version_labels_for_unavailable_models",
    "enable_model_warmup",
    "max_num_load_retries",
    "version",
]


def test_values_are_read_by_type():
    flags = parse(["--port=1234", "--enable_batching", "--model_name=m", "--version=false", "--grpc_max_threads=7"])
    assert (flags.port, flags.enable_batching, flags.model_name, flags.version) == (1234, True, "m", False)
    assert flags.grpc_max_threads == 7


@pytest.mark.parametrize("name", NAMES)
def test_every_promised_flag_is_known(name):
    parse([f"--{name}=1"])


def test_a_flag_without_effect_is_remembered_once():
    assert parse(["--rest_api_num_threads=1", "--rest_api_num_threads=2"]).without_effect == ["rest_api_num_threads"]


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("", (None, None)),
        ("grpc.max_connection_age_ms=20000", (20.0, None)),
        ("grpc.so_reuseport=0,grpc.max_connection_age_ms=1500,grpc.max_connection_age_grace_ms=0", (1.5, 0.0)),
        ("grpc.max_connection_age_ms=2147483647", (None, None)),  # gRPC's "never"
    ],
)
def test_the_age_of_connections_is_read_and_other_channel_arguments_are_named(text, age):
    flags = parse([f"--grpc_channel_arguments={text}"])
    assert connection_age_s(flags) == age
    assert flags.without_effect == (["grpc_channel_arguments=grpc.so_reuseport"] if "so_reuseport" in text else [])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (f"--grpc_channel_arguments={AGE}", f"--grpc_channel_arguments={AGE}: {AGE} has no value"),
        (f"--grpc_channel_arguments={AGE}=20s", f"--grpc_channel_arguments: {AGE}=20s: use whole milliseconds"),
        (f"--grpc_channel_arguments={AGE}=0", f"--grpc_channel_arguments: {AGE}=0: use whole milliseconds, 1 or more"),
        ("--bogus_flag=1", "unknown argument: --bogus_flag=1"),
        ("stray", "unknown argument: stray"),
        ("--port=abc", "--port=abc: use a whole number"),
        ("--port", "--port: a value is missing"),
        ("--port=70000", "--port=70000: use a port from 0 to 65535"),
        ("--enable_batching=maybe", "--enable_batching=maybe: use true or false"),
    ],
)
def test_mistakes_are_named(word, message, capsys):
    with pytest.raises(Problem, match=message):
        parse([word])
    assert main([word]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("values", "code", "message"),
    [
        (
            {},
            Code.INVALID_ARGUMENT,
            "Both server_options.model_base_path and server_options.model_config_file are empty!",
        ),
        (
            {"model_name": "m", "model_base_path": "models/cnn"},
            Code.INVALID_ARGUMENT,
            "Expected model m to have an absolute path or URI; got base_path()=models/cnn",
        ),
        ({"model_config_file": "/nowhere/x"}, Code.NOT_FOUND, "/nowhere/x; No such file or directory"),
    ],
)
def test_a_model_config_that_cannot_work_is_refused(values, code, message):
    with pytest.raises(ServingError) as refused:
        config.read(Flags(**values))
    assert (refused.value.code, refused.value.message) == (code, message)


def test_config_files_are_read_by_protobuf(tmp_path):
    models = tmp_path / "models.txt"
    models.write_text('model_config_list { config { nome: "m" } }')
    with pytest.raises(ServingError, match=r"Invalid protobuf file: '.*models.txt'"):
        config.model_configs(Flags(model_config_file=str(models)))
    models.write_text(
        'model_config_list { config { name: "m" base_path: "/x" model_version_policy { specific { versions: 3 } } } }'
    )
    (model,) = config.model_configs(Flags(model_config_file=str(models)))
    assert list(model.model_version_policy.specific.versions) == [3]

    batching = tmp_path / "batching.txt"
    batching.write_text("max_batch_size { value: 64 } allowed_batch_sizes: 8 allowed_batch_sizes: 64 # comment\n")
    with pytest.raises(ServingError, match=r"without setting server_options\.enable_batching"):
        config.batching_parameters(Flags(batching_parameters_file=str(batching)))
    parameters = config.batching_parameters(Flags(batching_parameters_file=str(batching), enable_batching=True))
    assert parameters is not None
    assert (parameters.max_batch_size, parameters.allowed_batch_sizes) == (64, [8, 64])
    assert (parameters.batch_timeout_micros, parameters.max_enqueued_batches) == (0, 10)

    monitoring = tmp_path / "monitoring.txt"
    monitoring.write_text("prometheus_config { enable: true }")
    assert config.metrics_path(Flags(monitoring_config_file=str(monitoring))) == "/monitoring/prometheus/metrics"
    assert config.metrics_path(Flags()) is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "INVALID_ARGUMENT: Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (["--model_base_path=m"], "INVALID_ARGUMENT: Expected model default to have an absolute path or URI;"),
        (["--model_config_file=/nowhere/nope.txt"], "NOT_FOUND: /nowhere/nope.txt; No such file or directory"),
        (
            ["--port=0", "--model_base_path=/m"],
            "INVALID_ARGUMENT: At least one of server_options.grpc_port or server_options.grpc_socket_path must be",
        ),
        (
            ["--rest_api_port=8500", "--model_base_path=/m"],
            "INVALID_ARGUMENT: server_options.http_port cannot be same as grpc_port.",
        ),
        (
            ["--model_base_path=/m", "--batching_parameters_file=/b"],
            "INVALID_ARGUMENT: server_options.batching_parameters_file is set without setting",
        ),
    ],
)
def test_a_start_that_fails_ends_with_255_and_the_recorded_words(flags, message, capsys):
    assert main(flags) == 255
    assert capsys.readouterr().out.startswith(f"Failed to start server. Error: {message}")
