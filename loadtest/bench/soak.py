"""A TensorFlow server under load for minutes while its versions change: does its memory grow?"""

from __future__ import annotations

import http.client
import shutil
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from loadtest.bench.load_generator import run_plan
from loadtest.bench.tensorflow_server import MODEL, BenchServer, closed_loop
from loadtest.experiment import records
from loadtest.experiment.phases import Plan
from loadtest.experiment.records import WarmUpRecord

CONCURRENCY = 32
RELOAD_EVERY_S = 1.5
PICKED_UP_WITHIN_S = 15.0


@dataclass(frozen=True)
class Row:
    """What a server was at the end of a minute: its resident memory, the requests of that minute and those that
    failed, by kind, the rate over each protocol, and the versions loaded so far."""

    server: str
    when: str
    rss_mib: float
    requests: int
    failed: dict[str, int]
    rate: dict[str, float]
    versions_loaded: int


class Reloads(threading.Thread):
    """Puts the next version in place of the last one every few seconds, until stopped; `count` were picked up.

    Stops by itself when a version is not picked up, which `note` then says.
    """

    def __init__(self, server: BenchServer, base_path: Path) -> None:
        super().__init__(name="reloads", daemon=True)
        self.count = 0
        self.note = ""
        self._host, port = server.target.rest.rsplit(":", 1)
        self._port = int(port)
        self._base_path = base_path
        self._stop_due = threading.Event()

    def run(self) -> None:
        """The thread's work."""
        number = max(int(version.name) for version in self._base_path.iterdir())
        while not self._stop_due.wait(RELOAD_EVERY_S):
            old, number = self._base_path / str(number), number + 1
            fresh = self._base_path.with_name("next-version")
            shutil.copytree(old, fresh)
            fresh.rename(old.with_name(str(number)))  # atomic: the server never sees half a version
            if not self._available(number):
                self.note = "" if self._stop_due.is_set() else f"version {number} was not picked up: no more reloads"
                return
            shutil.rmtree(old)
            self.count += 1

    def stop(self) -> None:
        """End after the reload under way."""
        self._stop_due.set()
        self.join()

    def _available(self, number: int) -> bool:
        deadline = time.monotonic() + PICKED_UP_WITHIN_S
        while time.monotonic() < deadline:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=5)
            try:
                connection.request("GET", f"/v1/models/{MODEL}/versions/{number}")
                if b"AVAILABLE" in connection.getresponse().read():
                    return True
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            if self._stop_due.wait(0.2):
                return False
        return False


def run(
    server: BenchServer,
    base_path: Path,
    reference: Path,
    folder: Path,
    minutes: float,
    cores: Sequence[int],
    console: Console,
) -> list[Row]:
    """Load over gRPC and REST in turn, half a minute each, while versions change; one row a minute, printed as well:
    memory, answers, failures, reloads."""
    console.print(f"{server.target.engine} {server.target.engine_version}", markup=False)
    rows = [_row(server, "start", {}, 0)]
    _print(rows[-1], console)
    reloads = Reloads(server, base_path)
    rows.append(_minute(server, "warm-up", min(0.25, minutes), reference, folder, cores, reloads))
    _print(rows[-1], console)
    reloads.start()
    try:
        left, number = minutes, 0
        while left > 1e-6:
            number += 1
            rows.append(_minute(server, f"minute {number}", min(1.0, left), reference, folder, cores, reloads))
            _print(rows[-1], console)
            left -= 1.0
    finally:
        reloads.stop()
    if reloads.note:
        console.print(f"  {reloads.note}")
    growth = rows[-1].rss_mib - rows[1].rss_mib
    console.print(f"  growth since the warm-up: {growth:+.1f} MiB in {minutes:g} min, {reloads.count} versions loaded")
    return rows


def _minute(
    server: BenchServer,
    name: str,
    minutes: float,
    reference: Path,
    folder: Path,
    cores: Sequence[int],
    reloads: Reloads,
) -> Row:
    place = folder / f"{server.target.engine}-{name.replace(' ', '-')}"
    place.mkdir()
    seconds = 30 * minutes
    phases = tuple(closed_loop(one, CONCURRENCY, seconds, place / one) for one in ("grpc", "rest"))
    plan = Plan(target=server.target, reference=reference, cores=tuple(cores), phases=phases)
    run_plan(plan, place / "plan.json", server.cpu_seconds, 2 * seconds + 60)
    values = {one: records.read_warm_up(place / one / "warm-up.json") for one in ("grpc", "rest")}
    return _row(server, name, values, reloads.count)


def _row(server: BenchServer, name: str, values: Mapping[str, WarmUpRecord], reloads: int) -> Row:
    failed: Counter[str] = Counter()
    for one in values.values():
        failed.update(one.errors)
    return Row(
        server=server.target.engine,
        when=name,
        rss_mib=round(server.resident_mib(), 1),
        requests=sum(one.requests for one in values.values()),
        failed=dict(failed),
        rate={protocol: one.throughput for protocol, one in values.items()},
        versions_loaded=reloads,
    )


def _print(row: Row, console: Console) -> None:
    rates = ", ".join(f"{protocol} {rate:,.0f}/s" for protocol, rate in row.rate.items()) or "no load yet"
    failed = ", ".join(f"{count} × {kind}" for kind, count in row.failed.items()) or "none"
    console.print(
        f"  {row.when:<10} RSS {row.rss_mib:,.1f} MiB; {rates}; {row.requests:,} requests, failed: {failed}; "
        f"{row.versions_loaded} versions loaded"
    )
