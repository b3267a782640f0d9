"""The embedded server's benchmark runs, prints its table and writes it as JSON; nothing here is about speed."""

from __future__ import annotations

import json

import pytest

from loadtest.bench import embedded

pytestmark = pytest.mark.slow


def test_every_load_has_a_row_with_its_targets_and_what_it_stands_beside(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # without a real server
    monkeypatch.setattr(embedded, "WARM_UP_S", 0.5)
    file = tmp_path / "bench.json"
    assert embedded.VERB.main(["--seconds", "0.8", "--rounds", "1", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    assert [row["load"] for row in rows] == [load.name for load in embedded.LOADS]
    for row, load in zip(rows, embedded.LOADS, strict=True):
        assert row["rate"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["failed"] == 0
        assert row["targets"] == load.targets
        assert row["real"] is None
        assert (row["ratio"] is None) == (not load.recorded)
        assert len(row["rounds"]["embedded-tfserving"]) == 1
    out = capsys.readouterr().out
    assert "recorded (another machine)" in out
    assert all(out.count(load.name) >= 2 for load in embedded.LOADS)  # its line and its row


def test_a_row_compares_with_the_real_server_of_the_same_run():
    load = embedded.LOADS[0]
    ours = [embedded.Measured(rate, 5.0, 10.0, 0, 0.9) for rate in (4000, 1000, 3800)]
    theirs = [embedded.Measured(rate, 4.0, 8.0, 0, 0.9) for rate in (5000, 7600, 9000)]
    row = embedded._row(load, {"embedded-tfserving": ours, "tensorflow-serving": theirs})
    assert (row.rate, row.beside, row.ratio, row.met) == (3800, 7600, 0.5, True)
    late = [embedded.Measured(4000, 5.0, 21.0, 0, 0.9)]
    assert not embedded._row(load, {"embedded-tfserving": late}).met
    failing = [embedded.Measured(4000, 5.0, 10.0, 1, 0.9)]
    assert not embedded._row(load, {"embedded-tfserving": failing}).met


@pytest.mark.exhaustive
def test_the_soak_shows_memory_and_growth(tmp_path, capsys):
    file = tmp_path / "soak.json"
    assert embedded.VERB.main(["--soak", "0.05", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    assert [row["when"] for row in rows] == ["start", "warm-up", "minute 1"]
    assert all(row["rss_mib"] > 50 for row in rows)
    assert rows[-1]["requests"] > 0
    assert rows[-1]["failed"] == {}
    assert "growth since the warm-up" in capsys.readouterr().out


def test_impossible_options_are_refused(capsys):
    assert embedded.VERB.main(["--rounds", "0"]) == 1
    assert "--rounds 0: use 1 to 100" in capsys.readouterr().err
