"""Everything that a report says of one run, gathered once; the page, report.md and report.json each show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.analysis.saved_run import SavedRun
from loadtest.report import checklist, configurations, outlook, samples, scenarios, sizing, story
from loadtest.report.charts.decomposition import decomposition
from loadtest.report.charts.figure import Chart
from loadtest.report.charts.latency import latency_by_rate
from loadtest.report.charts.percentiles import percentile_curves
from loadtest.report.charts.ratios import ratios
from loadtest.report.charts.timeline import timelines
from loadtest.report.checklist import Point
from loadtest.report.configurations import ConfigLine, Knob
from loadtest.report.samples import Disagreement, Sample
from loadtest.report.scenarios import Finding
from loadtest.report.sizing import Plan
from loadtest.report.story import Badge, Story

FORMAT = 1


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
    summary: dict[str, Any]
    story: Story
    badges: list[Badge]
    conditions: list[tuple[str, str]]
    would_change: list[str]
    findings: list[Finding]
    facts: list[str]
    plan: Plan
    checklist: list[Point]
    knobs: list[Knob]
    configurations: list[Configuration]
    samples: list[Sample]
    disagreements: list[Disagreement]
    charts: Charts

    @property
    def class_names(self) -> list[str]:
        """The data set's class names; empty where the bundle has none."""
        return list(((self.run.manifest or {}).get("dataset") or {}).get("class_names") or [])

    @property
    def repeat(self) -> str:
        """The command that repeats the run."""
        return f"make compare EXPERIMENT=results/{self.run.folder.name}/experiment.toml"

    @property
    def rebuild(self) -> str:
        """The command that builds the report again."""
        return f"make report RUN=results/{self.run.folder.name}"


def gather(run: SavedRun, figures: dict[str, Any]) -> Content:
    """Gather a run's report; ``figures`` is its summary."""
    protocols = list(dict.fromkeys(item["protocol"] for item in figures["measurements"]))
    plan = sizing.plan(figures)
    knobs = configurations.knobs(figures["experiment"], figures["targets"])
    return Content(
        run=run,
        summary=figures,
        story=story.tell(figures),
        badges=story.badges(figures),
        conditions=story.conditions(figures, run.manifest),
        would_change=outlook.would_change(figures),
        findings=scenarios.findings(figures),
        facts=[fact for target in figures["targets"] if (fact := story.FACTS.get(target["engine"]))],
        plan=plan,
        checklist=checklist.points(figures, plan),
        knobs=knobs,
        configurations=_configurations(run, figures["targets"], knobs),
        samples=samples.load(run),
        disagreements=samples.disagreements(figures["parity"]),
        charts=Charts(
            ratios=ratios(figures),
            latency=[chart for name in protocols if (chart := latency_by_rate(figures, name))],
            percentiles=[chart for name in protocols if (chart := percentile_curves(run, figures, name))],
            decomposition=[chart for name in protocols if (chart := decomposition(figures, name))],
            timelines=timelines(run, figures),
        ),
    )


def _configurations(run: SavedRun, targets: Sequence[dict[str, Any]], knobs: Sequence[Knob]) -> list[Configuration]:
    found = []
    for path, text in run.servers():
        if path.endswith("/target.json"):  # how clients reach the server, not what it was given
            continue
        stack = path.split("/")[1].rpartition("-")[0]
        target = next((target for target in targets if target["name"] == stack), {"name": stack})
        found.append(Configuration(target["name"], path, configurations.marked(text, target, knobs)))
    return found


def values(content: Content) -> dict[str, Any]:
    """report.json: what the page says, as plain values. Images and drawing instructions stay in the page."""
    return {
        "format": FORMAT,
        "run": content.run.folder.name,
        "verdict": {
            "headline": content.story.headline,
            "lede": content.story.lede,
            "evidence": [{"question": topic, "answer": text} for topic, text in content.story.sentences],
        },
        "would_change": content.would_change,
        "badges": [asdict(badge) for badge in content.badges],
        "conditions": [{"name": name, "value": value} for name, value in content.conditions],
        "scenarios": [asdict(item) for item in content.findings],
        "cost_and_sizing": asdict(content.plan),
        "checklist": [asdict(point) for point in content.checklist],
        "settings": [asdict(knob) for knob in content.knobs],
        "samples": [
            {key: value for key, value in asdict(sample).items() if key != "image"} for sample in content.samples
        ],
        "disagreements": [
            {key: value for key, value in asdict(item).items() if value != ""} for item in content.disagreements
        ],
        "charts": [_series(chart) for chart in content.charts.all()],
        "repeat": content.repeat,
        "summary": content.summary,
    }


def _series(chart: Chart) -> dict[str, Any]:
    named = [trace for trace in chart.data if trace.get("hoverinfo") != "skip"]
    return {
        "id": chart.id,
        "title": chart.title,
        "says": chart.alternative,
        "series": [{"name": trace.get("name"), "x": trace["x"], "y": trace["y"]} for trace in named],
    }
