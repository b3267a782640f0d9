"""Other load generators against the trivial server, each a closed loop for a few seconds: requests/s of each."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from models import child_environment
from models.problem import Problem

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 4
CONNECTIONS = 32

_WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = io.open("BODY", "rb")
wrk.body = file:read("*a")
file:close()
"""
_K6 = """
import http from "k6/http";
const body = open("BODY", "b");
export const options = { vus: CONNECTIONS, duration: "SECONDSs", discardResponseBodies: true };
export default function () {
  http.post("http://ADDRESS/predictions/trivial", body, { headers: { "Content-Type": "application/json" } });
}
"""


def pinned(cores: Sequence[int], command: Sequence[str]) -> list[str]:
    """The command, on these cores where that can be asked for."""
    return ["taskset", "-c", ",".join(map(str, cores)), *command] if cores and shutil.which("taskset") else [*command]


def rest_tools(
    address: str, body: bytes, folder: Path, cores: Sequence[int]
) -> Iterator[tuple[str, Callable[[], float]]]:
    """(name, a function that runs it and returns requests/s) of each REST tool that is installed."""
    file = folder / "body"
    file.write_bytes(body)
    yield "Locust FastHttpUser (closed loop)", lambda: _locust(address, file, cores)
    if shutil.which("wrk"):
        yield "wrk (closed loop)", lambda: _wrk(address, file, cores)
    if shutil.which("k6"):
        yield "k6 (closed loop)", lambda: _k6(address, file, cores)


def grpcio(address: str, method: str, message: bytes, folder: Path, cores: Sequence[int]) -> float:
    """Calls/s of grpcio with gevent."""
    file = folder / "message"
    file.write_bytes(message)
    command = [sys.executable, "-m", "loadtest.bench.grpcio_client", address, method, str(file), str(SECONDS)]
    return float(_run("grpcio", pinned(cores, [*command, str(CONNECTIONS)])))


def _locust(address: str, body: Path, cores: Sequence[int]) -> float:
    command = [
        sys.executable,
        "-m",
        "loadtest.generator.start_locust",
        "-f",
        str(ROOT / "loadtest" / "bench" / "fast_http_user.py"),
        "--headless",
    ]
    command += ["--host", f"http://{address}", "-u", str(CONNECTIONS), "-r", str(CONNECTIONS), "-t", f"{SECONDS}s"]
    out = _run("locust", pinned(cores, [*command, "--only-summary", "--json"]), TANDEM_BENCH_BODY=str(body))
    rows = json.loads(out[out.index("[") :])
    if not rows or rows[0]["num_failures"]:
        raise Problem(f"locust: {rows[0]['num_failures'] if rows else 'all'} requests failed")
    row = rows[0]
    return float(row["num_requests"] / (row["last_request_timestamp"] - row["start_time"]))


def _wrk(address: str, body: Path, cores: Sequence[int]) -> float:
    script = body.with_name("wrk.lua")
    script.write_text(_WRK.replace("BODY", str(body)))
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", str(script)]
    return _number(
        _run("wrk", pinned(cores, [*command, f"http://{address}/predictions/trivial"])), r"Requests/sec:\s+([\d.]+)"
    )


def _k6(address: str, body: Path, cores: Sequence[int]) -> float:
    script = body.with_name("k6.js")
    text = _K6.replace("BODY", str(body)).replace("ADDRESS", address)
    script.write_text(text.replace("CONNECTIONS", str(CONNECTIONS)).replace("SECONDS", str(SECONDS)))
    out = _run("k6", pinned(cores, ["k6", "run", "--quiet", "--no-usage-report", str(script)]))
    return _number(out, r"http_reqs[ .:]*\d+\s+([\d.]+)/s")


def _number(text: str, pattern: str) -> float:
    found = re.search(pattern, text)
    if not found:
        raise Problem(f"no rate in the output: {text[-300:]!r}")
    return float(found[1])


def _run(name: str, command: Sequence[str], **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**child_environment.measured(), **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS + 30,
        check=False,
    )
    if done.returncode:
        raise Problem(f"{name} failed with status {done.returncode}", done.stderr.splitlines()[-5:])
    return done.stdout
