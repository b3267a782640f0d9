"""The embedded server's benchmark runs, prints its table and writes it as JSON; nothing here is about speed."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from loadtest.bench import embedded
from serving.profile import OneDnn

pytestmark = pytest.mark.slow


@pytest.mark.exhaustive
def test_every_load_has_a_row_with_its_targets_and_what_it_stands_beside(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # without a real server
    monkeypatch.setattr(embedded, "WARM_UP_S", 0.5)
    file = tmp_path / "bench.json"
    assert embedded.VERB.main(["--seconds", "0.8", "--rounds", "1", "--onednn", "default", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    assert [row["load"] for row in rows] == [load.name for load in embedded.LOADS]
    for row, load in zip(rows, embedded.LOADS, strict=True):
        assert row["rate"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["failed"] == 0
        assert row["targets"] == load.targets
        assert row["real"] is None
        assert set(row["ratios"]) == set(load.recorded)
        assert (row["onednn"], type(row["in_force"]), row["holds"]) == ("default", bool, None)
        assert len(row["rounds"]["embedded-tfserving"]) == 1
    out = capsys.readouterr().out
    assert "recorded (another machine)" in out
    assert all(out.count(load.name) >= 2 for load in embedded.LOADS)  # its line and its row


def test_every_ratio_says_how_many_times_as_good_it_is_and_is_of_the_same_run():
    load = embedded.LOADS[0]
    ours = [embedded.Measured(rate, 5.0, p99, 0, 0.9) for rate, p99 in ((4000, 8.0), (1000, 20.0), (3800, 10.0))]
    theirs = [embedded.Measured(rate, 4.0, 8.0, 0, 0.9) for rate in (5000, 7600, 9000)]
    row = embedded._row(load, {"embedded-tfserving": ours, "tensorflow-serving": theirs})
    assert (row.rate, row.p99_ms, row.met) == (3800, 10.0, True)
    assert row.beside == {"rate": 7600, "p50_ms": 4.0, "p99_ms": 8.0}
    assert row.ratios == {"rate": 0.5, "p50_ms": 0.8, "p99_ms": 0.8}  # a higher latency is worse, as a lower rate is
    turned = embedded._row(load, {"embedded-tfserving": theirs, "tensorflow-serving": ours})
    assert turned.ratios == {"rate": 2.0, "p50_ms": 1.25, "p99_ms": 1.25}
    alone = embedded._row(load, {"embedded-tfserving": ours})
    assert alone.ratios == {"rate": round(3800 / 6206, 3), "p50_ms": 1.0, "p99_ms": 0.79}  # of what was recorded


def test_a_target_is_missed_by_a_late_answer_and_by_a_failed_one_of_any_round():
    load = embedded.LOADS[0]
    good = embedded.Measured(4000, 5.0, 10.0, 0, 0.9)
    assert embedded._row(load, {"embedded-tfserving": [good]}).met
    assert not embedded._row(load, {"embedded-tfserving": [replace(good, p99_ms=21.0)]}).met
    failing = embedded._row(load, {"embedded-tfserving": [good, replace(good, failed=1), good]})
    assert (failing.failed, failing.met) == (1, False)


def test_without_batching_and_over_rest_there_are_one_client_and_many():
    loads = {(load.protocol, load.concurrency, load.batching) for load in embedded.LOADS}
    assert loads == {(one, *how) for one in ("grpc", "rest") for how in ((32, True), (32, False), (1, False))}


@pytest.mark.exhaustive
def test_the_soak_shows_memory_and_growth(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # without a real server
    file = tmp_path / "soak.json"
    assert embedded.VERB.main(["--soak", "0.05", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    assert [row["when"] for row in rows] == ["start", "warm-up", "minute 1"]
    assert {row["server"] for row in rows} == {"embedded-tfserving"}
    assert all(row["rss_mib"] > 50 for row in rows)
    assert rows[-1]["requests"] > 0
    assert rows[-1]["failed"] == {}
    assert "growth since the warm-up" in capsys.readouterr().out


def test_it_holds_against_a_real_server_with_the_same_onednn_alone():
    ours = [embedded.Measured(4000, 5.0, 10.0, 0, 0.9)]

    def holds(rate: float, p99_ms: float, real: bool | None, embedded_s: bool | None = True) -> bool | None:
        rounds = {"embedded-tfserving": ours, "tensorflow-serving": [embedded.Measured(rate, 5.0, p99_ms, 0, 0.9)]}
        said = {"embedded-tfserving": embedded_s, "tensorflow-serving": real}
        return embedded._row(embedded.LOADS[0], rounds, True, said).holds

    assert holds(5000, 7.8, real=True) is True
    assert holds(5100, 7.8, real=True) is False  # fewer than 0.8 of its requests
    assert holds(5000, 7.6, real=True) is False  # a p99 of more than 1.3 of its own
    assert holds(5000, 7.8, real=False) is None
    assert holds(5000, 7.8, real=None, embedded_s=None) is None


def test_both_settings_of_onednn_stand_beside_each_other():
    console = Console(width=200, record=True, file=io.StringIO())
    rates: dict[OneDnn, int] = {True: 3000, False: 2000, "default": 1000}
    once = {asked: [embedded.Measured(rate, 5.0, 2000 / rate, 0, 0.9)] for asked, rate in rates.items()}
    rows = [embedded._row(embedded.LOADS[0], {"embedded-tfserving": one}, asked) for asked, one in once.items()]
    embedded._show_settings(rows, console)
    (line,) = [line for line in console.export_text().splitlines() if embedded.LOADS[0].name in line]
    assert re.findall(r"[\d.]+", line.partition("batched")[2]) == ["1.50", "1.00", "1.50", "0.50", "1.00", "0.50"]
    embedded._show_settings(rows[:1], console)
    assert console.export_text() == ""


def test_impossible_options_are_refused(capsys):
    assert embedded.VERB.main(["--onednn", "on"]) == 1
    assert "profile.onednn = 'on': use true, false or 'default'" in capsys.readouterr().err
    assert embedded.VERB.main(["--rounds", "0"]) == 1
    assert "--rounds 0: use 1 to 100" in capsys.readouterr().err
