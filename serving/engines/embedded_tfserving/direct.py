"""Running requests one by one, without batching: on the event loop's thread where that is the shortest way, else on a
worker's.

On one CPU, a second thread computes nothing sooner: handing a request over to it and back only adds switches of the
interpreter lock, more than a small model's own time. So there a call that is known to be short runs at once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from serving.engines.embedded_tfserving.flags import CPUS
from serving.engines.embedded_tfserving.servable import Servable
from serving.engines.embedded_tfserving.signature import Signature
from serving.engines.embedded_tfserving.status import ServingError
from serving.engines.embedded_tfserving.workers import Workers
from serving.wire.grpc_status import Code

Done = Callable[[list[np.ndarray] | None, ServingError | None], None]

# Any Python thread may hold the others up for so long.
SHORT_S = sys.getswitchinterval()
# A call is known by its signature and input shapes; clients choose the shapes, so that these are bounded.
MAX_KNOWN = 256
LOOPS = ("While", "StatelessWhile", "Enter")


class Direct:
    """Runs a servable's requests one by one.

    A call runs on the event loop's thread when there is one CPU, its graph has no loop (whose time could depend on the
    input's values), and the last call of its signature and shapes took less than `SHORT_S`.
    """

    def __init__(self, servable: Servable, workers: Workers, cpus: int = CPUS) -> None:
        self.servable = servable
        self.workers = workers
        self.at_once = cpus == 1 and not servable.has_op(LOOPS)
        self.took_s: dict[tuple[object, ...], float] = {}

    def submit(self, signature: Signature, arrays: list[np.ndarray], done: Done) -> None:
        """Run one request; `done` is called on the event loop's thread, perhaps before this returns."""
        key = (signature.name, *[array.shape for array in arrays])
        if self.at_once and self.took_s.get(key, SHORT_S) < SHORT_S:
            result, error = None, None
            try:
                result = self._run(key, signature, arrays)
            except Exception as caught:  # as on a worker's thread
                error = caught
            _telling(done)(result, error)
        else:
            self.workers.submit(partial(self._run, key, signature, arrays), _telling(done))

    def _run(self, key: tuple[object, ...], signature: Signature, arrays: list[np.ndarray]) -> list[np.ndarray]:
        started = time.perf_counter()
        outputs = self.servable.run(signature, arrays)
        if self.at_once and (key in self.took_s or len(self.took_s) < MAX_KNOWN):
            self.took_s[key] = time.perf_counter() - started
        return outputs


def _telling(done: Done) -> Callable[[Any, BaseException | None], None]:
    def ended(result: Any, error: BaseException | None) -> None:
        failure = error if isinstance(error, ServingError) or error is None else ServingError(Code.INTERNAL, str(error))
        done(result, failure)

    return ended
