"""Samples, disagreements, the checklist, time lines and decompositions: what the report rests on, as values."""

from __future__ import annotations

import base64
import io
import json
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from loadtest import report
from loadtest.analysis import saved_run, summary
from loadtest.analysis.records import Decomposition, EncodedImages, FileSizes, Parts, Summary, Untold
from loadtest.report import checklist, samples, scenarios, sizing
from loadtest.report.charts import timeline
from loadtest.report.charts.decomposition import decomposition, parts, remainder
from models.encoding import Encoding
from models.problem import Problem
from serving.engines import registry
from serving.engines.engine import Topic
from tests.loadtest.report.page_checks import as_read
from tests.loadtest.runs.build import CLASSES, EMBEDDED, PROFILE, TORCHSERVE, decompose, write_run, write_trial

RATES = {"grpc": [250.0, 500.0]}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> saved_run.SavedRun:
    servers = {"pytorch": TORCHSERVE, "tensorflow": EMBEDDED}
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", servers, rates=RATES, duration_s=3)
    return saved_run.load(folder)


@pytest.fixture(scope="module")
def figures(run) -> Summary:
    return decompose(summary.build(run.folder))


def test_sample_images_are_the_saved_pixels_enlarged_without_smoothing(run):
    shown = samples.load(run)
    saved = run.samples()
    assert [item.index for item in shown] == saved["indices"].tolist()
    picture = Image.open(io.BytesIO(base64.b64decode(shown[0].image.partition(",")[2])))
    factor = picture.width // saved["images"].shape[1]
    assert picture.width >= samples.SMALLEST
    assert np.array_equal(np.asarray(picture)[::factor, ::factor], saved["images"][0])


def test_a_gray_sample_is_a_gray_picture():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    picture = Image.open(io.BytesIO(base64.b64decode(samples.data_uri(pixels).partition(",")[2])))
    assert (picture.mode, picture.size) == ("L", (64, 48))
    assert np.array_equal(np.asarray(picture)[::16, ::16], pixels[..., 0])


def test_each_sample_has_every_servers_answer_said_once_where_protocols_agree(run):
    sample = samples.load(run)[0]
    assert sample.agrees
    assert [(answer.target, answer.protocols) for answer in sample.answers] == [
        ("pytorch", ["grpc"]),
        ("tensorflow", ["grpc"]),
    ]
    assert samples.class_name(list(CLASSES), sample.reference.best) in CLASSES
    assert samples.class_name([], 7) == "class 7"


def test_disagreements_are_counted_by_class_pair(tmp_path):
    servers = {"pytorch": TORCHSERVE, "tensorflow": EMBEDDED}
    folder = write_run(tmp_path / "run", servers, rates={"rest": [100.0]}, duration_s=1)
    (found,) = samples.disagreements(summary.build(folder).parity)
    assert (found.target, found.protocol, found.expected, found.answered, found.times) == (
        "tensorflow",
        "rest",
        6,
        0,
        1,
    )
    assert "Shirt" in report.write(folder).read_text()


def test_damaged_samples_are_named(tmp_path):
    folder = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [50.0]}, duration_s=1)
    (folder / "wire-samples.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(Problem, match=r"wire-samples\.npz: cannot be read"):
        report.write(folder)


def test_the_checklist_covers_what_people_are_told_to_weigh_with_sources(figures):
    points = checklist.points(figures, sizing.plan(figures))
    topics = " ".join(point.topic for point in points).lower()
    for topic in ("experience", "needs", "scale", "hardware", "documentation", "community", "maintenance", "placement"):
        assert topic in topics
    for point in points:
        assert point.judgement
        assert point.facts
        assert all(fact.url.startswith("https://") and fact.source for fact in point.facts)
    maintenance = next(point for point in points if point.topic.startswith("Maintenance"))
    known = [registry.engine(name) for name in ("torchserve", "tensorflow-serving")]
    assert {fact for one in known for fact in one.facts if fact.topic is Topic.MAINTENANCE} == set(maintenance.facts)
    assert "embedded-tfserving 2.21.0" in " ".join(maintenance.measured)


def test_a_time_line_holds_every_second_of_every_trial(run, figures):
    charts = timeline.timelines(run, figures)
    assert [chart.title for chart in charts] == [
        "PyTorch, gRPC, repetition 1",
        "TensorFlow, gRPC, repetition 1",
        "PyTorch, gRPC, repetition 2",
        "TensorFlow, gRPC, repetition 2",
    ]
    first = timeline.blocks(run)[0]
    rows = [row for trial in first.trials for row in trial.timeline()]
    traces = {trace["name"]: trace for trace in charts[0].data}
    for name, column in (("answered", "ok"), ("p99", "p99_ms"), ("errors", "errors")):
        shown = [value for value in traces[name]["y"] if value is not None]
        assert shown == [pytest.approx(row[column], abs=1e-3) for row in rows]
    assert {"batch", "CPU", "memory"} <= set(traces)
    assert max(value for value in traces["memory"]["y"] if value) == pytest.approx(416, abs=1)


def test_the_warm_up_and_each_lead_in_are_shaded_and_trials_lie_between(run, figures):
    block, chart = timeline.blocks(run)[0], timeline.timelines(run, figures)[0]
    shades = [(shape["x0"], shape["x1"]) for shape in chart.layout["shapes"]]
    assert shades[0] == (0, block.warm_up_s) == (0, 3.5)
    assert len(shades) == 1 + len(block.trials)
    answered = next(trace for trace in chart.data if trace["name"] == "answered")
    for at, value in zip(answered["x"], answered["y"], strict=True):
        assert value is None or not any(start < at < end for start, end in shades)


def test_an_invalid_trial_is_crossed_out_above_its_seconds(tmp_path):
    def spoil(target: str, protocol: str, rate: float, repetition: int) -> dict:
        return {"wrong": 1} if rate == 500.0 else {}

    folder = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates=RATES, duration_s=1, spoil=spoil)
    chart = timeline.timelines(saved_run.load(folder), summary.build(folder))[0]
    labels = [note["text"] for note in chart.layout["annotations"]]
    assert {"250/s", "✕ 500/s"} <= set(labels)


def test_rates_above_a_time_line_keep_apart_and_no_crossed_one_is_left_out(tmp_path):
    def spoil(target: str, protocol: str, rate: float, repetition: int) -> dict:
        return {"wrong": 1} if rate == 400.0 else {}

    rates = {"grpc": [100.0 * step for step in range(1, 21)]}
    folder = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates=rates, duration_s=1, spoil=spoil)
    chart = timeline.timelines(saved_run.load(folder), summary.build(folder))[0]
    above = [note for note in chart.layout["annotations"] if note["text"].endswith("/s") and note.get("yshift")]
    places = [note["x"] for note in above]
    assert len(places) >= 4
    assert min(later - earlier for earlier, later in pairwise(places)) >= 0.12 * chart.layout["xaxis"]["range"][1]
    assert any(note["text"].startswith("✕") for note in chart.layout["annotations"])


def test_without_a_server_side_time_line_that_is_said(tmp_path):
    folder = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates=RATES, duration_s=1, prometheus=False)
    chart = timeline.timelines(saved_run.load(folder), summary.build(folder))[0]
    assert "this run saved no time line" in chart.caption
    assert "CPU" not in {trace["name"] for trace in chart.data}


def test_other_scenarios_are_told_by_the_figure_that_they_are_run_for(tmp_path):
    folder = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [100.0]}, duration_s=2)
    spike = {"arrival": "spike", "arrivals": {"spike_start_s": 1.0, "spike_s": 1.0}}
    for scenario, rate, more, milliseconds in (
        ("single-stream", 0.0, {"arrival": "closed loop"}, [4.0, 4.0, 4.0]),
        ("offline", 0.0, {"arrival": "closed loop", "batch": 8}, [30.0, 30.0, 30.0]),
        ("soak", 50.0, {}, [4.0, 5.0, 6.0, 8.0]),
        ("spike", 50.0, spike, [5.0, 160.0, 90.0, 5.0]),
    ):
        for repetition in (1, 2):
            record = {"target": "pytorch", "protocol": "grpc", "scenario": scenario, "offered_rate": rate, **more}
            seconds = [np.full(50, value) for value in milliseconds]
            name = f"{scenario}-r{repetition}"
            write_trial(folder / "trials" / name, {**record, "repetition": repetition}, seconds)
    told = {item.scenario: item.found for item in scenarios.findings(summary.build(folder))}
    assert list(told) == ["single-stream", "offline", "spike", "soak"]
    assert told["single-stream"].startswith("p90 4.00 ms (")
    assert told["offline"].startswith("400 images/s (")
    assert told["spike"] == "p99 within the SLO again after 1 s, 1 s (each repetition)"
    assert told["soak"].startswith("p50 × 2.00, p99 × 2.00 from the first quarter to the last of 8.00 s")
    text = report.write(folder).read_text(encoding="utf-8")
    assert "closed loop" in text
    assert told["offline"] in as_read(text)
    assert "| single-stream | closed loop |" in (folder / "report.md").read_text()


def test_a_long_trial_keeps_its_worst_seconds_in_a_page_that_stays_small(tmp_path):
    folder = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [5.0]}, duration_s=1, repetitions=1)
    seconds = [np.full(1, 900.0 if second == 2501 else 3.0) for second in range(3600)]
    record = {"target": "pytorch", "protocol": "grpc", "scenario": "soak", "offered_rate": 1.0}
    write_trial(folder / "trials" / "soak", record, seconds)
    chart = timeline.timelines(saved_run.load(folder), summary.build(folder))[0]
    p99 = next(trace for trace in chart.data if trace["name"] == "p99")
    assert len(p99["y"]) <= timeline.MOST_POINTS + 1
    worst = max(range(len(p99["y"]) - 1), key=lambda at: p99["y"][at])
    assert p99["y"][worst] == pytest.approx(900, rel=0.01)
    assert p99["x"][worst] == pytest.approx(2502.5)  # a second of lead-in before


def test_the_parts_of_a_bar_are_the_decomposition_and_sum_to_its_total(figures):
    chart = decomposition(figures, "grpc")
    assert chart is not None
    drawn = sorted(figures.decomposition, key=lambda item: (item.offered_rate, item.target), reverse=True)
    for index, item in enumerate(drawn):
        shown = [trace["x"][index] for trace in chart.data]
        assert sum(value for value in shown if value) == pytest.approx(item.total_ms, rel=1e-3)
        assert item.parts_ms.model == pytest.approx(shown[0], abs=1e-4)


def test_decoding_is_a_part_where_clients_send_files(figures):
    assert "decoding" not in parts(figures)
    sent = EncodedImages(format=Encoding.PNG, bytes=FileSizes(mean=900, least=800, most=1000))
    taken = [
        replace(item, parts_ms=replace(item.parts_ms, model=1.0, decoding=0.5, queue=None, runtime=None, transport=0.5))
        for item in figures.decomposition
    ]
    chart = decomposition(replace(figures, encoded=sent, decomposition=tuple(taken)), "grpc")
    assert chart is not None
    names = [trace["name"] for trace in chart.data]
    assert names[:2] == ["model computes", "decodes the file"]
    assert set(chart.data[1]["x"]) == {0.5}
    assert remainder(taken[0]) == pytest.approx(taken[0].total_ms - 2.0)


def test_what_a_server_cannot_report_stays_untold(figures):
    torch = next(item for item in figures.decomposition if item.target == "pytorch")
    assert torch.parts_ms.runtime is None
    assert remainder(torch) == pytest.approx(torch.total_ms * 0.25)
    nothing = [replace(item, parts_ms=Parts()) for item in figures.decomposition]
    for entries in ((), tuple(nothing)):
        assert decomposition(replace(figures, decomposition=entries), "grpc") is None


def test_bars_of_two_scenarios_at_one_rate_stand_apart(figures):
    more = [replace(item, scenario="server") for item in figures.decomposition]
    chart = decomposition(replace(figures, decomposition=(*figures.decomposition, *more)), "grpc")
    assert chart is not None
    assert len(set(chart.data[0]["y"])) == 2 * len(figures.decomposition)
    assert "PyTorch<br>server 250/s" in chart.data[0]["y"]


def test_why_no_part_is_known_is_told(tmp_path):
    folder = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates=RATES, duration_s=1, prometheus=False)
    why = "this machine has no free core"
    entry = Decomposition(
        target="pytorch",
        protocol="grpc",
        scenario="ladder",
        offered_rate=250.0,
        parts_ms=Parts(),
        total_ms=4.0,
        batch_size_mean=None,
        cannot_report=(Untold.MODEL,),
        model_problem=why,
    )
    save(folder, replace(summary.build(folder), decomposition=(entry,)))
    html = report.write(folder).read_text(encoding="utf-8")
    assert why in html
    assert "decomposition-grpc" not in html


def save(folder: Path, figures: Summary) -> None:
    (folder / summary.FILE).write_bytes(msgspec.json.encode(figures))


def test_report_json_says_what_the_page_says(run, figures):
    save(run.folder, figures)
    html = report.write(run.folder).read_text(encoding="utf-8")
    values = json.loads((run.folder / "report.json").read_text())
    assert msgspec.convert(values["summary"], Summary) == figures
    assert values["verdict"]["sentence"] in as_read(html)
    assert {chart["id"] for chart in values["charts"]} >= {"ratios", "latency-grpc", "decomposition-grpc"}
    assert len(values["samples"]) == 10
    assert "base64" not in json.dumps(values)


def test_a_run_of_an_earlier_version_without_the_new_files_has_a_report(tmp_path):
    folder: Path = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates=RATES, duration_s=1)
    (folder / "wire-samples.npz").unlink()
    for path in folder.glob("trials/*/server-timeline.csv"):
        path.unlink()
    targets = json.loads((folder / "targets.json").read_text())
    for target in targets:
        del target["knobs"]
        target |= {"settings": {**PROFILE, "batchSize": 32}, "notes": ["a note of then"]}
    (folder / "targets.json").write_text(json.dumps(targets))
    html = report.write(folder).read_text(encoding="utf-8")
    assert "This run kept no sample images." in html
    assert "splits no latency into parts" in html
    values = json.loads((folder / "report.json").read_text())
    rows = {row["name"]: row for row in values["settings"]}
    assert {row["compared"] for row in rows.values()} == {"not recorded"}
    assert rows["batchSize"]["given"] == ["batchSize = 32"]


def test_a_summary_of_an_earlier_format_is_refused_with_the_command_that_rebuilds_it(tmp_path):
    folder = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates=RATES, duration_s=1)
    (folder / summary.FILE).write_text(json.dumps({"experiment": {}, "measurements": []}))
    with pytest.raises(Problem, match=rf"summary\.json: format 1.*make report RUN={folder}"):
        report.write(folder)
    summary.write(folder)
    assert report.write(folder).exists()
