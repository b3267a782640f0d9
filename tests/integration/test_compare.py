"""The main job, as a user runs it: one command from nothing to a report, killed and resumed, with real servers."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from loadtest.analysis import summary as summaries
from tests.components import require
from tests.loadtest.report.page_checks import as_read, assert_shows, assert_sound

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 280


def start(*arguments: str) -> subprocess.Popen[str]:
    """`python -m loadtest …` in a session of its own, so that a test can see what it leaves behind."""
    return subprocess.Popen(
        [sys.executable, "-m", "loadtest", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def assert_all_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=15)
    assert not [process.cmdline() for process in alive]


@pytest.fixture(scope="module")
def resumed_run(artifacts, tmp_path_factory) -> tuple[Path, str, list[str]]:
    """A smoke run that is killed (SIGKILL) after its third trial, and the same command again."""
    require("prometheus")
    results = tmp_path_factory.mktemp("results")
    command = ["compare", "--experiment", "smoke", "--artifacts", str(artifacts), "--results", str(results)]
    settings = ["ladder.rates={}", "ladder.fractions=[0.3]", "ladder.overload=0", "ladder.duration_s=3.0"]  # a probe
    settings += ["warm_up.min_s=1.0", "warm_up.tolerance=0.5"]
    command += [word for setting in settings for word in ("--set", setting)]
    first = start(*command)
    deadline = time.monotonic() + LIMIT_S
    while len(done := sorted(results.glob("*-smoke/trials/[!.]*/trial.json"))) < 3:
        assert first.poll() is None, first.stdout.read() if first.stdout else ""
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = descendants(first)
    first.kill()
    first.wait()
    assert children
    assert_all_gone(children)
    kept = [f"{path.parent.name} {path.stat().st_mtime_ns}" for path in done]

    second = start(*command)
    output, _ = second.communicate(timeout=LIMIT_S)
    assert second.returncode == 0, output
    runs = [path for path in results.iterdir() if not path.is_symlink()]
    assert len(runs) == 1
    return runs[0], output, kept


@pytest.mark.timeout(2 * LIMIT_S)
def test_a_killed_run_goes_on_where_it_was(resumed_run):
    run, output, kept = resumed_run
    assert "trials are already measured" in output
    now = {f"{path.parent.name} {path.stat().st_mtime_ns}" for path in run.glob("trials/*/trial.json")}
    assert set(kept) <= now
    assert len(now) == 2 * 2 * 2  # targets, protocols, starts
    decided = json.loads((run / "decisions.json").read_text())
    assert (decided["over"], decided["looks"]) == (True, [2])
    assert [(one["protocol"], one["starts"]) for one in decided["questions"]] == [("grpc", 2), ("rest", 2)]
    environment = json.loads((run / "environment.json").read_text())
    assert [warning["type"] for warning in environment["warnings"]].count("resumed") == 1


def test_the_summary_has_both_targets_on_both_protocols_with_intervals(resumed_run):
    run, output, _ = resumed_run
    summary = json.loads((run / "summary.json").read_text())
    engines = {target["name"]: target["engine"] for target in summary["targets"]}
    assert engines["pytorch"] == "torchserve"
    assert engines["tensorflow"] in ("embedded-tfserving", "tensorflow-serving")
    measured = summary["measurements"]
    assert {(m["target"], m["protocol"]) for m in measured} == {
        (target, protocol) for target in ("pytorch", "tensorflow") for protocol in ("grpc", "rest")
    }
    for measurement in measured:
        assert measurement["valid"] or measurement["why_not_valid"]
        assert measurement["requests"]["ok"] > 0
        low, high = measurement["ci95"]["p99"]
        assert low <= measurement["latency_ms"]["p99"] <= high
    assert str(Path("report.html")) in output


def test_both_are_proven_to_be_the_same_model(resumed_run):
    parity = json.loads((resumed_run[0] / "summary.json").read_text())["parity"]
    for export in ("torchscript", "torch_export", "onnx", "savedmodel"):
        assert parity["exports"][export]["max_abs_diff"] <= 1e-4
    for stack in ("pytorch", "tensorflow"):
        for protocol in ("grpc", "rest"):
            assert parity["wire"][stack][protocol]["max_abs_diff"] <= 1e-4
            assert parity["wire"][stack][protocol]["samples"] == parity["samples"]


def test_prometheus_saw_what_the_generator_sent(resumed_run):
    run, _, _ = resumed_run
    seen = []
    for path in run.glob("trials/*/trial.json"):
        trial, server = json.loads(path.read_text()), json.loads((path.parent / "server.json").read_text())
        if None not in (server["throughput"], server["latency_ms"]["p50"], server["batch_size_mean"]):
            seen.append(server["throughput"] / (trial["requests"]["ok"] / trial["duration_s"]))
            assert server["latency_ms"]["p50"] > 0
            assert server["batch_size_mean"] >= 0.99
    # 8 trials of 3 s, scraped every 0.5 s; where the machine stalls for a second, one may be further off or unseen.
    assert statistics.median(seen) == pytest.approx(1, abs=0.1)
    assert sum(abs(ratio - 1) < 0.35 for ratio in seen) >= 6


def test_the_run_keeps_what_is_needed_to_audit_it(resumed_run):
    run, _, _ = resumed_run
    for stack, config in (("pytorch", "config.properties"), ("tensorflow", "*batching*")):
        assert list(run.glob(f"servers/{stack}-*/{config}"))
        assert list(run.glob(f"servers/{stack}-*/*.log"))
    order = json.loads((run / "environment.json").read_text())["order"]
    probed, first, last = order[:2], order[2:4], order[-2:]
    assert probed == ["pytorch", "tensorflow"]
    assert sorted(first) == ["pytorch", "tensorflow"]
    assert last == first[::-1]
    assert (run / "report.html").stat().st_size < 6_000_000


def test_the_report_is_rebuilt_from_saved_data_alone(resumed_run):
    run, _, _ = resumed_run
    before = (run / "summary.json").read_bytes()
    (run / "summary.json").unlink()
    (run / "report.html").unlink()
    process = start("report", str(run))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert (run / "summary.json").read_bytes() == before
    assert (run / "report.html").exists()


def test_its_report_is_sound_in_a_browser(resumed_run, browser):
    run, _, _ = resumed_run
    charts = {chart["id"] for chart in assert_sound(browser, run / "report.html")}
    assert {"latency-grpc", "latency-rest", "percentiles-grpc", "percentiles-rest"} <= charts
    assert sum(name.startswith("timeline-") for name in charts) >= 8  # two targets, two protocols, twice each
    assert_shows(browser, summaries.read(run).measurements)
    text = browser.execute_script("return document.querySelector('main').textContent")
    for really_rendered in ("job_queue_size=1024", "max_enqueued_batches { value: 32 }"):
        assert really_rendered in text
    assert browser.execute_script("return document.querySelectorAll('.sample').length") == 10


def test_the_terminal_and_the_files_carry_the_reports_verdict(resumed_run):
    run, output, _ = resumed_run
    verdict = json.loads((run / "report.json").read_text())["verdict"]
    shown, page = " ".join(output.split()), (run / "report.html").read_text(encoding="utf-8")
    rows = [line["text"] for row in verdict["rows"] for line in row["lines"]]
    assert rows
    for said in (verdict["sentence"], *rows, verdict["host"]["says"]):
        assert said in shown
        assert said in as_read(page)
    assert (run / "report.md").read_text().splitlines()[0].startswith("# ")


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("seconds_with_children", [0.0, 4.0])
def test_ctrl_c_stops_cleanly_and_leaves_no_process(artifacts, tmp_path, seconds_with_children):
    process = start(
        "compare", "--experiment", "smoke", "--artifacts", str(artifacts), "--results", str(tmp_path / "results")
    )
    deadline = time.monotonic() + 120
    while not descendants(process):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    until = time.monotonic() + seconds_with_children
    while time.monotonic() < until:
        time.sleep(0.05)
    children = descendants(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert output.splitlines()[-1] == "stopped"
    assert_all_gone(children)


@pytest.mark.timeout(LIMIT_S)
def test_a_server_that_dies_under_load_is_named_with_its_last_log_lines(artifacts, tmp_path):
    results = tmp_path / "results"
    process = start(
        *("compare", "--experiment", "smoke", "--artifacts", str(artifacts), "--results", str(results)),
        *("--set", "targets=['tensorflow']", "--set", "ladder.rates={grpc=[50], rest=[50]}"),
    )
    deadline = time.monotonic() + 120
    while not list(results.glob("*-smoke/warm-ups/*/warm-up.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = descendants(process)
    server = next(child for child in children if "serving.engines.embedded_tfserving" in child.cmdline())
    server.kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("error: ")
    assert "tensorflow" in output.splitlines()[-1]
    assert_all_gone(children)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiment", "nightly"], "error: experiment 'nightly'"),
        (["--dataset", "mnist"], "error: "),
        (["--model", "vgg"], "error: "),
        (["--set", "ladder.duration=1"], "error: command line: ladder.duration: unknown key; did you mean duration_s?"),
        (["--tensorflow-model-server", "/nowhere/tfs"], "error: --tensorflow-model-server /nowhere/tfs: no executable"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, message, tmp_path):
    process = start(
        "compare", "--artifacts", str(tmp_path / "artifacts"), "--results", str(tmp_path / "results"), *arguments
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert any(line.startswith(message) for line in output.splitlines()), output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("relative", [False, True])
def test_a_program_that_is_no_tensorflow_serving_is_refused_before_training(relative, tmp_path):
    program = tmp_path / "tensorflow_model_server"
    program.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m serving.engines.embedded_tfserving "$@"\n')
    program.chmod(0o755)
    named = os.path.relpath(program, ROOT) if relative else str(program)
    folders = ["--artifacts", str(tmp_path / "artifacts"), "--results", str(tmp_path / "results")]
    process = start("compare", "--experiment", "smoke", *folders, "--tensorflow-model-server", named)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.startswith(f"error: {program} is not TensorFlow Serving: its --version says 'embedded-tfserving: "), (
        output
    )
    assert not (tmp_path / "artifacts").exists()
    assert not (tmp_path / "results").exists()


def test_a_bundle_with_a_changed_byte_is_refused(artifacts, bundle, tmp_path):
    import shutil

    copy = tmp_path / "artifacts"
    shutil.copytree(artifacts, copy)
    archive = copy / bundle.archive.relative_to(artifacts)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    process = start("compare", "--experiment", "smoke", "--artifacts", str(copy), "--results", str(tmp_path / "r"))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert archive.name in output
    assert "Traceback" not in output
