"""What both front ends do with a prediction: run it, time it, count it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from serving.engines.embedded_tfserving.manager import Manager, Version
from serving.engines.embedded_tfserving.metrics import UNKNOWN_MODEL, Histogram, Metrics
from serving.engines.embedded_tfserving.signature import Signature
from serving.engines.embedded_tfserving.status import ServingError
from serving.wire.grpc_status import Code

Finish = Callable[[list[np.ndarray] | None, ServingError | None], None]


class Predictor:
    """Runs predictions on a manager's models and records them."""

    def __init__(self, manager: Manager, metrics: Metrics) -> None:
        self.manager = manager
        self.metrics = metrics
        self.runtimes: dict[str, Histogram] = {}

    def run(self, version: Version, signature: Signature, arrays: list[np.ndarray], finish: Finish) -> None:
        """Call `finish(outputs, error)` on the event loop's thread once; raises `ServingError` for what is refused
        at once."""
        started = time.perf_counter()
        runtime = self.runtimes.get(version.model)
        if runtime is None:
            runtime = self.metrics.runtime_latency.of(version.model, "Predict", "TF1")
            self.runtimes[version.model] = runtime

        def done(outputs: list[np.ndarray] | None, error: ServingError | None) -> None:
            version.end()
            runtime.observe((time.perf_counter() - started) * 1e6)
            finish(outputs, error)

        assert version.servable is not None  # it was found available in this turn of the event loop, or is held
        assert version.runner is not None
        version.servable.check_ranks(signature, arrays)
        version.begin()
        try:
            version.runner.submit(signature, arrays, done)
        except ServingError:
            version.end()
            raise

    def count(self, model: str, api: str, entrypoint: str, started: float, error: ServingError | None) -> None:
        """Record a request that began at `started` (`time.perf_counter`) and has been answered now."""
        known = model if model in self.manager.models else UNKNOWN_MODEL
        code = error.code if error else Code.OK
        self.metrics.request_count.of(known, code.name).add()
        if error is None:
            self.metrics.request_latency.of(known, api, entrypoint).observe((time.perf_counter() - started) * 1e6)
