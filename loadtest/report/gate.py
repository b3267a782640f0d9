"""The verb gate: is a run worse than its baseline? An exit status, a line for each question, and files for CI."""

from __future__ import annotations

import argparse
import math
import os
import traceback
from pathlib import Path

from loadtest.analysis import regression, saved_run
from loadtest.analysis.records import Gate, GateOutcome, GateQuestion
from loadtest.analysis.regression import Tolerances
from loadtest.experiment import run_folder
from loadtest.experiment.verb import Verb
from loadtest.report import gate_words, junit, markdown, warning_words, wording
from loadtest.report.junit import Case, Result
from models import problem, whole_file
from models.problem import Problem

XML, MARKDOWN = "gate.xml", "gate.md"
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"  # GitHub Actions: the file whose Markdown it shows on the page of a run
STATUS = {GateOutcome.NO_WORSE: 0, GateOutcome.WORSE: 1, GateOutcome.NOT_DECIDED: 3}
FAILED = 2  # there is no answer; 1, as elsewhere, would say "worse"
RESULTS = {
    GateOutcome.WORSE: Result.FAILED,
    GateOutcome.NO_WORSE: Result.PASSED,
    GateOutcome.NOT_DECIDED: Result.SKIPPED,
}


def judge(folder: Path, against: Path, tolerances: Tolerances) -> Gate:
    """A run's folder judged against its baseline's. Raises `Problem` for a folder that is no run, the same run twice,
    and runs that have nothing in common."""
    if folder.resolve() == against.resolve():
        raise Problem(f"{folder}: RUN and AGAINST are the same run; name another to compare it with")
    return regression.judge(saved_run.load(folder), saved_run.load(against), tolerances)


def write(found: Gate, xml: Path, text: Path) -> None:
    """Write JUnit XML and Markdown, each whole or not at all, and append the latter to the step summary of GitHub
    Actions where there is one. Raises `Problem` where a file cannot be written."""
    shown = render(found)
    summary = os.environ.get(STEP_SUMMARY, "")
    path = xml
    try:
        whole_file.write_bytes(path, cases(found))
        path = text
        whole_file.write_text(path, shown)
        if summary:
            path = Path(summary)
            with path.open("a", encoding="utf-8") as file:
                file.write(shown)
    except OSError as error:
        raise Problem(f"{path}: cannot be written ({error.strerror}); name another file, or make its folder") from error


def cases(found: Gate) -> bytes:
    """JUnit XML: a case for each question; what is not decided is skipped."""
    return junit.document(
        f"{found.this.folder} against {found.baseline.folder}",
        [_case(one) for one in found.questions],
        {"conclusion": gate_words.conclusion(found), "ratio": gate_words.RATIO},
    )


def _case(question: GateQuestion) -> Case:
    return Case(
        name=gate_words.what(question),
        group=gate_words.target(question),
        result=RESULTS[question.outcome],
        says=gate_words.answer(question),
    )


def render(found: Gate) -> str:
    """Markdown: the conclusion, a row for each question, and what a reader must know."""
    return markdown.document(
        "gate.md.j2", found=found, words=gate_words, warnings=warnings(found), meaning=gate_words.RATIO
    )


def warnings(found: Gate) -> list[str]:
    """What a reader of the two runs must know."""
    return [warning_words.of_two_runs(item, found.baseline.folder) for item in found.warnings]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", default="results/latest", help="the run's folder")
    parser.add_argument("--against", metavar="RUN", default="", help="the baseline: the folder of an earlier run")
    parser.add_argument(
        "--tolerance", metavar="RATIO", default=str(regression.TOLERANCE), help="how many times worse is tolerated"
    )
    parser.add_argument("--p99-tolerance", metavar="RATIO", help="the same of p99 latencies, which vary more")
    parser.add_argument("--junit", metavar="FILE", type=Path, help=f"JUnit XML; default: {XML} in the run's folder")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help=f"default: {MARKDOWN} in the run's folder")


def _gate(options: argparse.Namespace) -> int:
    """The exit status; an error of the gate's own is no answer either, and must not look like one."""
    try:
        return problem.run(lambda: _answer(options), FAILED)
    except Exception:
        traceback.print_exc()
        return FAILED


def _answer(options: argparse.Namespace) -> int:
    if not options.against:
        raise Problem("AGAINST is missing: name the baseline, an earlier run's folder: make gate AGAINST=results/…")
    tolerances = Tolerances(
        capacity=_tolerance("TOLERANCE", options.tolerance),
        p99=_tolerance("P99_TOLERANCE", options.p99_tolerance or options.tolerance),
    )
    folder, against = run_folder.resolve(options.run), run_folder.resolve(options.against)
    found = judge(folder, against, tolerances)
    xml, text = options.junit or folder / XML, options.markdown or folder / MARKDOWN
    write(found, xml, text)
    for question in found.questions:
        print(gate_words.line(question))
    for warning in warnings(found):
        print(f"warning: {warning}")
    print(gate_words.conclusion(found))
    print(f"Files: {wording.listed([os.path.relpath(path) for path in (xml, text)])}")
    return STATUS[found.outcome]


def _tolerance(name: str, given: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not 1 <= value <= 100:
        raise Problem(f"{name}={given}: use a ratio from 1 to 100, such as 1.05 (a twentieth worse)")
    return value


VERB = Verb(
    "gate",
    "whether a run is worse than an earlier one, for CI: exit status 0 no worse, 1 worse, 3 not decided",
    _add_arguments,
    _gate,
    "Whether a run is worse than an earlier one. Exit status: 0 no worse, 1 worse, 3 not decided, 2 no answer.",
)
