"""The report of a run, from one content: report.html for people, report.md for pull requests, report.json for tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loadtest.analysis import saved_run, summary
from loadtest.report import content, markdown, page
from models import whole_file
from models.problem import Problem

__all__ = ["write"]


def write(run_folder: Path) -> Path:
    """Write a run's report.html, report.md and report.json, each whole or not at all, from its saved data and
    summary.json (built where missing).

    Returns the page's path. Raises `Problem` for a folder that is no run or holds a damaged file.
    """
    gathered = content.gather(saved_run.load(run_folder), _figures(run_folder))
    whole_file.write_json(run_folder / "report.json", content.values(gathered))
    whole_file.write_text(run_folder / "report.md", markdown.render(gathered))
    return whole_file.write_text(run_folder / "report.html", page.render(gathered))


def _figures(run_folder: Path) -> dict[str, Any]:
    saved = run_folder / "summary.json"
    try:
        figures: dict[str, Any] = json.loads(saved.read_text()) if saved.exists() else summary.write(run_folder)
    except ValueError as error:
        raise Problem(f"{saved}: not valid JSON ({error}); delete it and build the report again") from error
    return figures
