"""The gate for CI: exit statuses, a line for each question, JUnit XML, and Markdown for pull requests."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from loadtest.__main__ import main
from loadtest.analysis.records import Gate, GateOutcome, GateQuestion, RunInfo
from loadtest.experiment.questions import Metric
from loadtest.report import gate
from tests.loadtest.runs.build import TORCHSERVE, SimulatedServer, write_run

SERVER = replace(TORCHSERVE, apart=0.02)
STARTS = 8
WORKFLOW = Path(__file__).parents[3] / "docs" / "ci-gate.md"


def measured(folder: Path, server: SimulatedServer = SERVER, seed: int = 1, **options: Any) -> Path:
    options = {"rates": {"grpc": [200.0]}, "repetitions": STARTS, "searches": STARTS, **options}
    return write_run(folder, {"pytorch": server}, duration_s=2, seed=seed, prometheus=False, **options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    measured(folder / "before")
    measured(folder / "again", seed=2)
    measured(folder / "slower", replace(SERVER, capacity=SERVER.capacity * 0.6, base_ms=SERVER.base_ms / 0.6), seed=3)
    return folder


@pytest.fixture
def say(runs, capsys, monkeypatch):
    """The gate's exit status, what it prints, and what it complains of."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def run(name: str, *more: str, against: str = "before") -> tuple[int, list[str], str]:
        status = main(["gate", str(runs / name), "--against", str(runs / against), *more])
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err

    return run


def cases(path: Path) -> dict[str, ElementTree.Element]:
    """A JUnit file's cases by name, after a check of what its readers rely on (Jenkins' junit-10.xsd)."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "testsuites"
    (suite,) = root
    assert (suite.tag, suite[0].tag) == ("testsuite", "properties")
    found = suite.findall("testcase")
    assert len(suite) == 1 + len(found) == 1 + int(suite.attrib["tests"])
    assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
    assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped"))
    for one in (suite, *found):
        assert float(one.attrib["time"]) >= 0
        assert set(one.attrib) <= {"name", "classname", "time", "tests", "failures", "errors", "skipped"}
    assert all(child.tag in ("failure", "skipped", "system-out") for case in found for child in case)
    return {one.attrib["name"]: one for one in found}


def test_an_unchanged_server_is_no_worse_within_a_wide_tolerance_and_not_decided_within_a_narrow_one(runs, say):
    status, lines, _ = say("again", "--tolerance", "1.5")
    assert status == 0
    assert lines[0].startswith("no worse     PyTorch, capacity over gRPC: ")
    assert lines[1].startswith("no worse     PyTorch, p99 at 200/s over gRPC: ")
    assert lines[-2] == "No worse than the baseline before: of 2 questions 2 no worse."
    assert {case.find("system-out") is not None for case in cases(runs / "again" / "gate.xml").values()} == {True}

    status, lines, _ = say("again", "--tolerance", "1.001", "--p99-tolerance", "1.5")
    assert status == 3
    assert lines[0].startswith("not decided  PyTorch, capacity over gRPC: ")
    assert re.search(r"ratio \d\.\d+ \(0\.\d+–1\.\d+\), 1.01 is tolerated", lines[0])
    found = cases(runs / "again" / "gate.xml")
    skipped = found["capacity over gRPC"].find("skipped")
    assert skipped is not None
    assert skipped.attrib["message"] in lines[0]
    assert found["p99 at 200/s over gRPC"].find("skipped") is None


def test_a_slower_server_is_worse_in_every_place_and_a_faster_one_is_not(runs, say):
    status, lines, _ = say("slower")
    assert status == 1
    assert [line.partition("  ")[0] for line in lines[:2]] == ["worse", "worse"]
    ratio = float(re.search(r"ratio ([\d.]+) ", lines[0])[1])  # type: ignore[index]
    assert ratio == pytest.approx(1 / 0.6, rel=0.1)
    failure = cases(runs / "slower" / "gate.xml")["capacity over gRPC"].find("failure")
    assert failure is not None
    assert failure.attrib["message"] in lines[0]
    text = (runs / "slower" / "gate.md").read_text()
    assert text.startswith("# Worse than the baseline before: of 2 questions 2 worse.")
    assert text.count("| **worse** |") == 2

    status, lines, _ = say("before", against="slower")
    assert status == 0
    assert all(line.startswith("no worse") for line in lines[:2])


def test_files_go_where_they_are_asked_for_and_the_step_summary_is_added_to(runs, say, tmp_path, monkeypatch):
    summary = tmp_path / "summary.md"
    summary.write_text("of an earlier step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    say("again", "--junit", str(tmp_path / "a.xml"), "--markdown", str(tmp_path / "a.md"))
    assert cases(tmp_path / "a.xml")
    assert summary.read_text() == "of an earlier step\n" + (tmp_path / "a.md").read_text()


def test_a_server_that_cannot_be_measured_any_more_is_not_passed_over(runs, say, tmp_path):
    """In the other run it was; here its trials are missing, or broken."""
    gone = shutil.copytree(runs / "again", runs / "gone", dirs_exist_ok=True)
    for trial in (gone / "trials").glob("*/trial.json"):
        if json.loads(trial.read_text())["scenario"] == "capacity":
            shutil.rmtree(trial.parent)
    shutil.rmtree(gone / "searches")
    status, lines, _ = say("gone", "--tolerance", "2")
    assert (status, lines[1]) == (3, "not decided  PyTorch, capacity over gRPC: not measured validly in both runs")
    assert lines[0].startswith("no worse     PyTorch, p99")

    measured(runs / "wrong", seed=4, spoil=lambda *_: {"wrong": 3})
    assert say("wrong", "--tolerance", "2")[0] == 3
    measured(runs / "failing", replace(SERVER, error_share=0.05), seed=5)
    status, lines, _ = say("failing", "--tolerance", "2")
    assert status == 1  # its capacity: no rate meets the SLO
    assert lines[0].startswith("worse")
    assert lines[1].startswith("not decided  PyTorch, p99 at 200/s over gRPC: ")
    assert lines[1].endswith("2 is tolerated; but this run fails more requests than the SLO allows")


def test_a_slo_that_is_not_the_baselines_is_told(runs, say):
    other = shutil.copytree(runs / "again", runs / "other", dirs_exist_ok=True)
    text = (other / "experiment.toml").read_text()
    assert "p99_ms = 50.0" in text
    (other / "experiment.toml").write_text(text.replace("p99_ms = 50.0", "p99_ms = 49.0"))
    _, lines, _ = say("other")
    warning = "the runs had different SLOs: both are judged by this run’s"
    assert f"warning: {warning}" in lines
    assert f"- {warning}" in (other / "gate.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "AGAINST is missing"),
        (["--against", "nowhere"], "nowhere: not a run's folder"),
        (["--against", "before", "--tolerance", "5%"], "TOLERANCE=5%: use a ratio from 1 to 100, such as 1.05"),
        (["--against", "before", "--tolerance", "0.95"], "TOLERANCE=0.95: use a ratio"),
        (["--against", "before", "--p99-tolerance", "nan"], "P99_TOLERANCE=nan: use a ratio"),
        (["--against", "again"], "are the same run"),
        (["--against", "foreign"], "no target was measured in both"),
        (["--against", "ladder"], "nothing to compare"),
        (["--against", "before", "--junit", "no-such-folder/a.xml"], "no-such-folder/a.xml: cannot be written"),
    ],
)
def test_what_cannot_be_answered_is_one_line_and_not_the_status_of_a_worse_run(
    runs, arguments, complaint, capsys, monkeypatch
):
    monkeypatch.chdir(runs)
    if not (runs / "ladder").exists():
        measured(runs / "ladder", repetitions=1, searches=0, rates={"grpc": [50.0]})
        shutil.copytree(runs / "ladder", runs / "foreign")
        for path in (runs / "foreign").rglob("*.*"):
            if path.suffix in (".json", ".toml"):
                path.write_text(path.read_text().replace("pytorch", "mine"))
        for path in [*(runs / "foreign").glob("*/*pytorch*")]:
            path.rename(path.with_name(path.name.replace("pytorch", "mine")))
    assert main(["gate", "again", *arguments]) == 2
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1


def test_a_fault_of_the_gates_own_does_not_look_like_a_worse_run(runs, monkeypatch, capsys):
    def broken(*_):
        raise ZeroDivisionError("a test that fails to compute")

    monkeypatch.setattr(gate, "judge", broken)
    assert main(["gate", str(runs / "again"), "--against", str(runs / "before")]) == 2
    assert "a test that fails to compute" in capsys.readouterr().err


def test_any_name_stands_in_the_files_as_it_is_without_becoming_markup(tmp_path):
    name = "<b>&|a\u202eb\x07\n]]>\"'"
    question = GateQuestion(
        target=name,
        protocol="rest",
        metric=Metric.P99,
        tolerance=1.05,
        outcome=GateOutcome.WORSE,
        offered_rate=300.0,
        baseline=10.0,
        this=20.0,
        starts=4,
        ratio=2.0,
        at_least=1.5,
        at_most=2.5,
    )
    run = RunInfo(folder="run & <run>", experiment=None, started_at=None)
    found = Gate(this=run, baseline=run, outcome=GateOutcome.WORSE, questions=(question,))
    gate.write(found, tmp_path / "gate.xml", tmp_path / "gate.md")
    case = cases(tmp_path / "gate.xml")["p99 at 300/s over REST"]
    assert case.attrib["classname"] == "<b>&|ab ]]>\"'"
    assert case.find("failure").attrib["message"] == (  # type: ignore[union-attr]
        "10.0 ms before, 20.0 ms now, ratio 2.00 (1.50–2.50), 1.05 is tolerated"
    )
    text = (tmp_path / "gate.md").read_text()
    assert "&lt;b&gt;&amp;\\|ab" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| **worse**")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 9


def test_the_example_workflow_is_one():
    """Its YAML parses; it measures as the text says, judges, and keeps the files even where the gate fails."""
    (text,) = re.findall(r"```yaml\n(.*?)```", WORKFLOW.read_text(), re.S)
    workflow = yaml.safe_load(text)
    assert workflow["name"] == "gate"
    assert set(workflow[True]) == {"pull_request", "push"}  # YAML 1.1 reads the key "on" as a boolean
    (job,) = workflow["jobs"].values()
    for step in job["steps"]:
        assert ("uses" in step) != ("run" in step)
        assert not step.get("uses") or re.fullmatch(r"[\w-]+/[\w/-]+@v\d+", step["uses"])
    commands = [step.get("run", "") for step in job["steps"]]
    (measures,) = [place for place, line in enumerate(commands) if "make compare EXPERIMENT=thorough" in line]
    (judges,) = [place for place, line in enumerate(commands) if "make gate AGAINST=baseline" in line]
    assert measures < judges
    uploads = [step for step in job["steps"][judges:] if step.get("uses", "").startswith("actions/upload-artifact")]
    assert uploads[0]["if"] == "always()"
