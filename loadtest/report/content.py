"""Everything that a report says of one run, gathered once; the page, report.md and report.json each show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from loadtest.analysis.records import Summary, TargetInfo
from loadtest.analysis.saved_run import SavedRun
from loadtest.report import (
    checklist,
    conditions,
    configurations,
    device_words,
    first_screen,
    names,
    outlook,
    samples,
    scenarios,
    sizing,
    story,
)
from loadtest.report.badges import Badge, badges
from loadtest.report.charts.decomposition import decomposition
from loadtest.report.charts.figure import Chart, Drawing
from loadtest.report.charts.latency import latency_by_rate
from loadtest.report.charts.percentiles import percentile_curves
from loadtest.report.charts.ratios import ratios
from loadtest.report.charts.timeline import timelines
from loadtest.report.checklist import Point
from loadtest.report.configurations import ConfigLine, Row
from loadtest.report.first_screen import FirstScreen
from loadtest.report.samples import Disagreement, Sample
from loadtest.report.scenarios import Finding
from loadtest.report.sizing import Plan
from loadtest.report.story import Evidence
from serving.engines import registry

FORMAT = 3  # 2 held a headline and a lede, 1 a summary of format 1


@dataclass(frozen=True)
class Configuration:
    """One rendered file of a target's server: ``path`` in the run's folder and its lines."""

    target: str
    path: str
    lines: list[ConfigLine]


@dataclass(frozen=True)
class Charts:
    """The charts of a run, by section; an empty list or None where the run has no data for one."""

    ratios: Chart | None
    latency: list[Chart]
    percentiles: list[Chart]
    decomposition: list[Chart]
    timelines: list[Chart]

    def all(self) -> list[Chart]:
        """Every chart, in the page's order."""
        first = [self.ratios] if self.ratios else []
        return [*first, *self.latency, *self.percentiles, *self.decomposition, *self.timelines]


@dataclass(frozen=True)
class Content:
    """The whole report. ``summary``: summary.json; everything else is derived from it and from the saved run."""

    run: SavedRun
    summary: Summary
    first_screen: FirstScreen
    evidence: list[Evidence]
    badges: list[Badge]
    conditions: list[tuple[str, str]]
    environment: list[tuple[str, str]]
    would_change: list[str]
    findings: list[Finding]
    facts: list[str]
    plan: Plan
    checklist: list[Point]
    devices: list[device_words.Row]
    knobs: list[Row]
    in_force: list[Row]
    configurations: list[Configuration]
    samples: list[Sample]
    disagreements: list[Disagreement]
    charts: Charts

    @property
    def class_names(self) -> tuple[str, ...]:
        """The data set's class names; empty where the bundle has none."""
        return self.run.manifest.class_names if self.run.manifest else ()

    @property
    def repeat(self) -> str:
        """The command that repeats the run."""
        return f"make compare EXPERIMENT=results/{self.run.folder.name}/experiment.toml"

    @property
    def rebuild(self) -> str:
        """The command that builds the report again."""
        return f"make report RUN=results/{self.run.folder.name}"


def gather(run: SavedRun, figures: Summary) -> Content:
    """Gather a run's report; ``figures`` is its summary."""
    protocols = list(dict.fromkeys(item.protocol for item in figures.measurements))
    called = names.of(figures.targets)
    plan = sizing.plan(figures)
    knobs = configurations.rows(figures.experiment.profile, [target.knobs for target in figures.targets])
    return Content(
        run=run,
        summary=figures,
        first_screen=first_screen.build(figures),
        evidence=story.tell(figures, called),
        badges=badges(figures),
        conditions=conditions.conditions(figures, conditions.accuracies(run, figures)),
        environment=conditions.environment(figures.environment),
        would_change=outlook.would_change(figures, called),
        findings=scenarios.findings(figures),
        facts=_warnings(figures.targets),
        plan=plan,
        checklist=checklist.points(figures, plan),
        devices=device_words.rows(figures),
        knobs=knobs,
        in_force=configurations.in_force([target.switches for target in figures.targets]),
        configurations=_configurations(run, figures.targets, knobs),
        samples=samples.load(run),
        disagreements=samples.disagreements(figures.parity),
        charts=Charts(
            ratios=ratios(figures),
            latency=[chart for name in protocols if (chart := latency_by_rate(figures, name))],
            percentiles=[chart for name in protocols if (chart := percentile_curves(run, figures, name))],
            decomposition=[chart for name in protocols if (chart := decomposition(figures, name))],
            timelines=timelines(run, figures),
        ),
    )


def _warnings(targets: Sequence[TargetInfo]) -> list[str]:
    """What a reader must know of the targets' engines, each once."""
    engines = [registry.find(target.engine) for target in targets if target.engine]
    return list(dict.fromkeys(engine.warning for engine in engines if engine and engine.warning))


def _configurations(run: SavedRun, targets: Sequence[TargetInfo], knobs: Sequence[Row]) -> list[Configuration]:
    given = {target.name: target.knobs for target in targets}
    found = []
    for path, text in run.servers():
        if path.endswith("/target.json"):  # how clients reach the server, not what it was given
            continue
        name = path.split("/")[1].rpartition("-")[0]
        found.append(Configuration(name, path, configurations.marked(text, given.get(name, ()), knobs)))
    return found


def values(content: Content) -> dict[str, Any]:
    """report.json: what the page says, as plain values. Images and drawing instructions stay in the page."""
    plain: dict[str, Any] = msgspec.to_builtins(
        {
            "format": FORMAT,
            "run": content.run.folder.name,
            "verdict": {
                **first_screen.values(content.first_screen),
                "evidence": content.evidence,
            },
            "would_change": content.would_change,
            "badges": content.badges,
            "conditions": [{"name": name, "value": value} for name, value in content.conditions],
            "scenarios": content.findings,
            "cost_and_sizing": content.plan,
            "checklist": content.checklist,
            "settings": content.knobs,
            "in_force": content.in_force,
            "samples": [replace(sample, image="") for sample in content.samples],
            "disagreements": content.disagreements,
            "charts": [_series(chart) for chart in content.charts.all()],
            "repeat": content.repeat,
            "summary": content.summary,
        }
    )
    for item in plain["samples"]:
        del item["image"]
    for item in plain["disagreements"]:
        if not item["model"]:
            del item["model"]
    return plain


def _series(chart: Chart) -> Drawing:
    named = [trace for trace in chart.data if trace.get("hoverinfo") != "skip"]
    return {
        "id": chart.id,
        "title": chart.title,
        "says": chart.alternative,
        "series": [
            # A bar that is cut is drawn shorter than it is.
            {"name": trace.get("name"), "x": trace.get("customdata", trace["x"]), "y": trace["y"]}
            for trace in named
        ],
    }
