"""report.html: one self-contained page that says what a run found, how sure that is, and on what evidence."""

from __future__ import annotations

import json
from pathlib import Path

from loadtest.analysis import saved_run, summary
from loadtest.report import page
from models.problem import Problem

__all__ = ["write"]


def write(run_folder: Path) -> Path:
    """Write a run's report.html, whole or not at all, from its saved data and summary.json (built where missing).

    Returns the page's path. Raises `Problem` for a folder that is no run or holds a damaged file.
    """
    saved = run_folder / "summary.json"
    try:
        figures = json.loads(saved.read_text()) if saved.exists() else summary.write(run_folder)
    except ValueError as error:
        raise Problem(f"{saved}: not valid JSON ({error}); delete it and build the report again") from error
    html = page.render(saved_run.load(run_folder), figures)
    partial = run_folder / ".report.html.partial"
    partial.write_text(html, encoding="utf-8")
    return partial.replace(run_folder / "report.html")
