"""A block run by an agent: the real generator, real HTTP, a connection that breaks, a client that goes away."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec.structs import replace as replace_struct

from loadtest.experiment.events import Event, PhaseEnded, Second, Tried
from loadtest.experiment.load_job import JobLost, LoadJob
from loadtest.experiment.phases import OpenLoopPhase, Phase, SearchPhase
from loadtest.experiment.runtimes.agent_client import AgentClient
from loadtest.experiment.settings import Generator
from loadtest.generator import agent as agents
from models.problem import Problem
from serving import ports
from serving.replaced import Replaced, Successor
from serving.target import Target
from tests.loadtest.generator.small_servers import ROOT, small_server, write_reference

pytestmark = pytest.mark.slow


@contextmanager
def serving(results: Path, master_port: int = 0) -> Iterator[str]:
    """An agent; yields its address."""
    agent = agents.Agent(results, master_port=master_port or ports.free(1)[0], exporter_port=ports.free(1)[0])
    service = agents.server(agent, ports.LOOPBACK, 0)
    thread = threading.Thread(target=service.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{ports.LOOPBACK}:{service.server_address[1]}"
    finally:
        service.shutdown()
        service.server_close()
        agent.close()
        thread.join()


class Relay:
    """A connection that can be cut, like a port-forward."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._far = (host, int(port))
        self._open: list[socket.socket] = []
        self.away = threading.Event()
        self._listener = socket.create_server((ports.LOOPBACK, 0))
        self.address = f"{ports.LOOPBACK}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drop every connection."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.away.is_set():
                    near.close()
                    continue
                far = socket.create_connection(self._far)
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def phases(run: Path, seconds: float = 1.0, trials: int = 1) -> tuple[Phase, ...]:
    return tuple(
        OpenLoopPhase(
            id=f"trial-{number}",
            folder=run / "trials" / f"trial-{number}",
            protocol="rest",
            seed=number,
            rate=50.0,
            duration_s=seconds,
            lead_in_s=0.1,
        )
        for number in range(1, trials + 1)
    )


class Block:
    """One block of a run, as `run.py` gives it to where the load comes from."""

    def __init__(self, folder: Path, address: str, target: Target, *, workers: int = 0) -> None:
        self.run = folder / "results" / "run-1"
        self.run.mkdir(parents=True, exist_ok=True)
        self.client = AgentClient(address, self.run, patience_s=60)
        self.reference = write_reference(folder / "reference.npz")
        self.generator = Generator(payloads=4, remote_workers=workers)
        self.target, self.events = target, []  # type: ignore[var-annotated]

    def measure(
        self, trials: tuple[Phase, ...], check: Any = lambda: None, on_event: Any = None, name: str = "block-1"
    ) -> None:
        job = LoadJob(
            target=self.target,
            reference=self.reference,
            phases=trials,
            folder=self.run / "generator" / name,
            generator=self.generator,
        )
        self.client.run_phases(job, on_event=on_event or self.events.append, check=check)


def test_results_come_home_before_the_phase_is_said_to_have_ended(tmp_path):
    with small_server("rest", "ok") as (target, _), serving(tmp_path / "there") as address:
        block = Block(tmp_path, address, target)
        there = []

        def on_event(event: Event) -> None:
            if isinstance(event, PhaseEnded):
                there.append((block.run / "trials" / event.id / "trial.json").exists())

        block.measure(phases(block.run, trials=2), on_event=on_event)
        assert there == [True, True]
        trial = json.loads((block.run / "trials" / "trial-1" / "trial.json").read_text())
        assert trial["latency_ms"]["p50"] > 0
        assert not any(trial["errors"].values())
        assert (block.run / "trials" / "trial-1" / "latency.hlog").exists()
        assert (block.run / "generator" / "block-1" / "locust.log").exists()
        assert block.client.jobs() == {}  # nothing is left there


def test_a_run_survives_a_broken_connection(tmp_path):
    with small_server("rest", "ok") as (target, _), serving(tmp_path / "there") as address:
        relay = Relay(address)
        block = Block(tmp_path, relay.address, target)

        def on_event(event: Event) -> None:
            block.events.append(event)
            if isinstance(event, Second):
                relay.cut()

        block.measure(phases(block.run, seconds=3.0), on_event=on_event)
        relay.close()
        assert block.events.count(PhaseEnded(id="trial-1")) == 1
        assert (block.run / "trials" / "trial-1" / "trial.json").exists()


def test_a_run_that_loses_its_client_is_collected_later(tmp_path):
    class ClientDies(BaseException):
        pass

    def die() -> None:
        raise ClientDies

    with small_server("rest", "ok") as (target, _), serving(tmp_path / "there") as address:
        block = Block(tmp_path, address, target)
        with pytest.raises(ClientDies):
            block.measure(phases(block.run, seconds=2.0), check=die)
        assert not (block.run / "trials").exists()
        said: list[str] = []
        assert AgentClient(address, block.run).collect(said.append) == 1
        assert (block.run / "trials" / "trial-1" / "trial.json").exists()
        assert said == [
            "run-1.block-1 still runs; waiting for its end",
            "run-1.block-1: collected (ended)",
        ]
        assert AgentClient(address, block.run).collect(said.append) == 0


def test_workers_on_other_nodes_share_the_schedule(tmp_path):
    """As in the cluster: the agent is Locust's master, and workers come to it, run after run."""
    masters = ports.free(1)
    with small_server("rest", "ok") as (target, _), serving(tmp_path / "there", masters[0]) as address:
        block = Block(tmp_path, address, target, workers=2)
        (port,) = masters
        command = [sys.executable, "-m", "loadtest.generator.worker", "--master", ports.LOOPBACK, "--port", str(port)]
        workers = subprocess.Popen([*command, "--processes", "2"], cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            block.measure(phases(block.run, trials=1))
            block.measure(phases(block.run, trials=2)[1:], name="block-2")
        finally:
            left = psutil.Process(workers.pid).children(recursive=True)
            workers.terminate()
            assert workers.wait(timeout=30) == 130
        assert psutil.wait_procs(left, timeout=10)[1] == []
    for number in (1, 2):
        trial = json.loads((block.run / "trials" / f"trial-{number}" / "trial.json").read_text())
        assert trial["latency_ms"]["p50"] > 0
        assert not any(trial["errors"].values())


def test_another_run_is_not_disturbed_nor_collected(tmp_path):
    with small_server("rest", "ok") as (target, _), serving(tmp_path / "there") as address:
        block = Block(tmp_path, address, target)
        with pytest.raises(ZeroDivisionError):
            block.measure(phases(block.run, seconds=5.0), check=lambda: 1 // 0)
        other = Block(tmp_path / "other", address, target)
        other.run = other.run.with_name("run-2")
        other.run.mkdir()
        other.client = AgentClient(address, other.run)
        with pytest.raises(Problem, match=r"job run-1\.block-1 runs: collect it, or wait for its end"):
            other.measure(phases(other.run))
        assert other.client.jobs() == {}


def test_a_generator_that_fails_says_why(tmp_path):
    with small_server("rest", "ok") as (target, _), serving(tmp_path / "there") as address:
        block = Block(tmp_path, address, target)
        block.target = replace(target, rest="127.0.0.1:1")
        with pytest.raises(Problem, match="the load generator died") as caught:
            block.measure(phases(block.run))
        assert "error: cannot connect to the REST API at 127.0.0.1:1: is the server running?" in caught.value.details
        assert block.client.jobs() == {}


def test_what_fails_there_is_told_with_paths_of_the_runs_folder(tmp_path):
    """A path of the pod means nothing to whoever reads it here."""
    with small_server("rest", "ok") as (target, _), serving(tmp_path / "there") as address:
        block = Block(tmp_path, address, target)
        twice = (*phases(block.run, 0.2), *phases(block.run, 0.2))
        with pytest.raises(Problem) as caught:
            block.measure(twice)
        told = "\n".join([str(caught.value), *caught.value.details])
        assert "(log: RUN/generator/block-1/locust.log)" in told
        assert "error: RUN/trials/trial-1: cannot write the results: Directory not empty" in told
        assert str(tmp_path / "there") not in told


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"target": 1}'])
def test_what_is_no_job_is_refused(tmp_path, body):
    with serving(tmp_path) as address:
        with pytest.raises(Problem, match="the load generator refuses PUT /jobs/x: no job"):
            AgentClient(address, tmp_path)._ask("PUT", "/jobs/x", body)
        assert AgentClient(address, tmp_path).jobs() == {}


def test_an_agent_that_is_gone_is_waited_for_and_then_named(tmp_path):
    (port,) = ports.free(1)
    client = AgentClient(f"{ports.LOOPBACK}:{port}", tmp_path, patience_s=0.5)
    started = time.monotonic()
    with pytest.raises(Problem, match="make compare RUNTIME=kubernetes goes on from there"):
        client.jobs()
    assert time.monotonic() - started >= 0.5


def test_a_restarted_agent_tells_what_it_lost(tmp_path):
    folder = tmp_path / "there" / "jobs" / "run-1.block-1"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text("{}")
    with serving(tmp_path / "there") as address:
        run = tmp_path / "run-1"
        run.mkdir()
        states = AgentClient(address, run).jobs()
    assert states == {"run-1.block-1": "lost: the load generator was started anew"}


class Replaceable:
    """An agent at one address that can be replaced by another, without anything that the one before had."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        (self._port,) = ports.free(1)
        self.address = f"{ports.LOOPBACK}:{self._port}"
        self._start()

    def _start(self) -> None:
        self._number += 1
        self.agent = agents.Agent(
            self._folder / str(self._number), master_port=ports.free(1)[0], exporter_port=ports.free(1)[0]
        )
        self._service = agents.server(self.agent, ports.LOOPBACK, self._port)
        self._thread = threading.Thread(target=self._service.serve_forever, daemon=True)
        self._thread.start()

    def replace(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        self._service.shutdown()
        self._service.server_close()
        self.agent.close()
        self._thread.join()


def test_what_has_ended_is_home_when_the_agent_is_replaced_and_the_rest_is_said_to_be_lost(tmp_path):
    with small_server("rest", "ok") as (target, _):
        there = Replaceable(tmp_path / "there")
        block = Block(tmp_path, there.address, target)

        def on_event(event: Event) -> None:
            if event == PhaseEnded(id="trial-1"):
                there.replace()

        try:
            with pytest.raises(JobLost, match="the load generator's pod was replaced, and with it went what"):
                block.measure(phases(block.run, trials=3), on_event=on_event)
            assert [path.name for path in (block.run / "trials").iterdir()] == ["trial-1"]
            # Its successor takes the rest.
            block.measure(phases(block.run, trials=3)[1:], name="block-2")
            assert sorted(path.name for path in (block.run / "trials").iterdir()) == ["trial-1", "trial-2", "trial-3"]
            assert block.client.jobs() == {}
        finally:
            there.close()


@pytest.mark.exhaustive
def test_a_search_goes_on_from_what_it_had_tried_before_the_agent_was_replaced(tmp_path):
    with small_server("rest", "ok") as (target, _):
        there = Replaceable(tmp_path / "there")
        block = Block(tmp_path, there.address, target)
        (trial,) = phases(block.run, seconds=0.5)
        assert isinstance(trial, OpenLoopPhase)
        search = SearchPhase(
            id="search-1",
            folder=block.run / "searches" / "search-1",
            trials=block.run / "trials",
            trial=replace_struct(trial, rate=300.0),
            p99_ms=500.0,
            error_ratio=0.01,
            most=2,
            precision=0.001,
            most_rate=400.0,
        )
        tried: list[Event] = []

        def on_event(event: Event) -> None:
            if isinstance(event, Tried):
                tried.append(event)
                if len(tried) == 1:
                    there.replace()

        try:
            with pytest.raises(JobLost):
                block.measure((search,), on_event=on_event)
            (first,) = (block.run / "trials").iterdir()
            before = (first / "trial.json").read_bytes()
            tried.clear()
            block.measure((search,), name="block-2", on_event=tried.append)
        finally:
            there.close()
        assert (first / "trial.json").read_bytes() == before  # not made again
        found = json.loads((search.folder / "search.json").read_text())
        made = [step["trial"] for step in found["steps"]]
        assert made[:2] == ["search-1-1", "search-1-2"]
        assert sorted(path.name for path in (block.run / "trials").iterdir()) == made


def test_a_job_whose_server_was_replaced_is_stopped_and_forgotten(tmp_path):
    def check() -> None:
        raise Replaced(Successor.POD, "another pod")

    with small_server("rest", "ok") as (target, _), serving(tmp_path / "there") as address:
        block = Block(tmp_path, address, target)
        with pytest.raises(Replaced):
            block.measure(phases(block.run, seconds=30.0), check=check)
        assert block.client.jobs() == {}


def test_where_the_load_comes_from(tmp_path):
    with serving(tmp_path) as address:
        values = AgentClient(address, tmp_path).environment()
    assert (values.cpu_count or 0) >= 1
    assert values.wake_up_lateness_ms is not None
    assert (values.wake_up_lateness_ms.p99 or 0) >= 0


@pytest.mark.parametrize("path", ["/jobs/../../etc/passwd/results", "/jobs/none/events", "/", "/references/abc"])
def test_nothing_else_is_served(tmp_path, path):
    with serving(tmp_path) as address:
        with pytest.raises(Problem, match="the load generator refuses GET"):
            AgentClient(address, tmp_path)._ask("GET", path)
