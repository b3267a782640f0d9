"""Start the server, run it until SIGTERM or SIGINT, and drain it.

The front ends share one event loop (the main thread); TensorFlow runs on `workers` and on its own threads.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models import problem
from serving.engines import gpu, tf32
from serving.engines.embedded_tfserving import config
from serving.engines.embedded_tfserving import flags as command_line
from serving.engines.embedded_tfserving.config import Configuration
from serving.engines.embedded_tfserving.flags import Flags
from serving.engines.embedded_tfserving.identity import NAME, VERSION
from serving.engines.embedded_tfserving.status import ServingError, invalid
from serving.engines.tensorflow_serving import onednn

if TYPE_CHECKING:
    from serving.engines.embedded_tfserving.manager import Manager

log = logging.getLogger(NAME)

# In-flight work gets this long after SIGTERM (Kubernetes kills after 30 s).
GRACE_S = 20.0
# Threads that may wait for the batch scheduler; a request that waits costs no computation.
BATCH_WORKERS = 256
# Predictions without batching that may run at once: long ones must not hold up the others.
DIRECT_WORKERS = 64


def main(argv: Sequence[str]) -> int:
    """Run the server with TensorFlow Serving's flags; returns the exit status (0 after a signal, 255 when it could
    not start, 1 for a wrong command line)."""
    return problem.run(lambda: _main(argv))


def _main(argv: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until the event loop minds it: a server that starts ends at once
    try:
        return _start(command_line.parse(argv))
    except ServingError as error:
        print(f"Failed to start server. Error: {error}")
        return 255


def _start(flags: Flags) -> int:
    _log_to_stderr()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Without this `import tensorflow` loads all of Keras, a third of its time.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    if flags.version:
        print(f"{NAME}: {VERSION}\nTensorFlow Library: {importlib.metadata.version('tensorflow')}")
        return 0
    log.info("%s %s starting (not TensorFlow Serving; the TensorFlow runtime is real)", NAME, VERSION)
    for name in flags.without_effect:
        log.warning("--%s has no effect here", name)
    configuration = config.read(flags)
    import tensorflow as tf  # only now: a mistake should not have to wait for it
    from tensorflow.python.util import _pywrap_util_port  # TensorFlow has no public name for it

    tf.get_logger().setLevel(logging.ERROR)
    tf.config.experimental.enable_tensor_float_32_execution(tf32.allowed(os.environ))
    log.info("%s%s", onednn.SAID, "on" if _pywrap_util_port.IsMklEnabled() else "off")
    log.info("%s%s", tf32.SAID, "on" if tf.config.experimental.tensor_float_32_execution_enabled() else "off")
    if flags.per_process_gpu_memory_fraction:
        for device in tf.config.list_physical_devices("GPU")[:1]:  # it computes on the first
            details = tf.config.experimental.get_device_details(device)
            log.info("%s%s", gpu.SAID, details.get("device_name", device.name))
    return asyncio.run(_serve(flags, configuration, tf.__version__))


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname).1s {NAME}: %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


async def _serve(flags: Flags, configuration: Configuration, tensorflow_version: str) -> int:
    # These import TensorFlow.
    from serving.engines.embedded_tfserving.grpc_front_end import GrpcFrontEnd
    from serving.engines.embedded_tfserving.grpc_service import GrpcService
    from serving.engines.embedded_tfserving.json_process import JsonProcess
    from serving.engines.embedded_tfserving.manager import Manager
    from serving.engines.embedded_tfserving.metrics import Metrics
    from serving.engines.embedded_tfserving.predict import Predictor
    from serving.engines.embedded_tfserving.rest_api import RestApi
    from serving.engines.embedded_tfserving.rest_front_end import RestFrontEnd
    from serving.engines.embedded_tfserving.workers import Workers

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    parameters = configuration.batching
    metrics = Metrics(tensorflow_version)
    cpus = command_line.CPUS
    workers = Workers(loop, BATCH_WORKERS, BATCH_WORKERS) if parameters else Workers(loop, cpus, DIRECT_WORKERS)
    manager = Manager(flags, parameters, workers, metrics)
    gc.freeze()  # what is imported stays: later collections need not look at it
    loading = asyncio.ensure_future(manager.start(configuration.models))
    await asyncio.wait([loading, stopping := asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    if stopping.done():
        os._exit(0)  # nothing is served yet, and a model that is loading cannot be interrupted
    loading.result()

    predictor = Predictor(manager, metrics)
    service = GrpcService(predictor, as_content=flags.enable_serialization_as_tensor_content)
    # The real server keeps one of its threads for itself: with 8 threads the eighth call is refused.
    grpc = GrpcFrontEnd(service.methods(), flags.grpc_max_threads - 1, *command_line.connection_age_s(flags))
    api = RestApi(predictor, metrics, configuration.metrics_path, flags, JsonProcess(loop))
    rest = RestFrontEnd(api.handle, flags.rest_api_timeout_in_ms)
    address = flags.bind_address
    listeners = [await _listen(grpc.protocol, address, flags.port, "port")]
    log.info("Running gRPC %s at %s:%d", NAME, address, flags.port)
    background = [manager.follow(), _follow_config(flags, manager)]
    if flags.rest_api_port:
        listeners.append(await _listen(rest.protocol, address, flags.rest_api_port, "rest_api_port"))
        background.append(rest.watch())
        log.info("Exporting HTTP/REST API at %s:%d", address, flags.rest_api_port)
    tasks = [asyncio.ensure_future(work) for work in background]

    await stopping
    log.info("draining")
    service.serving = False
    for listener in listeners:
        listener.close()
    grpc.drain()
    rest.drain()
    deadline = loop.time() + GRACE_S
    while (grpc.connections or rest.connections) and loop.time() < deadline:
        await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    log.info("stopped" if not (grpc.connections or rest.connections) else "stopped; some calls were not finished")
    sys.stderr.flush()
    # TensorFlow's threads and a call past the grace period would hold up an ordinary exit.
    os._exit(0)


async def _follow_config(flags: Flags, manager: Manager) -> None:
    """Follow the model config file, every --model_config_file_poll_wait_seconds."""
    if not flags.model_config_file or flags.model_config_file_poll_wait_seconds <= 0:
        return
    path = Path(flags.model_config_file)
    content = path.read_bytes()
    while True:
        await asyncio.sleep(flags.model_config_file_poll_wait_seconds)
        try:
            before, content = content, path.read_bytes()
            if content != before:
                await manager.reload(config.model_configs(flags))
        except (OSError, ServingError) as error:
            log.error("--model_config_file=%s: %s; what is served stays", path, error)


async def _listen(protocol: Callable[[], asyncio.Protocol], address: str, port: int, flag: str) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(protocol, address, port, backlog=1024)
    except OSError as error:
        log.error("--%s=%d: the port cannot be opened (%s); free it or give another", flag, port, error.strerror)
        what = "BuildAndStart gRPC server" if flag == "port" else f"start HTTP Server at {address}:{port}"
        raise invalid(f"Failed to {what}") from None
