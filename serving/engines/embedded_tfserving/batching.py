"""Batching by TensorFlow's own batch scheduler.

The model's subgraph becomes the function of a `BatchFunction` op in the same session, which forms batches, waits,
refuses and splits as TensorFlow Serving's scheduler does (it is the same C++ class). A call of that op blocks a
thread until its batch is computed, so the requests that arrived in one turn of the event loop share one call: rows are
joined once, and one thread serves many requests. Requests of different inner shapes never share a batch.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import tensorflow as tf

from serving.engines.embedded_tfserving.config import BatchingParameters
from serving.engines.embedded_tfserving.direct import Direct, Done
from serving.engines.embedded_tfserving.identity import NAME
from serving.engines.embedded_tfserving.metrics import Metrics
from serving.engines.embedded_tfserving.servable import Call, Servable
from serving.engines.embedded_tfserving.signature import Signature
from serving.engines.embedded_tfserving.status import ServingError, invalid
from serving.engines.embedded_tfserving.workers import Workers
from serving.wire.grpc_status import Code

log = logging.getLogger(NAME)

# Calls that may block at once, beyond those that fill the scheduler's queue with whole batches. When all are taken,
# requests wait here and join into fuller calls.
SPARE_CALLS = 32
MAX_SHAPES = 32
# How the runtime names the parts of the graph that are ours, in front of or behind an error's own words.
OUR_NODES = re.compile(
    r"^{{function_node __inference_computation_\d+}} |\n\t \[\[{{node batch(_\d+)?/BatchFunction}}\]\]"
)


class Queue:
    """One signature's requests of one inner shape, and the `BatchFunction` that serves them."""

    def __init__(
        self,
        servable: Servable,
        signature: Signature,
        parameters: BatchingParameters,
        workers: Workers,
        metrics: Metrics,
    ) -> None:
        self.parameters = parameters
        self.workers = workers
        self.metrics = metrics
        self.call = _batched_call(servable, signature, parameters)
        self.waiting: deque[tuple[list[np.ndarray], int, Done]] = deque()
        self.waiting_rows = 0
        self.calls = 0
        self.max_calls = parameters.max_enqueued_batches + parameters.num_batch_threads + SPARE_CALLS
        self.max_waiting_rows = parameters.max_enqueued_batches * parameters.max_batch_size
        self.flush_due = False
        self.tokens = count(1, parameters.max_batch_size + 1)

    def submit(self, arrays: list[np.ndarray], done: Done) -> None:
        """Queue one request."""
        rows = len(arrays[0])
        if self.waiting_rows + rows > self.max_waiting_rows and self.calls >= self.max_calls:
            batches = self.parameters.max_enqueued_batches
            message = (
                "The batch scheduling queue to which this task was submitted is full; currently "
                f"{batches} batches enqueued and max_enqueued_batches is {batches}"
            )
            done(None, ServingError(Code.UNAVAILABLE, message))
            return
        self.waiting.append((arrays, rows, done))
        self.waiting_rows += rows
        if not self.flush_due:
            self.flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Hand what waits to the scheduler, in calls of at most one batch."""
        self.flush_due = False
        while self.waiting and self.calls < self.max_calls:
            group = [self.waiting.popleft()]
            rows = group[0][1]
            while self.waiting and rows + self.waiting[0][1] <= self.parameters.max_execution_batch_size:
                group.append(self.waiting.popleft())
                rows += group[-1][1]
            self.waiting_rows -= rows
            self.calls += 1
            self.workers.submit(partial(self._run, group, rows), partial(self._ended, group))

    def _run(self, group: list[tuple[list[np.ndarray], int, Done]], rows: int) -> tuple[list[np.ndarray], float]:
        """On a worker's thread."""
        arrays = (
            group[0][0]
            if len(group) == 1
            else [np.concatenate(parts) for parts in zip(*[g[0] for g in group], strict=True)]
        )
        # Every row carries a number of its own: rows that the scheduler adds as padding repeat one.
        tokens = np.arange(rows, dtype=np.int64) + next(self.tokens)
        submitted = time.time()
        try:
            return self.call([*arrays, tokens]), submitted
        except ServingError as error:
            raise ServingError(error.code, OUR_NODES.sub("", error.message)) from None

    def _ended(
        self,
        group: list[tuple[list[np.ndarray], int, Done]],
        result: tuple[list[np.ndarray], float] | None,
        error: BaseException | None,
    ) -> None:
        self.calls -= 1
        if self.waiting and not self.flush_due:
            self._flush()
        if result is None:
            failure = error if isinstance(error, ServingError) else ServingError(Code.INTERNAL, str(error))
            for _, _, done in group:
                done(None, failure)
            return
        (*outputs, notes), submitted = result
        self._measure(group, notes, submitted)
        start = 0
        for _, rows, done in group:
            done([output[start : start + rows] for output in outputs], None)
            start += rows

    def _measure(
        self, group: Sequence[tuple[list[np.ndarray], int, Done]], notes: np.ndarray, submitted: float
    ) -> None:
        """`notes` has four numbers a row: its place in the batch, the batch's size, its padding, and when it began."""
        metrics = self.metrics
        metrics.wrapped_run_count.of().add(len(group))
        sizes = metrics.input_batch_size.of()
        waits = metrics.queuing_latency.of(self.parameters.thread_pool_name)
        waited = max(0.0, (notes[0, 3] - submitted) * 1e6)
        for _, rows, _ in group:
            sizes.observe(rows)
            waits.observe(waited)
        for _, size, padding, _ in notes[notes[:, 0] == 0].tolist():
            metrics.processed_batch_size.of().observe(size)
            metrics.padding_size.of(str(int(size))).observe(padding)


def _batched_call(servable: Servable, signature: Signature, parameters: BatchingParameters) -> Call:
    """The signature behind a `BatchFunction`. Takes a further int64 input, a number for each row, and returns a further
    output: float64 [rows, 4] of place in the batch, batch size with padding, rows of padding, start time in s."""
    graph = servable.graph
    inputs, outputs = signature.inputs, signature.outputs
    allowed = parameters.allowed_batch_sizes
    most = parameters.max_execution_batch_size
    if parameters.splitting and most < parameters.max_batch_size:
        # The op takes the largest executed size from this list only.
        allowed = [*(size for size in allowed if size < most), most] if allowed else list(range(1, most + 1))
    with graph.as_default():
        nodes = [info.name.split(":")[0] for info in outputs]
        subgraph = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), nodes)

        def body(*tensors: Any) -> list[Any]:
            feeds = {info.name: tensor for info, tensor in zip(inputs, tensors[:-1], strict=True)}
            tokens = tensors[-1]
            began = tf.timestamp()
            size = tf.shape(tokens)[0]
            padding = tf.reduce_sum(tf.cast(tf.equal(tokens, tokens[0]), tf.int32)) - 1
            batch = tf.stack([tf.cast(size, tf.float64), tf.cast(padding, tf.float64), began])
            notes = tf.concat(
                [tf.cast(tf.range(size), tf.float64)[:, tf.newaxis], tf.tile(batch[tf.newaxis], [size, 1])], axis=1
            )
            # Notes come first in the graph so that `began` is not taken after the model has run.
            with tf.control_dependencies([began]):
                results = tf.import_graph_def(
                    subgraph, input_map=feeds, return_elements=[info.name for info in outputs], name=""
                )
            return [*results, notes]

        feeds = [tf.compat.v1.placeholder(tf.as_dtype(info.dtype)) for info in inputs]
        feeds.append(tf.compat.v1.placeholder(tf.int64))
        batched = tf.nondifferentiable_batch_function(
            num_batch_threads=parameters.num_batch_threads,
            max_batch_size=parameters.max_batch_size,
            batch_timeout_micros=parameters.batch_timeout_micros,
            allowed_batch_sizes=allowed or None,
            max_enqueued_batches=parameters.max_enqueued_batches,
            autograph=False,
            enable_large_batch_splitting=parameters.splitting,
        )(body)(*feeds)
    return servable.callable([feed.name for feed in feeds], [tensor.name for tensor in batched])


class Batcher:
    """Runs a servable's requests in batches."""

    def __init__(self, servable: Servable, parameters: BatchingParameters, workers: Workers, metrics: Metrics) -> None:
        parameters.check()
        self.servable = servable
        self.parameters = parameters
        self.workers = workers
        self.metrics = metrics
        self.direct = Direct(servable, workers)
        self.unbatched = set(servable.uncallable)  # names of signatures
        self.queues: dict[tuple[str, tuple[tuple[int, ...], ...]], Queue] = {}
        for signature in servable.signatures.values():
            shapes = [info.shape for info in signature.inputs]
            if shapes and all(shape and min(shape[1:], default=0) >= 0 for shape in shapes):
                queue = self._queue(signature, tuple(shape[1:] for shape in shapes if shape))
                if queue is not None:
                    servable.warm_up(signature, queue.call, np.zeros(1, np.int64))

    def submit(self, signature: Signature, arrays: list[np.ndarray], done: Done) -> None:
        """Run one request; `done` is called on the event loop's thread. Raises `ServingError`."""
        if not arrays:
            self.direct.submit(signature, arrays, done)
            return
        if not all(array.ndim for array in arrays):
            raise invalid("Batching Run() input tensors must have at least one dimension")
        rows = len(arrays[0])
        if any(len(array) != rows for array in arrays):
            raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
        queue = self._queue(signature, tuple(array.shape[1:] for array in arrays)) if rows else None
        if queue is None:
            # An empty batch would wait for company for ever; and a client must not make queues without bound, nor any
            # for what only the graph can refuse.
            self.direct.submit(signature, arrays, done)
        else:
            queue.submit(arrays, done)

    def _queue(self, signature: Signature, shapes: tuple[tuple[int, ...], ...]) -> Queue | None:
        key = (signature.name, shapes)
        queue = self.queues.get(key)
        if queue is None and signature.name not in self.unbatched and len(self.queues) < MAX_SHAPES:
            foreseen = zip(signature.inputs, shapes, strict=True)
            if all(info.fits((1, *shape)) for info, shape in foreseen):
                try:
                    queue = Queue(self.servable, signature, self.parameters, self.workers, self.metrics)
                except (ServingError, TypeError, ValueError) as error:
                    log.warning("%s of %s is served without batching: %s", signature.name, self.servable.name, error)
                    self.unbatched.add(signature.name)
                else:
                    self.queues[key] = queue
        return queue
