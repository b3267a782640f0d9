"""The report of a run, from one content: report.html for people, report.md for pull requests, report.json for tools."""

from __future__ import annotations

from pathlib import Path

from loadtest.analysis import saved_run, summary
from loadtest.report import content, markdown, page
from models import whole_file

__all__ = ["write"]


def write(run_folder: Path) -> Path:
    """Write a run's report.html, report.md and report.json, each whole or not at all, from its saved data and
    summary.json (built where missing).

    Returns the page's path. Raises `Problem` for a folder that is no run or holds a damaged file.
    """
    figures = summary.read(run_folder) if (run_folder / summary.FILE).exists() else summary.write(run_folder)
    gathered = content.gather(saved_run.load(run_folder), figures)
    whole_file.write_json(run_folder / "report.json", content.values(gathered))
    whole_file.write_text(run_folder / "report.md", markdown.render(gathered))
    return whole_file.write_text(run_folder / "report.html", page.render(gathered))
