"""The verb report, and the end of every verb that measured: summary and report from a run's saved data."""

from __future__ import annotations

import argparse
from pathlib import Path

from loadtest import report
from loadtest.analysis import summary
from loadtest.experiment import run_folder
from loadtest.experiment.verb import Verb
from loadtest.report import against, terminal


def rebuild(folder: Path) -> Path:
    """Write a run's summary.json and report, and show the figures on the terminal; returns the page's path.

    Raises `Problem` for a folder that is no run or holds a damaged file.
    """
    figures = summary.write(folder)
    page = report.write(folder)
    terminal.show(figures, page)
    return page


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", default="results/latest", help="the run's folder")
    parser.add_argument("--against", metavar="RUN", help="compare the run with this one, the baseline, instead")


def _report(options: argparse.Namespace) -> int:
    folder = run_folder.resolve(options.run)
    if options.against:
        page, headlines = against.write(folder, run_folder.resolve(options.against))
        terminal.show_comparison(headlines, page)
    else:
        rebuild(folder)
    return 0


VERB = Verb("report", "build summary.json and report.html again from a run's saved data", _add_arguments, _report)
