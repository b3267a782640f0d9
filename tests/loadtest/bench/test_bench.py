"""The benchmark of the generator runs and prints its table."""

from __future__ import annotations

import json

import pytest

from loadtest.bench import load_generator as bench
from loadtest.bench import tools as bench_tools

pytestmark = pytest.mark.slow


@pytest.mark.exhaustive
def test_the_table_names_every_tool_and_the_servers_idle_time(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "RATES", (100, 200))
    monkeypatch.setattr(bench, "RATES_OF_TWO", (300,))
    monkeypatch.setattr(bench, "ATTEMPTS", (1,))
    monkeypatch.setattr(bench, "SLIP_LIMIT_MS", 1000.0)
    monkeypatch.setattr(bench_tools, "SECONDS", 1)
    assert bench.VERB.main(["--seconds", "0.5", "--json", str(tmp_path / "bench.json")]) == 0
    rows = json.loads((tmp_path / "bench.json").read_text())
    open_loop = {row["protocol"]: row for row in rows if row["tool"] == "Tandem (open loop)"}
    assert {protocol: row["rate"] for protocol, row in open_loop.items()} == {"rest": 200, "grpc": 200}
    assert all(0 < row["server_cpu"] < 1 for row in open_loop.values())
    both = {row["protocol"]: row for row in rows if row["tool"] == "Tandem, 2 processes (open loop)"}
    assert {protocol: row["rate"] for protocol, row in both.items()} == {"rest": 300, "grpc": 300}
    assert all(row["cpu_us"] > 0 for row in (*open_loop.values(), *both.values()))
    tools = {row["tool"] for row in rows}
    assert {"Tandem (closed loop)", "Locust FastHttpUser (closed loop)", "grpcio with gevent (closed loop)"} <= tools
    assert all(row["rate"] > 0 for row in rows)
    assert "slip p99" in capsys.readouterr().out


def test_impossible_options_are_refused(capsys):
    assert bench.VERB.main(["--seconds", "0"]) == 1
    assert "--seconds 0: use 0.5 to 60" in capsys.readouterr().err
