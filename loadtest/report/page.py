"""The page: what the report says as one self-contained HTML file, through autoescaping templates."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from loadtest.analysis.records import ExportParity
from loadtest.report import samples, templating, wording
from loadtest.report.charts.decomposition import load, parts, remainder, sources, unknown
from loadtest.report.charts.figure import Chart
from loadtest.report.content import Content
from loadtest.report.origins import Origins

HERE = Path(__file__).parent
PLOTLY = HERE / "vendor" / "plotly-basic.min.js"
EXPORTS = {
    "torchscript": "TorchScript",
    "torch_export": "torch.export program",
    "aot_inductor": "AOTInductor package",
    "onnx": "ONNX",
    "savedmodel": "SavedModel",
    "savedmodel_encoded": "SavedModel, from files",
}
REFERENCE = "PyTorch (eager)"


def render(content: Content) -> str:
    """A run's page."""
    figures = content.summary
    names = [target.name for target in figures.targets]
    return document(
        "report.html.j2",
        content.charts.all(),
        scripts=("charts.js", "tables.js", "sizing.js", "origins.js"),
        content=content,
        origins=Origins(content.run.folder.name, figures),
        run=content.run,
        summary=figures,
        targets={target.name: target for target in figures.targets},
        loop_index=names.index,
        question=wording.listed([wording.shorten(wording.target_name(name), 30) for name in names], "or")
        if names
        else "",
        both="both" if len(names) <= 2 else "all",
        form_name=form_name,
        evidence=samples.evidence,
        parts=parts(figures),
        sources=sources,
        remainder=remainder,
        load=load,
        unknown=unknown,
        class_name=lambda index: samples.class_name(content.class_names, index),
        slo=figures.experiment.slo,
    )


def form_name(name: str, form: ExportParity | None = None) -> str:
    """A form of the model, as people read it; None: one that could not be asked."""
    return REFERENCE if form and form.is_reference else EXPORTS.get(name, name)


def document(template: str, charts: Sequence[Chart], scripts: Sequence[str], **values: Any) -> str:
    """A whole page from a template, with the charts' data, the scripts that it needs, and a content security policy
    that lets nothing else run or load."""
    code = [_inline_script(PLOTLY.read_text(encoding="utf-8"))] if charts else []
    code += [_inline_script((templating.TEMPLATES / name).read_text(encoding="utf-8")) for name in scripts]
    return (
        _environment()
        .get_template(template)
        .render(
            figures=[
                {"id": chart.id, "data": chart.data, "layout": chart.layout, "paper_height": chart.paper_height}
                for chart in charts
            ],
            scripts=code,
            policy=_policy(code),
            style=Markup((templating.TEMPLATES / "style.css").read_text(encoding="utf-8")),
            **values,
        )
    )


def _policy(code: Sequence[str]) -> Markup:
    """Nothing from any network, and no script but ours, by hash. Plotly sets styles, so inline styles stay allowed."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in code)
    return Markup(
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def _inline_script(code: str) -> Markup:
    """Code of ours, fit to stand inside a script element."""
    return Markup(code.replace("\r\n", "\n").replace("</script", "<\\/script").replace("<!--", "<\\!--"))


@cache
def _environment() -> Environment:
    made = templating.environment(autoescape=True)
    made.globals.update(percentiles=wording.PERCENTILES)
    return made
