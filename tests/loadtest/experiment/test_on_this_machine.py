"""Servers that are up on this machine, with real processes behind their addresses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from loadtest.experiment.runtimes import on_this_machine
from serving.this_machine import boot_id
from tests.serving.targets import target

CORES = sorted(os.sched_getaffinity(0))
LISTEN = """
import os, socket, sys, time
os.sched_setaffinity(0, [int(core) for core in sys.argv[1].split(",")])
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
if not os.fork():  # a worker that shares the socket
    print("worker", flush=True)
time.sleep(600)
"""
two_cores = pytest.mark.skipif(len(CORES) < 2, reason="needs two CPUs")


@pytest.fixture
def listening(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """(pid, port) of a server on the cores that the test gives."""
    cores = ",".join(map(str, request.param))
    process = subprocess.Popen(
        [sys.executable, "-c", LISTEN, cores], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    assert process.stdout.readline() == "worker\n"
    yield process.pid, port
    os.killpg(process.pid, 9)
    process.communicate()


@two_cores
@pytest.mark.parametrize("listening", [CORES[:1]], indirect=True)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_that_keeps_to_cores_is_found_and_the_generator_takes_others(listening, host):
    pid, port = listening
    (found,) = on_this_machine.located([replace(target("pytorch"), rest=f"{host}:{port}", grpc="127.0.0.1:1")])
    assert (found.machine, found.process, found.cores) == (boot_id(), pid, tuple(CORES[:1]))
    servers, generator = on_this_machine.split([found])
    assert servers == tuple(CORES[:1])
    assert generator
    assert set(generator) <= set(CORES[1:])


@two_cores
@pytest.mark.parametrize("listening", [CORES], indirect=True)
def test_a_server_on_all_cores_is_known_and_leaves_the_generator_none(listening):
    pid, port = listening
    (found,) = on_this_machine.located([replace(target("pytorch"), rest=f"127.0.0.1:{port}")])
    assert (found.process, found.cores) == (pid, ())
    assert on_this_machine.split([found]) == ((), ())


def test_a_server_elsewhere_or_that_nobody_listens_for_says_nothing_of_these_cores():
    nobody = target("pytorch")
    assert on_this_machine.located([nobody]) == [nobody]
    assert on_this_machine.split([nobody]) == ((), ())
    before_a_boot = replace(nobody, machine="another", cores=(0,))
    assert on_this_machine.located([before_a_boot]) == [before_a_boot]
    assert on_this_machine.split([before_a_boot]) == ((), ())
