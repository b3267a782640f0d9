"""A steady load on whatever a Service points to, from clients that find their server as clients in a cluster do.

REST clients open a connection to one of the Service's addresses (a cluster's proxy does that for them); gRPC clients
are grpcio's own, which ask the name server and send their calls to all addresses in turn. Of each kind some connect
anew for every request, and some keep their connections. Requests leave on a schedule, whatever the server does.
"""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType

import grpc
import numpy as np

from loadtest.bench.name_server import Endpoints, NameServer
from serving import requests
from serving.client import GRPC_OPTIONS, Client, RequestFailed
from serving.target import Target

TIMEOUT_S = 10.0
THREADS = 24  # of each kind of client: enough that requests of 100 ms leave in time, through a stall of half a second


@dataclass(frozen=True)
class Flow:
    """One kind of client."""

    protocol: str
    kept: bool

    def __str__(self) -> str:
        return f"{'gRPC' if self.protocol == 'grpc' else 'REST'}, {'kept' if self.kept else 'new'}"


FLOWS = tuple(Flow(protocol, kept) for protocol in ("rest", "grpc") for kept in (False, True))


@dataclass(frozen=True)
class Outcome:
    """One request: when it was due and when it was sent (`time.monotonic`), and "" or why it was not answered."""

    flow: Flow
    due: float
    sent: float
    failure: str

    @property
    def refused(self) -> bool:
        """Whether nobody took the request on, and said so: a client may send it to another, and nothing is lost."""
        if self.flow.protocol == "rest":
            return self.failure.startswith(("HTTP 503", "ConnectionRefusedError"))
        said = self.failure.lower()
        return said.startswith("unavailable") and ("failed to connect" in said or "server is stopping" in said)

    @property
    def lost(self) -> bool:
        """Whether the request went to a server that did not answer it: no client knows what became of it."""
        return bool(self.failure) and not self.refused


class SwitchingLoad:
    """``rate`` requests/s of each of `FLOWS` for the length of a ``with`` block.

    ``target`` says what to send and on which ports; the addresses come from ``endpoints``. ``rest_age_s``: after so
    long a REST client replaces the connection that it keeps; ``resolve_every_s``: more often no gRPC client asks DNS.
    """

    def __init__(
        self, target: Target, endpoints: Endpoints, *, rate: float, rest_age_s: float, resolve_every_s: float
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._sent: list[float] = []
        self._target, self._endpoints, self._rest_age_s = target, endpoints, rest_age_s
        self._gap_s = 1 / rate
        self._names = NameServer(endpoints)
        self._options = [*GRPC_OPTIONS, ("grpc.dns_min_time_between_resolutions_ms", round(1000 * resolve_every_s))]
        image = np.zeros((1, *target.input_shape), np.uint8)
        self._encoded = {protocol: requests.encode(target, protocol, image) for protocol in ("rest", "grpc")}
        self._mine = threading.local()  # a thread's kept connection
        self._kept: list[Client | grpc.Channel] = []
        self._stopping = threading.Event()
        self._pools = {flow: ThreadPoolExecutor(THREADS, thread_name_prefix=str(flow)) for flow in FLOWS}
        self._pace = threading.Thread(target=self._run, name="pace", daemon=True)

    def __enter__(self) -> SwitchingLoad:
        self._names.__enter__()
        self._pace.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._pace.join()
        for pool in self._pools.values():
            pool.shutdown()
        for one in self._kept:
            one.close()
        self._names.__exit__(kind, error, trace)

    def answered(self) -> int:
        """The requests answered so far."""
        return sum(not one.failure for one in list(self.outcomes))

    def under_way(self) -> int:
        """The requests that were sent and have no answer yet."""
        return len(self._sent) - len(self.outcomes)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            for flow, pool in self._pools.items():
                pool.submit(self._send, flow, due)
            due += self._gap_s

    def _send(self, flow: Flow, due: float) -> None:
        sent, failure = time.monotonic(), ""
        self._sent.append(sent)
        try:
            (self._grpc if flow.protocol == "grpc" else self._rest)(flow.kept)
        except RequestFailed as error:
            failure = str(error)
        self.outcomes.append(Outcome(flow, due, sent, failure))

    def _rest(self, kept: bool) -> None:
        if not kept:
            with self._rest_client() as client:
                client.send("rest", self._encoded["rest"])
            return
        if getattr(self._mine, "until", 0.0) < time.monotonic():
            if hasattr(self._mine, "client"):
                self._mine.client.close()
            self._mine.client = self._rest_client()
            self._kept.append(self._mine.client)
            self._mine.until = time.monotonic() + self._rest_age_s
        try:
            self._mine.client.send("rest", self._encoded["rest"])
        except RequestFailed:
            self._mine.until = 0.0  # the next connection goes wherever the Service then points
            raise

    def _rest_client(self) -> Client:
        port = self._target.rest.rpartition(":")[2]
        address = random.choice(self._endpoints.seen())
        return Client(replace(self._target, rest=f"{address}:{port}"), TIMEOUT_S)

    def _grpc(self, kept: bool) -> None:
        if not kept:
            with self._channel() as channel:
                self._call(channel)
            return
        if not hasattr(self._mine, "channel"):
            self._mine.channel = self._channel()
            self._kept.append(self._mine.channel)
        self._call(self._mine.channel)

    def _channel(self) -> grpc.Channel:
        port = self._target.grpc.rpartition(":")[2]
        return grpc.insecure_channel(f"dns://{self._names.address}/server.test:{port}", self._options)

    def _call(self, channel: grpc.Channel) -> None:
        try:
            channel.unary_unary(requests.grpc_method(self._target))(self._encoded["grpc"], timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise RequestFailed(f"{error.code().name}: {error.details()}") from None
