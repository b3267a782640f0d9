"""Which process answers at an address: read from trees as /proc has them, and of real network namespaces. A container's
with a real Docker engine: tests/docker/test_stack.py."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from loadtest.experiment.records import ServerNotSeen
from loadtest.experiment.runtimes import listening, on_this_machine
from loadtest.experiment.runtimes.listening import Found, Hidden
from loadtest.report import warning_words
from tests.serving.targets import target

# As Docker 20.10 calls it; newer ones add options.
PROXY = "/usr/bin/docker-proxy\0-proto\0tcp\0-host-ip\0{}\0-host-port\0{}\0-container-ip\0{}\0-container-port\0{}\0"
OURS = "Local:\n  |-- 10.0.0.5\n     /32 host LOCAL\n  |-- 127.0.0.1\n     /32 host LOCAL\n"
THEIRS = (
    "Main:\n  +-- 172.17.0.0/16 2 0 2\n     |-- 172.17.0.0\n        /16 link UNICAST\n"
    "Local:\n  +-- 172.17.0.0/16 2 0 2\n     |-- 172.17.0.2\n        /32 host LOCAL\n"
    "     |-- 172.17.255.255\n        /32 link BROADCAST\n  |-- 127.0.0.1\n     /32 host LOCAL\n"
)
TCP = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    "   0: 00000000:2135 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000 100 0\n"
    "   1: 020011AC:9C40 010011AC:2135 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000 20 4\n"
)


def process(
    proc: Path, pid: int | str, parent: int = 1, *, comm: str = "python", trie: str = OURS, **files: str
) -> Path:
    """A process' folder; `files`: others of it, by their names."""
    folder = proc / str(pid)
    (folder / "net").mkdir(parents=True)
    (folder / "comm").write_text(f"{comm}\n")
    (folder / "stat").write_text(f"{pid} ({comm}) S {parent} 0 0 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 1\n")
    (folder / "net" / "fib_trie").write_text(trie)
    (folder / "net" / "tcp").write_text(TCP if trie == THEIRS else "")
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A machine with a container at 172.17.0.2 that listens at 8501."""
    (tmp_path / "stat").write_text("cpu0 1 0 1 8 0 0 0 0\n")
    process(tmp_path, "self")
    process(tmp_path, 1, 0, comm="init")
    process(tmp_path, 50, comm="containerd-shim")
    process(tmp_path, 60, 50, comm="tini", trie=THEIRS)
    process(tmp_path, 61, 60, trie=THEIRS)
    process(tmp_path, 62, 61, trie=THEIRS)
    return tmp_path


@pytest.mark.parametrize("host_ip", ["0.0.0.0", "127.0.0.1", "::"])
def test_a_published_port_leads_to_its_container(proc, host_ip):
    process(proc, 40, comm="docker-proxy", cmdline=PROXY.format(host_ip, 8080, "172.17.0.9", 80))
    process(proc, 41, comm="docker-proxy", cmdline=PROXY.format(host_ip, 18501, "172.17.0.2", 8501))
    assert listening.published({"127.0.0.1"}, 18501, proc) == ("172.17.0.2", 8501)
    assert listening.published({"127.0.0.1"}, 8501, proc) is None
    elsewhere = listening.published({"10.0.0.5"}, 18501, proc)
    assert elsewhere == (None if host_ip == "127.0.0.1" else ("172.17.0.2", 8501))


def test_a_container_s_first_process_stands_for_all_of_it(proc):
    assert listening.container("172.17.0.2", 8501, proc) == Found(60)
    assert listening.container("172.17.0.2", 8502, proc) is None  # nobody listens there
    assert listening.container("172.17.0.3", 8501, proc) is None


def test_of_several_in_one_network_the_one_that_holds_the_socket_is_the_server(proc):
    process(proc, 70, 50, comm="pause", trie=THEIRS)
    assert listening.container("172.17.0.2", 8501, proc) == Hidden()  # as for somebody without rights
    (proc / "61" / "fd").mkdir()
    (proc / "61" / "fd" / "5").symlink_to("socket:[4711]")
    assert listening.container("172.17.0.2", 8501, proc) == Found(60)


def test_an_address_of_ipv6_is_an_address(proc):
    for pid in (60, 61, 62):
        (proc / str(pid) / "net" / "if_inet6").write_text("fd000000000000000000000000000007 2a 40 00 80     eth0\n")
    assert listening.container("fd00::7", 8501, proc) == Found(60)


LISTEN = """
import socket, subprocess, sys, time
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["ip", "address", "add", sys.argv[1], "dev", "lo"], check=True)
listening = socket.create_server((sys.argv[1], 8501))
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def elsewhere() -> Iterator[tuple[int, str]]:
    """(pid, address) of a server in a network namespace of its own, which this machine has no way into."""
    if not shutil.which("ip") or subprocess.run(["unshare", "-rn", "true"], check=False).returncode:
        pytest.skip("this user cannot make a network namespace")
    address = "10.213.7.2"
    command = ["unshare", "-rn", sys.executable, "-c", LISTEN, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        yield server.pid, address
        server.kill()


def test_a_server_in_a_real_network_of_its_own_is_found_with_the_cores_that_it_keeps_to(elsewhere):
    pid, address = elsewhere
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(pid, cores[:1])
    (found,) = on_this_machine.located([replace(target("pytorch"), rest=f"{address}:8501", grpc="")])
    assert found.process == pid
    assert found.cores == (tuple(cores[:1]) if len(cores) > 1 else ())
    assert found.caveats == ()
    assert on_this_machine.not_seen([replace(target("pytorch"), rest=f"{address}:8501", grpc="")]) == []


def test_a_server_of_this_machine_that_cannot_be_seen_is_told(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        asked = replace(target("pytorch"), rest=address, grpc="")
        assert on_this_machine.not_seen([asked]) == []
        monkeypatch.setattr(psutil, "net_connections", lambda _: [])  # as for another user
        assert on_this_machine.not_seen([asked]) == [ServerNotSeen(target="pytorch", address=address)]
        assert on_this_machine.located([asked]) == [asked]
    assert on_this_machine.not_seen([replace(asked, rest="192.0.2.1:80")]) == []  # another machine's


def test_a_program_that_passes_requests_on_is_not_taken_for_the_server(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(psutil.Process, "name", lambda _: "rootlessport")
        asked = replace(target("pytorch"), rest=address, grpc="")
        (note,) = on_this_machine.not_seen([asked])
    assert note.forwarder == "rootlessport"
    assert warning_words.warning(note) == (
        f"PyTorch is on this machine (at {address}), and this user cannot see where, since rootlessport passes its "
        "requests on: the cores that it keeps to, and who else is at work on them, are not known; run as root, or give "
        "the server’s own address"
    )
