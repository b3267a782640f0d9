"""Puts a worker's share of a phase's load on the target: what the generator does, alone or as one of several."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from loadtest.experiment.phases import ClosedLoopPhase, LoadPhase, OpenLoopPhase, WarmUpPhase
from loadtest.generator import tls_session, tunnels
from loadtest.generator.answers import Pool, RequestStream
from loadtest.generator.arrivals import schedule, share
from loadtest.generator.closed_loop import ClosedLoop
from loadtest.generator.expiry import Client
from loadtest.generator.http1 import HttpClient
from loadtest.generator.http2 import GrpcClient, RestClient
from loadtest.generator.live import Reader, Slice
from loadtest.generator.open_loop import TICK_S, OpenLoop
from loadtest.generator.outcomes import Outcomes
from loadtest.generator.punctuality import stolen_share
from loadtest.generator.recording import Finish
from loadtest.generator.timer import clock
from serving.credentials import headers_of
from serving.requests import grpc_method

# Connections opened before the clock; more are opened when more requests are in flight.
_CONNECTIONS = 64
# A closed loop goes round so many draws: not a multiple of the payloads, so that the answers kept are of all of them.
_ROUND = 8191
# How often a warm-up's window is looked at before it closes.
_LOOKS = 5

# (protocol, what is measured) -> where Locust's statistics take slices of it.
Rows = Callable[[str, str], Callable[[Slice], None]]
# Learns what happened: (slice, until when in seconds of `timer.clock`, what to call between pieces of its own work);
# returns whether a warm-up or an open loop should go on.
Report = Callable[[Slice, float, Callable[[], None]], bool]


@dataclass(frozen=True)
class Loader:
    """One of `workers` that share each phase's load. `mix`: the models that one server is asked for; `payloads`:
    distinct images of each; `rows`: Locust's statistics."""

    mix: Sequence[RequestStream]
    payloads: int
    rows: Rows
    worker: int = 0
    workers: int = 1

    def warm_up(self, phase: WarmUpPhase, report: Report, ready: Callable[[], float | None]) -> Outcomes:
        """A closed loop until `report` has seen enough. `ready`: see `open_loop`."""
        draw = np.random.default_rng([phase.seed, self.worker])
        payloads = self._payloads(phase, draw)
        choice = payloads.choose(_ROUND, draw).tolist() if len(self.mix) > 1 else None
        most = phase.most_rate / self.workers
        loop = ClosedLoop(payloads.encoded, self._concurrency(phase.concurrency), choice, most_rate=most)
        reader, row = Reader(loop.recording), self._row(phase.protocol, "warm-up")

        def tick(now: float) -> bool:
            piece = reader.read()
            row(piece)
            return report(piece, now, _nothing)

        with self._client(phase.protocol, loop.finish, _nothing, self._concurrency(phase.concurrency)) as client:
            started = ready() or clock()
            loop.run(client, phase.timeout_s, phase.window_s / _LOOKS, tick)
        return Outcomes.of(loop.recording, started)

    def open_loop(self, phase: OpenLoopPhase, ready: Callable[[], float | None], report: Report) -> Outcomes:
        """This worker's share of a schedule. `ready` is called when all is prepared, and says when (seconds of
        `timer.clock`) the measured part starts; None: at once, after the lead-in."""
        due = schedule(phase.arrival, phase.rate, phase.duration_s, phase.seed, phase.lead_in_s, phase.arrivals)
        # The same draws in every worker, which keeps its share of them: not the arrivals' own stream.
        draw = np.random.default_rng([phase.seed, 1])
        payloads = self._payloads(phase, draw)
        mine = share(len(due), self.worker, self.workers)
        choice = payloads.choose(len(due), draw)[mine]
        keep = (draw.random(len(due)) < payloads.share_to_check(phase.check_share))[mine] & (due[mine] >= 0)
        loop = OpenLoop(
            due[mine],
            payloads.encoded,
            choice,
            keep,
            lead_in_s=phase.lead_in_s,
            max_in_flight=self._concurrency(phase.max_in_flight),
            timeout_s=phase.timeout_s,
        )
        recording = loop.recording
        reader, row = Reader(recording), self._row(phase.protocol, f"{phase.scenario} {phase.rate:g}/s")

        def tick(now: float) -> None:
            piece = reader.read()
            loop.between()
            row(piece)
            loop.between()
            if not report(piece, now, loop.between) and loop.given_up_at == math.inf:
                loop.give_up()

        most = self._concurrency(phase.max_in_flight)
        with self._client(phase.protocol, recording.finish, loop.between, most) as client:
            started = ready()
            before, _ = stolen_share()
            busy = loop.run(client, tick, started)
            _, stolen = stolen_share(before)
            tick(clock())
        wrong = payloads.wrong(recording.bodies, choice)
        for request in wrong:
            recording.status[request] = recording.code("wrong_answer")
        counts = {"checked": len(recording.bodies), "wrong": len(wrong)}
        given_up = loop.given_up_at
        return Outcomes.of(
            recording,
            loop.started,
            given_up,
            models=payloads.asked(choice),
            busy=busy,
            cpus=busy,
            stolen=stolen,
            given_up_s=max(0.0, given_up - loop.started),
            **counts,
        )

    def closed_loop(self, phase: ClosedLoopPhase, ready: Callable[[], float | None], report: Report) -> Outcomes:
        """This worker's share of a closed loop's concurrency."""
        draw = np.random.default_rng([phase.seed, 1, self.worker])
        payloads = self._payloads(phase, draw)
        choice = payloads.choose(_ROUND, draw)
        keep = draw.random(len(choice)) < payloads.share_to_check(phase.check_share)
        concurrency, most = self._concurrency(phase.concurrency), phase.most_rate / self.workers
        loop = ClosedLoop(payloads.encoded, concurrency, choice.tolist(), keep.tolist(), most)
        reader, row = Reader(loop.recording), self._row(phase.protocol, f"{phase.scenario}")
        with self._client(phase.protocol, loop.finish, _nothing, self._concurrency(phase.concurrency)) as client:
            started = ready() or clock() + phase.lead_in_s

            def tick(now: float) -> bool:
                piece = reader.read()
                row(piece)
                report(piece, now, _nothing)
                return now < started + phase.duration_s

            before, _ = stolen_share()
            began, cpu = clock(), _cpu_seconds()
            loop.recording.counted_from = started
            loop.run(client, phase.timeout_s, TICK_S, tick)
            busy = (_cpu_seconds() - cpu) / (clock() - began)
            loop.drain(client, phase.timeout_s)
            _, stolen = stolen_share(before)
            report(reader.read(), clock(), _nothing)
        recording = loop.recording
        sent = loop.payloads_sent()
        wrong = payloads.wrong(recording.bodies, sent)
        for request in wrong:
            recording.status[request] = recording.code("wrong_answer")
        counts = {"checked": len(recording.bodies), "wrong": len(wrong)}
        return Outcomes.of(
            recording,
            started,
            started + phase.duration_s,
            models=payloads.asked(sent),
            busy=busy,
            cpus=busy,
            stolen=stolen,
            **counts,
        )

    def _concurrency(self, total: int) -> int:
        """This worker's share of a bound, at least 1."""
        return max(1, total // self.workers + (self.worker < total % self.workers))

    def _payloads(self, phase: LoadPhase, draw: np.random.Generator) -> Pool:
        return Pool(self.mix, phase.protocol, phase.batch, self.payloads, draw)

    def _row(self, protocol: str, what: str) -> Callable[[Slice], None]:
        return self.rows(protocol, f"{self.mix[0].target.name} {what}")

    @contextmanager
    def _client(self, protocol: str, finish: Finish, between: Callable[[], None], most: int) -> Iterator[Client]:
        """A connected client for at most so many requests in flight."""
        client: HttpClient | GrpcClient
        server = self.mix[0].target  # a payload says itself which of its models it asks for
        sessions, through = tls_session.sessions(server, protocol), tunnels.through(server, protocol)
        if protocol == "grpc":
            client = GrpcClient(
                *(server.grpc, grpc_method(server), finish, between),
                sessions,
                (*server.headers, *headers_of(server)),
                through,
            )
        else:
            good = server.request.good if server.request else (200,)
            of_rest = RestClient if server.http2 else HttpClient
            client = of_rest(server.rest, finish, between, sessions, frozenset(good), through)
        try:
            if isinstance(client, GrpcClient):
                client.open()  # its few connections take any number of calls
            else:
                client.open(min(_CONNECTIONS, most))
            yield client
        finally:
            client.close()


def _cpu_seconds() -> float:
    return time.process_time()


def _nothing() -> None:
    """For loops that have nothing to send between two pieces of work."""
