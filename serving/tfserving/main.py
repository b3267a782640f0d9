"""Start the server, run it until SIGTERM or SIGINT, and drain it.

The front ends share one event loop (the main thread); TensorFlow runs on `workers` and on its own threads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from models import problem
from models.problem import Problem
from serving.tfserving import flags as command_line
from serving.tfserving.flags import Flags
from serving.tfserving.identity import NAME, VERSION
from serving.tfserving.status import ServingError

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
    flags = command_line.parse(argv)
    _log_to_stderr()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow leaves oneDNN off on CPUs without AVX-512; with it the convolutions here are three times as fast.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # Without this `import tensorflow` loads all of Keras, a third of its time.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    if not flags.version:
        log.info("%s %s starting (not TensorFlow Serving; the TensorFlow runtime is real)", NAME, VERSION)
        for name in flags.without_effect:
            log.warning("--%s has no effect here", name)
    import tensorflow as tf

    if flags.version:
        print(f"{NAME}: {VERSION}\nTensorFlow Library: {tf.__version__}")
        return 0
    tf.get_logger().setLevel(logging.ERROR)
    if flags.port == 0:
        raise Problem("--port=0: the gRPC port cannot be switched off; give a port")
    if flags.port == flags.rest_api_port:
        raise Problem(f"--rest_api_port={flags.rest_api_port}: it is the gRPC port as well; give another")
    try:
        return asyncio.run(_serve(flags, tf.__version__))
    except ServingError as error:
        print(f"Failed to start server. Error: {error}")
        return 255


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname).1s {NAME}: %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


async def _serve(flags: Flags, tensorflow_version: str) -> int:
    # These import TensorFlow, which --help and a mistyped flag should not have to wait for.
    from serving.tfserving import config
    from serving.tfserving.grpc_server import GrpcServer
    from serving.tfserving.grpc_service import GrpcService
    from serving.tfserving.manager import Manager
    from serving.tfserving.metrics import Metrics
    from serving.tfserving.predict import Predictor
    from serving.tfserving.rest_api import RestApi
    from serving.tfserving.rest_server import RestServer
    from serving.tfserving.workers import Workers

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    configs = config.model_configs(flags)
    parameters = config.batching_parameters(flags)
    metrics_path = config.metrics_path(flags)
    metrics = Metrics(tensorflow_version)
    cpus = command_line.CPUS
    workers = Workers(loop, BATCH_WORKERS, BATCH_WORKERS) if parameters else Workers(loop, cpus, DIRECT_WORKERS)
    manager = Manager(flags, parameters, workers, metrics)
    loading = loop.run_in_executor(None, manager.load, configs, stop.is_set)
    while not loading.done():
        await asyncio.wait([loading], timeout=0.1)
        if stop.is_set():
            os._exit(0)  # nothing is served yet, and a model that is loading cannot be interrupted
    loading.result()

    predictor = Predictor(manager, metrics)
    service = GrpcService(predictor, as_content=flags.enable_serialization_as_tensor_content)
    # The real server keeps one of its threads for itself: with 8 threads the eighth call is refused.
    grpc = GrpcServer(service.methods(), max_calls=flags.grpc_max_threads - 1)
    rest = RestServer(RestApi(predictor, metrics, metrics_path, flags).handle, flags.rest_api_timeout_in_ms)
    listeners = [await _listen(grpc.protocol, flags.port, "port")]
    log.info("Running gRPC %s at 0.0.0.0:%d", NAME, flags.port)
    watch = None
    if flags.rest_api_port:
        listeners.append(await _listen(rest.protocol, flags.rest_api_port, "rest_api_port"))
        watch = asyncio.ensure_future(rest.watch())
        log.info("Exporting HTTP/REST API at 0.0.0.0:%d", flags.rest_api_port)

    await stop.wait()
    log.info("draining")
    service.serving = False
    for listener in listeners:
        listener.close()
    grpc.drain()
    rest.drain()
    deadline = loop.time() + GRACE_S
    while (grpc.connections or rest.connections) and loop.time() < deadline:
        await asyncio.sleep(0.01)
    if watch:
        watch.cancel()
    log.info("stopped" if not (grpc.connections or rest.connections) else "stopped; some calls were not finished")
    sys.stderr.flush()
    # TensorFlow's threads and a call past the grace period would hold up an ordinary exit.
    os._exit(0)


async def _listen(protocol: Callable[[], asyncio.Protocol], port: int, flag: str) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(protocol, "0.0.0.0", port, backlog=1024)
    except OSError as error:
        raise Problem(
            f"--{flag}={port}: the port cannot be opened ({error.strerror}); free it or give another"
        ) from None
