"""report.md, read back by a Markdown parser."""

from __future__ import annotations

import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from loadtest import report
from loadtest.report import markdown, wording
from serving.engines.engine import Knob
from tests.loadtest.runs.build import TF_SERVING, TORCHSERVE, SimulatedServer, write_run

HOSTILE = "](x) | <script>alert(1)</script> `a` **b** @everyone\n# c\u202eمرحبا" + "W" * 300


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every table, by row."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and found[-1] and token.level >= 4:
            found[-1][-1].append(token.content)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    servers = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}
    folder = tmp_path_factory.mktemp("runs") / "my_run"
    report.write(write_run(folder, servers, rates={"grpc": [250.0, 500.0]}, duration_s=3, price_per_hour=0.4))
    return folder


def test_it_carries_the_verdict_and_every_measurement(run):
    text = (run / "report.md").read_text()
    figures = json.loads((run / "summary.json").read_text())
    values = json.loads((run / "report.json").read_text())
    assert text.startswith(f"# {values['verdict']['sentence']}\n")
    rows = next(table for table in tables(text) if "offered" in table[0])
    assert len(rows) == 1 + len(figures["measurements"])
    for row, item in zip(rows[1:], figures["measurements"], strict=True):
        assert len(row) == len(rows[0])
        p99 = f"{wording.number(item['latency_ms']['p99'])} ({wording.interval(item['ci95']['p99'])})"
        assert row[rows[0].index("p99, ms (95 %)")] == p99
        thin = row[rows[0].index("p99.9, ms (95 %)")]
        assert thin.startswith(f"{wording.number(item['latency_ms']['p999'])}†")  # 1 of 1,500 answers lies beyond
    assert "† Fewer than ten answers lie beyond this percentile" in text


def test_what_the_server_said_of_its_errors_is_quoted(tmp_path):
    said = {"kind": "http_400", "after_s": 0.2, "said": "batch size 64 | too big"}
    failing = {"errors": {"http_400": 3}, "first_error": said}
    servers = {"pytorch": TORCHSERVE}
    run = write_run(tmp_path / "run", servers, rates={"grpc": [50.0]}, duration_s=1, spoil=lambda *_: failing)
    report.write(run)
    quote = "6 × http_400; the first, http_400 after 0.2 s: “batch size 64"
    assert quote.replace("_", "\\_") in (run / "report.md").read_text()
    assert quote in (run / "report.html").read_text()


def test_what_stands_under_the_headline_is_there_to_the_end(tmp_path):
    servers = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}
    rates = {"grpc": [250.0], "rest": [200.0], "rest-binary": [200.0]}
    run = write_run(tmp_path / "run", servers, rates=rates, searches=4, repetitions=4, price_per_hour=0.4)
    report.write(run)
    rows = json.loads((run / "report.json").read_text())["verdict"]["rows"]
    told = [f"- {row['title']}: {line['text']}" for row in rows for line in row["lines"]]
    assert [row["topic"] for row in rows] == ["capacity", "latency", "cost"]
    assert sum(map(len, told)) > 600
    text = html.unescape(re.sub(r"\\(?=\W)", "", (run / "report.md").read_text()))
    assert all(f"\n{line}\n" in text for line in told)


def test_commands_are_not_escaped(run):
    assert "    make compare EXPERIMENT=results/my_run/experiment.toml\n" in (run / "report.md").read_text()


def test_hostile_names_stay_text_and_keep_the_tables_whole(tmp_path):
    servers = {
        "pytorch": SimulatedServer(
            engine=HOSTILE, version=HOSTILE, knobs=(Knob(HOSTILE, HOSTILE, HOSTILE, note=HOSTILE),)
        ),
        HOSTILE: TF_SERVING,
    }
    folder = write_run(tmp_path / "run", servers, rates={"grpc": [100.0]}, duration_s=1, model=HOSTILE, dataset=HOSTILE)
    report.write(folder)
    text = (folder / "report.md").read_text()
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = {token.type for token in tokens} | {child.type for token in tokens for child in token.children or []}
    assert "html_block" not in kinds
    assert "html_inline" not in kinds
    assert "@everyone" not in text
    assert "\u202e" not in text
    for table in tables(text):
        assert len({len(row) for row in table}) == 1


@given(st.text(max_size=60))
def test_an_escaped_value_is_shown_as_it_was_written(text):
    escaped = markdown.escape("x" + text)
    (paragraph,) = [token for token in MarkdownIt("commonmark").parse(escaped) if token.type == "inline"]
    shown = "".join(child.content for child in paragraph.children or [])
    assert shown.split() == markdown.visible("x" + text).split()
