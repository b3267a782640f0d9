from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from models.problem import Problem
from serving import ports
from serving.runtimes.process import open_files
from serving.runtimes.process.server_process import ServerProcess

SLEEP = "import time; print('up', flush=True); time.sleep(600)"


def python(tmp_path, code, **options):
    return ServerProcess("the server", [sys.executable, "-c", code], tmp_path / "server.log", **options)


def await_line(process, line, timeout_s=20):
    process.wait_until(lambda: line in process.last_lines(), timeout_s)


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def await_true(condition, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_output_lands_in_the_log_and_the_environment_in_the_child(tmp_path):
    code = "import os,sys,time; print(os.environ['COLOUR'], flush=True); print('err', file=sys.stderr); time.sleep(600)"
    process = python(tmp_path, code, environment={"COLOUR": "blue"}, folder=tmp_path)
    try:
        await_line(process, "blue")
        await_line(process, "err")
        process.check()
        assert psutil.Process(process.pid).cwd() == str(tmp_path)
    finally:
        process.stop()
    assert gone(process.pid)


def test_stop_takes_the_whole_group_even_what_ignores_sigterm(tmp_path):
    child = (
        "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    code = f"import subprocess,sys,time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(600)"
    process = python(tmp_path, code)
    await_line(process, "deaf")
    [grandchild] = psutil.Process(process.pid).children()
    process.stop(grace_s=0.3)
    assert gone(process.pid)
    assert gone(grandchild.pid)
    process.stop()  # idempotent


def test_cores_are_pinned(tmp_path):
    core = max(os.sched_getaffinity(0))
    process = python(tmp_path, SLEEP, cores=[core])
    try:
        await_line(process, "up")
        assert os.sched_getaffinity(process.pid) == {core}
    finally:
        process.stop()


def test_a_child_may_open_as_many_files_as_its_user_may(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # the usual soft limit is 1,024
    try:
        child = ServerProcess("child", ["sh", "-c", "ulimit -Sn"], tmp_path / "log")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        await_true(lambda: child.status is not None)
        assert child.last_lines() == [str(open_files.allowed())]
    finally:
        child.stop()


def test_a_core_that_is_not_there_is_a_problem(tmp_path):
    with pytest.raises(Problem, match=r"cores \[9999\]"):
        python(tmp_path, SLEEP, cores=[9999])


def test_death_is_reported_with_the_last_log_lines(tmp_path):
    process = python(tmp_path, "print('first'); print('cannot open the model'); raise SystemExit(3)")
    with pytest.raises(Problem, match="the server died: exit status 3") as caught:
        process.wait_until(lambda: False, 20)
    assert caught.value.details == ("first", "cannot open the model")
    process.stop()


def test_a_full_disk_is_named_where_the_log_cannot_say_it(tmp_path, monkeypatch):
    process = python(tmp_path, "raise SystemExit(1)")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(Problem, match=r"exit status 1 .*; the disk of its log is full: make room"):
        process.wait_until(lambda: False, 20)
    process.stop()


def test_the_shell_s_variables_for_other_programs_do_not_reach_a_server(tmp_path, monkeypatch):
    shell = {"JAVA_TOOL_OPTIONS": "-Xmx1m", "PYTHONOPTIMIZE": "2", "TS_MODEL_STORE": "/x", "http_proxy": "http://x:1"}
    for name, value in {**shell, "LC_ALL": "C", "TANDEM_KEEP": "MINE", "MINE": "kept"}.items():
        monkeypatch.setenv(name, value)
    code = "import json, os; print(json.dumps(dict(os.environ)), flush=True); import time; time.sleep(600)"
    process = python(tmp_path, code, environment={"COLOUR": "blue"})
    try:
        process.wait_until(lambda: bool(process.last_lines()), 20)
        found = json.loads(process.last_lines()[0])
    finally:
        process.stop()
    assert not found.keys() & shell.keys()
    assert found.items() >= {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1", "MINE": "kept", "COLOUR": "blue"}.items()


def test_out_of_memory_is_named(tmp_path):
    process = python(tmp_path, SLEEP)
    await_line(process, "up")
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(Problem, match="memory runs out") as caught:
        process.wait_until(lambda: False, 20)
    assert caught.value.details == ("up",)
    process.stop()


def test_a_dead_worker_is_noticed(tmp_path):
    code = f"import subprocess,sys,time; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); time.sleep(600)"
    process = python(tmp_path, code)
    try:
        await_line(process, "up")
        process.watch_workers()
        process.check()
        [worker] = psutil.Process(process.pid).children()
        worker.kill()
        with pytest.raises(Problem, match=rf"a worker process \({worker.pid}\) of the server died"):
            process.wait_until(lambda: False, 20)
    finally:
        process.stop()


def test_not_ready_in_time(tmp_path):
    process = python(tmp_path, SLEEP)
    try:
        await_line(process, "up")
        with pytest.raises(Problem, match=r"not ready after 0\.2 s") as caught:
            process.wait_until(lambda: False, 0.2)
        assert caught.value.details == ("up",)
    finally:
        process.stop()


def test_a_program_that_does_not_exist(tmp_path):
    process = ServerProcess("the server", ["/no/such/program"], tmp_path / "server.log")
    with pytest.raises(Problem, match="the server died: exit status 1") as caught:
        process.wait_until(lambda: False, 20)
    assert "FileNotFoundError" in caught.value.details[-1]
    process.stop()


def test_it_dies_with_its_parent(tmp_path):
    code = f"""
import pathlib, sys, time
from serving.runtimes.process import open_files
from serving.runtimes.process.server_process import ServerProcess
process = ServerProcess("s", [sys.executable, "-c", {SLEEP!r}], pathlib.Path({str(tmp_path)!r}) / "server.log")
process.wait_until(lambda: "up" in process.last_lines(), 20)
print(process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    await_true(lambda: gone(pid))


def test_free_ports_differ_and_a_taken_one_is_named():
    assert len(set(ports.free(20))) == 20
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        taken = server.getsockname()[1]
        with pytest.raises(Problem, match=f"port {taken} for the REST API is taken"):
            ports.require_free(taken, "the REST API")
    assert ports.require_free(taken, "the REST API") == taken
