"""Builds the page: what the summary says, in words, tables and charts, through autoescaping templates."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from loadtest.analysis import wording
from loadtest.analysis.saved_run import SavedRun
from loadtest.analysis.summary import DEFAULT_SLO
from loadtest.report import charts, story

TEMPLATES = Path(__file__).parent / "templates"
LABELS = {
    "cpu_model": "CPU",
    "cpu_count": "CPUs",
    "os": "operating system",
    "python": "Python",
    "prometheus": "Prometheus",
    "git_commit": "commit",
    "server_cores": "server on CPU",
    "generator_cores": "generator on CPU",
    "load_average_at_start": "load average at the start (1, 5, 15 min)",
    "generator_priority": "generator runs with",
    "wake_up_lateness_ms": "lateness of a wake-up before any load (ms)",
}
EXPORTS = {"pytorch": "PyTorch (eager)", "torchscript": "TorchScript", "onnx": "ONNX", "savedmodel": "SavedModel"}


def render(run: SavedRun, figures: dict[str, Any]) -> str:
    """The whole page as HTML. ``figures`` is the run's summary."""
    protocols = list(dict.fromkeys(item["protocol"] for item in figures["measurements"]))
    by_rate = [charts.latency_by_rate(figures, protocol) for protocol in protocols]
    by_percentile = [charts.percentile_curves(run, figures, protocol) for protocol in protocols]
    ratios = charts.ratios(figures)
    drawn = [chart for chart in (ratios, *by_rate, *by_percentile) if chart]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            summary=figures,
            targets={target["name"]: target for target in figures["targets"]},
            loop_index=[target["name"] for target in figures["targets"]].index,
            exports=EXPORTS,
            story=story.tell(figures),
            conditions=story.conditions(figures, run.manifest),
            badges=story.badges(figures),
            facts=[fact for target in figures["targets"] if (fact := story.FACTS.get(target["engine"]))],
            slo={**DEFAULT_SLO, **figures["experiment"].get("slo", {})},
            ratios=ratios,
            by_rate=[chart for chart in by_rate if chart],
            by_percentile=[chart for chart in by_percentile if chart],
            figures=[{"id": chart.id, "data": chart.data, "layout": chart.layout} for chart in drawn],
            plotly=_inline_script(get_plotlyjs()),
            script=_inline_script((TEMPLATES / "charts.js").read_text(encoding="utf-8")),
            style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        )
    )


def _inline_script(code: str) -> Markup:
    """Code of ours, fit to stand inside a script element."""
    return Markup(code.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=wording.number,
        count=wording.count,
        ms=wording.milliseconds,
        rate=wording.rate,
        share=wording.share,
        interval=wording.interval,
        protocol=wording.protocol,
        stack=wording.stack,
        engine=wording.engine,
        target=wording.target,
        shorten=wording.shorten,
        gibibytes=wording.gibibytes,
        share_of=_share_of,
        setting=wording.setting,
        tight=_tight,
        label=lambda key: LABELS.get(key, str(key).replace("_", " ")),
        when=_when,
        scientific=wording.scientific,
    )
    environment.globals.update(percentiles=wording.PERCENTILES)
    return environment


def _when(moment: float | str | None) -> str:
    if isinstance(moment, int | float):
        return datetime.fromtimestamp(moment, UTC).strftime("%d %B %Y, %H:%M UTC")
    return moment or wording.NOTHING


def _tight(text: str) -> str:
    """Text in which a figure is never parted from its unit at the end of a line."""
    return re.sub(r"(?<=\d) (?=(?:ms|s|%|GiB|×|10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹])(?:\W|$))|(?<=×) (?=10)", "\u00a0", text)


def _share_of(value: float | None) -> str:
    """A share near one, in which the last digits matter: 89.34 %."""
    return wording.NOTHING if value is None else f"{wording.number(value * 100, 4)} %"
