"""Two runs side by side, as a page, Markdown and JSON: what changed from the baseline to this run, and how surely."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from loadtest.analysis import saved_run, two_runs
from loadtest.analysis.records import Capacity, Difference, Subject, Summary
from loadtest.analysis.saved_run import SavedRun
from loadtest.analysis.two_runs import BASELINE, THIS
from loadtest.report import configurations, first_screen, markdown, names, page, sizing, story, warning_words, wording
from loadtest.report.charts.figure import Chart
from loadtest.report.charts.latency import latency_by_rate
from loadtest.report.charts.ratios import ratios
from loadtest.report.conditions import accuracies, conditions
from loadtest.report.first_screen import FirstScreen
from loadtest.report.origins import Origins
from models import whole_file
from models.problem import Problem

CALLED = {BASELINE: "the baseline", THIS: "this run"}


@dataclass(frozen=True)
class Capacities:
    """The highest rate within the SLO over a protocol, requests/s, in both runs; ``says``: what may be said of them."""

    protocol: str
    baseline: Capacity | None
    this: Capacity | None
    says: str


@dataclass(frozen=True)
class Comparison:
    """One target in both runs. ``figures``: a summary in which the runs stand as targets; ``evidence``: question by
    question."""

    target: str
    name: str
    figures: Summary
    first_screen: FirstScreen
    evidence: list[story.Evidence]
    capacities: list[Capacities]
    ratios: Chart | None
    latency: list[Chart]


@dataclass(frozen=True)
class File:
    """A configuration file of both runs, line by line; only files that differ are kept."""

    name: str
    lines: list[configurations.Line]


def write(run_folder: Path, baseline_folder: Path) -> tuple[Path, list[str]]:
    """Write report-against-BASELINE.html, .md and .json into ``run_folder``, each whole or not at all.

    Returns the page's path and a headline for each target. Raises `Problem` for a folder that is no run, and for runs
    without a target in common.
    """
    if run_folder.resolve() == baseline_folder.resolve():
        raise Problem(f"{run_folder}: RUN and AGAINST are the same run; name another to compare it with")
    run, baseline = saved_run.load(run_folder), saved_run.load(baseline_folder)
    compared = two_runs.compare(run, baseline)
    comparisons = [_compare(number, *item) for number, item in enumerate(compared.comparisons.items())]
    warnings = [warning_words.of_two_runs(item, baseline_folder.name) for item in compared.warnings]
    first = next(iter(compared.comparisons.values()))
    stem = f"report-against-{baseline_folder.name}"
    charts = [chart for item in comparisons for chart in (item.ratios, *item.latency) if chart]
    shown = {
        "this_run": compared.this,
        "baseline_run": compared.baseline,
        "comparisons": comparisons,
        "differences": [(what(item), item.baseline, item.this) for item in compared.differences],
        "warnings": warnings,
        "conditions": conditions(first, accuracies(run, first)),
        "files": _files(run, baseline),
        "origins": {
            (item.target, label): Origins(folder.name, item.figures, f"from-{number}-{label.split()[0]}")
            for number, item in enumerate(comparisons)
            for label, folder in ((BASELINE, baseline_folder), (THIS, run_folder))
        },
        "command": f"make report RUN=results/{run_folder.name} AGAINST=results/{baseline_folder.name}",
    }
    headlines = [f"{item.name}: {item.first_screen.sentence}" for item in comparisons]
    screens = {item.target: first_screen.values(item.first_screen) for item in comparisons}
    values = {**msgspec.to_builtins(compared), "headlines": headlines, "first_screens": screens}
    whole_file.write_json(run_folder / f"{stem}.json", values)
    whole_file.write_text(run_folder / f"{stem}.md", markdown.document("against.md.j2", **shown))
    html = page.document("against.html.j2", charts, scripts=("charts.js", "tables.js", "origins.js"), **shown)
    return whole_file.write_text(run_folder / f"{stem}.html", html), headlines


def what(item: Difference) -> str:
    """What a difference between two runs is of."""
    match item.subject:
        case Subject.TARGET:
            return f"{wording.target_name(item.of)}: {item.key}"
        case Subject.MODEL:
            return f"model: sha256 of {f'{item.of} ' if item.of else ''}{item.key}"
    return f"{item.subject.value}.{item.key}"


def _compare(number: int, target: str, figures: Summary) -> Comparison:
    protocols = list(dict.fromkeys(item.protocol for item in figures.measurements))
    called = names.of_two_runs(figures.targets, CALLED)
    return Comparison(
        target=target,
        name=_name(target, figures),
        figures=figures,
        first_screen=first_screen.build(figures, called),
        evidence=story.tell(figures, called),
        capacities=[_capacity(figures, protocol) for protocol in protocols],
        ratios=ratios(figures, f"ratios-{number}"),
        latency=[chart for name in protocols if (chart := latency_by_rate(figures, name, f"latency-{number}"))],
    )


def _name(target: str, figures: Summary) -> str:
    """A target with the product that it was in both runs; without one where it was not the same."""
    own, products = wording.shorten(wording.target_name(target), 40), {names.product(one) for one in figures.targets}
    return f"{own} ({products.pop()})" if len(products) == 1 else own


def _capacity(figures: Summary, protocol: str) -> Capacities:
    before, after = (sizing.capacity(figures, label, protocol) for label in (BASELINE, THIS))
    return Capacities(protocol, before, after, compare_capacity(before, after))


def compare_capacity(before: Capacity | None, after: Capacity | None) -> str:
    """Higher or lower only where the intervals of the two do not meet."""
    if not before or not after or before.max_rate is None or after.max_rate is None:
        return "cannot be compared: no tested rate met the SLO in both"
    for name, one, other in (("higher", after, before), ("lower", before, after)):
        low, high = one.ci95[0], other.ci95[1]
        if low is not None and high is not None and low >= high:
            return f"{name}: {wording.number(after.max_rate / before.max_rate)} times the baseline’s"
    return "no difference shown: the intervals meet"


def _files(run: SavedRun, baseline: SavedRun) -> list[File]:
    ours, theirs = (_by_name(one) for one in (run, baseline))
    return [
        File(name, configurations.side_by_side(theirs.get(name, ""), ours.get(name, "")))
        for name in dict.fromkeys([*theirs, *ours])
        if theirs.get(name) != ours.get(name)
    ]


def _by_name(run: SavedRun) -> dict[str, str]:
    """Rendered files by stack and name: the number of the server's start says nothing."""
    found = {}
    for path, text in run.servers():
        _, server, *rest = path.split("/")
        found["/".join([server.rpartition("-")[0], *rest])] = text
    return found
