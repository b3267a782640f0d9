"""The generator as Locust's master and workers: one schedule, shared exactly, started at one moment, merged at the end.

The master has the plan and writes all results; a worker needs no file: plan and reference images come to it over
Locust's own connection. Times cross machines as the master's clock; a worker on the master's machine has the same one,
any other measures how far apart theirs are (Cristian's algorithm: the quickest of several questions).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import gevent
from gevent.queue import Empty, Queue

from loadtest.experiment.phases import LoadPhase, OpenLoopPhase, Plan, TrialPhase, WarmUpPhase
from loadtest.generator import messages
from loadtest.generator.answers import Reference, RequestStream
from loadtest.generator.live import Slice, join
from loadtest.generator.loader import Loader, Report, Rows
from loadtest.generator.messages import (
    Answer,
    Begin,
    Begun,
    Done,
    End,
    Go,
    Hello,
    Order,
    Piece,
    Ping,
    Pong,
    Prepare,
    Ready,
    Stop,
    Stream,
    Trouble,
)
from loadtest.generator.open_loop import START_MARGIN_S
from loadtest.generator.outcomes import Outcomes, merge
from loadtest.generator.punctuality import punctual
from loadtest.generator.timer import clock
from models.problem import Problem
from serving.this_machine import boot_id

_Kind = TypeVar("_Kind")

_PINGS = 11
_CONNECT_S = 60.0
_PREPARE_S = 60.0
# From "go" to the first request of the lead-in: the message must be there before.
_GO_MARGIN_S = 0.25 + START_MARGIN_S


class Master:
    """The master's side: Locust's workers as `Workers`. `expected`: how many there are to be."""

    def __init__(self, plan: Plan, runner: Any, expected: int) -> None:
        self.count = expected
        self._plan, self._runner = plan, runner
        self._inbox: Queue = Queue()
        self._workers: list[str] = []
        self._number = 0
        runner.register_message(messages.TO_MASTER, self._receive)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Wait for the workers and give each its place; in the end, tell them that it is over."""
        plan = self._plan
        greetings = self._gather(Hello, _CONNECT_S, "name -u as many users as there are workers")
        self._workers = sorted(greetings)
        mix = tuple(
            Stream(target=one.target, reference=one.reference.read_bytes(), share=one.share) for one in plan.traffic
        )
        for index, worker in enumerate(self._workers):
            here = greetings[worker].machine == boot_id()
            begin = Begin(
                worker=index,
                workers=self.count,
                mix=mix,
                payloads=plan.payloads,
                cores=_cores(plan.cores, index, self.count) if here else (),
            )
            self._tell(begin, worker)
        self._gather(Begun, _PREPARE_S)
        try:
            yield
        finally:
            self._tell(End())

    def warm_up(self, phase: WarmUpPhase, report: Report) -> None:
        """See `Workers`."""
        self._run(phase, report)

    def load(self, phase: TrialPhase, report: Report) -> tuple[float, Outcomes]:
        """See `Workers`."""
        return self._run(phase, report)

    def _run(self, phase: LoadPhase, report: Report) -> tuple[float, Outcomes]:
        self._number += 1
        self._tell(Prepare(number=self._number, phase=phase))
        self._gather(Ready, _PREPARE_S)
        lead_in_s = 0.0 if isinstance(phase, WarmUpPhase) else phase.lead_in_s
        started = clock() + _GO_MARGIN_S + lead_in_s
        started_at = time.time() + started - clock()
        self._tell(Go(number=self._number, at=started))
        together = _Together(self._workers)
        shares: dict[str, Outcomes] = {}
        patience = _patience_s(phase)
        while len(shares) < self.count:
            worker, answer = self._next(patience)
            if isinstance(answer, Piece):
                together.add(worker, answer.slice, answer.now)
            elif isinstance(answer, Done):
                shares[worker] = answer.outcomes
                together.ended(worker)
            for piece, now in together.ready():
                if not report(piece, now, _nothing):
                    self._tell(Stop(number=self._number))
        return started_at, merge([shares[worker] for worker in self._workers])

    def _gather(self, kind: type[_Kind], timeout_s: float, fix: str = "see the log") -> dict[str, _Kind]:
        """One message of a kind from every worker. Raises `Problem` where one does not come."""
        found: dict[str, _Kind] = {}
        deadline = clock() + timeout_s
        while len(found) < self.count:
            try:
                worker, answer = self._next(max(0.1, deadline - clock()))
            except TimeoutError:
                raise Problem(f"{len(found)} of {self.count} workers answered in {timeout_s:g} s: {fix}") from None
            if isinstance(answer, kind):
                found[worker] = answer
        return found

    def _next(self, timeout_s: float) -> tuple[str, Answer]:
        """The next message and its worker. Raises TimeoutError, and `Problem` where a worker is in trouble or lost."""
        deadline = clock() + timeout_s
        while True:
            lost = [node.id for node in self._runner.clients.missing if node.id in self._workers]
            if lost:
                raise Problem(f"the load generator's worker {lost[0]} is lost: did its process die?")
            try:
                worker, answer = self._inbox.get(timeout=min(1.0, max(0.0, deadline - clock())))
            except Empty:
                if clock() >= deadline:
                    raise TimeoutError from None
                continue
            if isinstance(answer, Trouble):
                raise Problem(answer.text)
            return worker, answer

    def _tell(self, order: Order, worker: str | None = None) -> None:
        """Send to one worker, or to all."""
        self._runner.send_message(messages.TO_WORKER, messages.encode(order), worker)

    def _receive(self, msg: Any, **_: Any) -> None:
        answer = messages.answer(msg.data)
        if isinstance(answer, Ping):
            self._tell(Pong(asked=answer.asked, now=clock()), msg.node_id)
        else:
            self._inbox.put((msg.node_id, answer))


class _Together:
    """Puts the n-th slices of all workers together, which are of the same stretch of time."""

    def __init__(self, workers: Sequence[str]) -> None:
        self._waiting: dict[str, list[tuple[Slice, float]]] = {worker: [] for worker in workers}
        self._going = set(workers)

    def add(self, worker: str, piece: Slice, now: float) -> None:
        self._waiting[worker].append((piece, now))

    def ended(self, worker: str) -> None:
        self._going.discard(worker)

    def ready(self) -> Iterator[tuple[Slice, float]]:
        """The slices to which no worker has anything to add; (all of them together, until when)."""
        while any(self._waiting.values()) and all(self._waiting[worker] for worker in self._going):
            pieces = [waiting.pop(0) for waiting in self._waiting.values() if waiting]
            yield join([piece for piece, _ in pieces]), max(now for _, now in pieces)


class Worker:
    """A worker's side. It serves phases until the master says that it is over."""

    def __init__(self, runner: Any, rows: Rows) -> None:
        self._runner, self._rows = runner, rows
        self._inbox: Queue = Queue()
        self._stopped = 0  # the number of the latest phase that is to stop
        self._ahead_s = 0.0  # the master's clock minus ours
        runner.register_message(messages.TO_WORKER, self._receive)

    def serve(self) -> None:
        """Announce this worker and do what the master says."""
        self._tell(Hello(machine=boot_id()))
        begin = self._await(Begin)
        if begin is None:
            return
        try:
            # The master reports the trouble; this process then only has to end.
            self._serve(begin)
        except Problem as problem:
            self._tell(Trouble(text=str(problem)))
        except Exception as failure:
            logging.getLogger(__name__).exception("the worker failed")
            self._tell(Trouble(text=f"a worker failed: {type(failure).__name__}: {failure}"))

    def _serve(self, begin: Begin) -> None:
        loader = Loader(
            mix=[RequestStream(one.target, Reference(one.reference), one.share) for one in begin.mix],
            payloads=begin.payloads,
            rows=self._rows,
            worker=begin.worker,
            workers=begin.workers,
        )
        with punctual(begin.cores):
            self._ahead_s = self._measure_clock()
            self._tell(Begun())
            while (order := self._await(Prepare)) is not None:
                self._run(loader, order.number, order.phase)

    def _run(self, loader: Loader, number: int, phase: LoadPhase) -> None:
        def ready() -> float:
            self._tell(Ready(number=number))
            go = self._await(Go)
            if go is None:
                raise Problem("the master ended the run")
            at = go.at - self._ahead_s
            lead_in_s = 0.0 if isinstance(phase, WarmUpPhase) else phase.lead_in_s
            gevent.sleep(max(0.0, at - lead_in_s - START_MARGIN_S - clock()))
            return at

        def report(piece: Slice, now: float, between: Callable[[], None]) -> bool:
            between()
            self._tell(Piece(slice=piece, now=now + self._ahead_s))
            return self._stopped != number

        if isinstance(phase, WarmUpPhase):
            outcomes = loader.warm_up(phase, report, ready)
        elif isinstance(phase, OpenLoopPhase):
            outcomes = loader.open_loop(phase, ready, report)
        else:
            outcomes = loader.closed_loop(phase, ready, report)
        self._tell(Done(number=number, outcomes=outcomes))

    def _measure_clock(self) -> float:
        """How far the master's clock is ahead of ours, in seconds: from the question that was answered most quickly."""
        best = (float("inf"), 0.0)
        for _ in range(_PINGS):
            self._tell(Ping(asked=clock()))
            pong = self._await(Pong)
            if pong is None:
                break
            took = clock() - pong.asked
            best = min(best, (took, pong.now - pong.asked - took / 2))
        return best[1]

    def _await(self, kind: type[_Kind]) -> _Kind | None:
        """The next message of a kind; None when it is over."""
        while True:
            order = self._inbox.get()
            if isinstance(order, End):
                return None
            if isinstance(order, kind):
                return order

    def _tell(self, answer: Answer) -> None:
        self._runner.send_message(messages.TO_MASTER, messages.encode(answer))

    def _receive(self, msg: Any, **_: Any) -> None:
        order = messages.order(msg.data)
        if isinstance(order, Stop):
            self._stopped = order.number
        else:
            self._inbox.put(order)


def _cores(cores: tuple[int, ...], worker: int, workers: int) -> tuple[int, ...]:
    """A worker's cores: its share where there are enough for all, else all of them."""
    return cores[worker::workers] if len(cores) >= workers else cores


def _patience_s(phase: LoadPhase) -> float:
    """Seconds without any message after which a phase has failed."""
    return phase.timeout_s + 30.0


def _nothing() -> None:
    """The master sends no requests: nothing is due between two pieces of its work."""
