"""The page's text, without a browser."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from loadtest import report
from loadtest.analysis import summary
from loadtest.analysis.records import NotItsOwnBackend
from loadtest.experiment.questions import Family
from loadtest.report import names, wording
from loadtest.report.charts.figure import plain
from loadtest.report.charts.latency import latency_by_rate
from models.problem import Problem
from serving.engines import registry
from serving.engines.engine import TRANSPORT, Backend, Place, Switch, Transport
from tests.loadtest.analysis.figures import bounds
from tests.loadtest.runs.build import EMBEDDED, TF_SERVING, TORCHSERVE, SimulatedServer, write_run

RATES = {"grpc": [250.0, 500.0]}


class Page(HTMLParser):
    """The words of a page outside scripts and styles, and every address that it could load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.addresses: list[str] = []
        self._hidden = False
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split()).replace("\N{NO-BREAK SPACE}", " ")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden = tag in ("script", "style")
        loads = ("src", "srcset", "action", "data", *(() if tag == "a" else ("href",)))
        self.addresses += [value or "" for name, value in attrs if name in loads]

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def written(run: Path) -> Page:
    return Page(report.write(run).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Path:
    servers = {"pytorch": TORCHSERVE, "tensorflow": EMBEDDED}
    return write_run(tmp_path_factory.mktemp("runs") / "embedded", servers, rates=RATES, repetitions=3, duration_s=3)


def test_the_page_is_one_whole_file_under_6_mb_that_loads_nothing(embedded):
    path = report.write(embedded)
    assert path == embedded / "report.html"
    assert path.stat().st_size < 6_000_000
    assert all(address.startswith(("#", "data:")) for address in written(embedded).addresses)
    assert not [found for found in embedded.iterdir() if "partial" in found.name]


def test_the_verdict_comes_first_with_its_interval_and_conditions(embedded):
    text = written(embedded).text
    figures = summary.read(embedded)
    verdict = next(one for one in figures.verdicts if one.family is Family.LATENCY)
    assert verdict.ratio
    low, high = bounds(verdict.ci95)
    factor, least, most = wording.times(verdict.ratio, low, high)
    sentence = "Over gRPC at 500/s the embedded stand-in for TensorFlow Serving answered 99 % of requests within "
    assert sentence in text
    assert f"({factor} times as long, {least}–{most})." in text.partition(sentence)[2]
    assert text.index(sentence) < text.index("It holds under these conditions") < text.index("Latency From")
    servers = "TorchServe 0.12.0, embedded-tfserving 2.21.0"
    for condition in ("convnet on fashion-mnist", "p99 within 50 ms, at most 0.1 % errors", "server on CPU 0", servers):
        assert condition in text


def test_question_by_question_every_rate_is_told_with_figures_starts_and_p(embedded):
    evidence = written(embedded).text.partition("Question by question")[2].partition("Read with this in mind")[0]
    assert "Lower p99 latency at 500/s over gRPC?" in evidence
    assert "At 250/s: " in evidence.partition("And at other rates over gRPC?")[2]
    assert evidence.count("from 3 starts each; p ") == 2


def test_what_overload_does_is_told_and_not_compared(tmp_path):
    servers = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}
    run = write_run(tmp_path / "run", servers, rates=RATES, duration_s=2, overload={"grpc": 1600.0})
    text = written(run).text
    told = text.partition("What does overload do, 1,600/s over gRPC?")[2].partition("Tried once, and not compared.")
    assert all(f"{name}: " in told[0] for name in ("TorchServe", "TensorFlow Serving"))
    assert "within 50 ms" in told[0]
    assert told[1]
    assert "at 1,600/s over gRPC?" not in text


def test_only_the_pages_own_scripts_may_run_and_nothing_may_load(embedded):
    html = report.write(embedded).read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].replace("&#39;", "'").split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
    assert {source.removeprefix("'sha256-").rstrip("'") for source in rules["script-src"].split()} == hashes


def luminance(color: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_stand_out_in_both_colour_schemes(scheme):
    """WCAG 2.2 AA: 4.5 for text, 3 for marks of charts."""
    style = (Path(report.__file__).parent / "templates" / "style.css").read_text()
    light, dark = style.split("@media (prefers-color-scheme: dark)")[:2]
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))
    if scheme == "dark":
        colors |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", dark.split("}")[0]))
    for text in ("ink", "muted", "accent", "good", "caution", "bad", "slo"):
        assert contrast(colors[text], colors["surface"]) >= 4.5, text
    for text in ("ink", "muted", "accent"):
        assert contrast(colors[text], colors["page"]) >= 4.5, text
    for state in ("good", "caution", "bad"):
        assert contrast(colors[state], colors[f"{state}-soft"]) >= 4.5, state
    assert contrast(colors["ink"], colors["mark"]) >= 4.5
    for mark in [name for name in colors if re.fullmatch(r"(target|part)-\d", name)]:
        assert contrast(colors[mark], colors["surface"]) >= 3, mark


def test_a_stand_in_is_never_labelled_tensorflow_serving(embedded):
    text = written(embedded).text
    assert "Embedded stand-in" in text
    assert "embedded-tfserving 2.21.0" in text
    assert not re.search(r"TensorFlow Serving 2", text)
    assert "is a stand-in inside this project, not TensorFlow Serving" in text


def test_engine_settings_and_notes_stand_beside_the_figures(embedded):
    text = written(embedded).text
    assert next(knob.note for knob in TORCHSERVE.knobs if knob.note) in text
    assert registry.engine("torchserve").warning in text
    assert "# rendered from the profile" in text
    assert "make compare EXPERIMENT=results/embedded/experiment.toml" in text


def test_every_landmark_table_and_chart_has_words(embedded):
    html = report.write(embedded).read_text(encoding="utf-8")
    body = html[html.index("<body>") : html.index('<script type="application/json"')]
    assert all(f"<{landmark}" in body for landmark in ("header", "nav", "main", "footer"))
    assert body.count("<h1") == 1
    plots = re.findall(r'class="plot" id="([\w-]+)"[^>]*role="img"', body)
    assert plots[:3] == ["ratios", "latency-grpc", "percentiles-grpc"]
    assert sum(plot.startswith("timeline-grpc-") for plot in plots) == 6  # two targets, three times each
    for plot in plots:
        assert re.search(rf'id="{plot}-alternative">[^<]{{40,}}', body)
        assert f'<table data-chart="{plot}">' in body
    for table in re.findall(r"<table.*?</table>", body, re.DOTALL):
        assert "<th scope=" in table


def test_every_landmark_has_a_name_of_its_own(embedded):
    html = report.write(embedded).read_text(encoding="utf-8")
    names = re.findall(r'role="region" aria-label="([^"]+)"', html) + re.findall(r'<h2 id="[^"]+">([^<]+)</h2>', html)
    assert len(names) > 12
    assert len(set(names)) == len(names)


def test_charts_hold_the_figures_of_the_summary(embedded):
    figures = summary.write(embedded)
    chart = latency_by_rate(figures, "grpc")
    assert chart is not None
    line = next(trace for trace in chart.data if trace.get("name") == "TensorFlow p99")
    measured = [item for item in figures.measurements if item.target == "tensorflow"]
    assert line["x"] == [item.offered_rate for item in measured]
    assert line["y"] == [item.latency_ms.p99 for item in measured]
    assert chart.layout["shapes"][0]["y0"] == 50.0
    assert "TensorFlow (embedded-tfserving 2.21.0)" in chart.alternative


def test_an_invalid_measurement_is_struck_with_its_reason(tmp_path):
    def spoil(target: str, protocol: str, rate: float, repetition: int) -> dict:
        return {"wrong": 3} if (target, rate) == ("pytorch", 500.0) else {}

    servers = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}
    run = write_run(tmp_path / "run", servers, rates=RATES, duration_s=3, spoil=spoil)
    html = report.write(run).read_text(encoding="utf-8")
    assert html.count('<tr class="struck"') == 1
    assert "checked answers were wrong" in Page(html).text
    assert "1 of 4 measurements not valid" in Page(html).text


def test_what_was_not_saved_is_said_to_be_missing(tmp_path):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates=RATES, duration_s=2, prometheus=False)
    for name in ("environment.json", "targets.json", "bundle-manifest.json", "wire-parity.json"):
        (run / name).unlink()
    (run / "experiment.toml").write_text("")
    text = written(run).text
    assert "No server-side figures" in text
    assert "Model parity not proven" in text
    assert "No environment was saved" in text


def test_a_run_without_a_trial_still_has_a_page(tmp_path):
    run = write_run(tmp_path / "run", {}, asked=["pytorch", "tensorflow"])
    text = written(run).text
    assert "No verdict: PyTorch and TensorFlow were not both measured" in text
    assert "No trial was saved in this run." in text


def test_one_target_alone_is_reported_without_a_comparison(tmp_path):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates=RATES, duration_s=2)
    assert "TorchServe alone was measured." in written(run).text


def test_names_cannot_become_markup_or_leave_the_data(tmp_path):
    name = "</script><script>alert(1)</script><img src=x onerror=alert(2)>%{x}" + "ب" * 300
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates=RATES, duration_s=1, model=name, dataset=name)
    html = report.write(run).read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert plain("<a href=//x>%{y}") == "&lt;a href=//x&gt;&#37;{y}"


def test_a_damaged_summary_is_named(tmp_path):
    run = write_run(tmp_path / "run", {}, asked=["pytorch"])
    (run / "summary.json").write_text("{")
    with pytest.raises(Problem, match=r"summary\.json: not a summary .*make report"):
        report.write(run)


@pytest.mark.parametrize(
    ("said", "condition"),
    [((True, True), "oneDNN on "), ((True, False), "oneDNN PyTorch on, TensorFlow off "), ((True, None), "not said")],
)
def test_what_the_servers_said_of_onednn_stands_in_the_conditions_and_beside_the_settings(tmp_path, said, condition):
    torch, tensorflow = ((Switch("oneDNN", value), Switch("OMP_NUM_THREADS", "1")) for value in said)
    servers = {"pytorch": replace(TORCHSERVE, switches=torch), "tensorflow": replace(TF_SERVING, switches=tensorflow)}
    run = write_run(tmp_path / "run", servers, rates={"grpc": [250.0]}, duration_s=2)
    text = written(run).text
    assert condition in text.partition("It holds under these conditions")[2]
    settings = text.partition("One profile, two servers")[2]
    assert all(row in settings for row in ("in force: oneDNN", "in force: OMP_NUM_THREADS – 1 1 same"))
    assert summary.read(run).target("tensorflow").switches == tensorflow


@pytest.mark.parametrize("transport", Transport)
def test_how_a_front_end_reached_its_workers_is_a_condition(tmp_path, transport):
    torch = replace(TORCHSERVE, switches=(Switch(TRANSPORT, transport),))
    run = write_run(
        tmp_path / "run", {"pytorch": torch, "tensorflow": TF_SERVING}, rates={"grpc": [250.0]}, duration_s=2
    )
    text = written(run).text
    conditions = text.partition("It holds under these conditions")[2]
    assert f"Front end to workers PyTorch {transport} " in conditions
    assert f"in force: front end to workers – {transport} – " in text
    assert f"PyTorch {transport}" in (run / "report.md").read_text()


def test_another_backend_than_a_server_s_own_is_named_wherever_the_server_is(tmp_path):
    """Its figures are never those of the backend that people would take."""
    python = Backend("Python", "ONNX Runtime", Place.BESIDE, instead_of="onnxruntime")
    behind = SimulatedServer(engine="triton", version="2.51.0", base_ms=1.9, capacity=1300, backend=python)
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE, "triton": behind}, rates={"grpc": [250.0]}, duration_s=2)
    page = written(run)
    figures = summary.read(run)
    assert figures.target("triton").backend == python
    assert NotItsOwnBackend("triton", "triton", python) in figures.warnings
    assert names.of(figures.targets) == {"pytorch": "TorchServe", "triton": "Triton’s Python backend"}
    assert "Another backend : Triton’s Python backend" in page.text
    assert "ONNX Runtime: Python backend around ONNX Runtime, in a process beside the server’s" in page.text
    assert "not its onnxruntime backend: its speed says little about that one" in page.text
    own = replace(behind, backend=Backend("onnxruntime", "ONNX Runtime", Place.SERVER))
    run = write_run(tmp_path / "own", {"pytorch": TORCHSERVE, "triton": own}, rates={"grpc": [250.0]}, duration_s=2)
    assert "onnxruntime backend, in the server’s process" in written(run).text
    assert names.of(summary.read(run).targets)["triton"] == "Triton"
