"""The verb schema: docs/summary.schema.json, the JSON Schema of summary.json, from the records that it serialises."""

from __future__ import annotations

import argparse
from pathlib import Path

from loadtest.analysis import summary
from loadtest.experiment.verb import Verb
from models import whole_file

FILE = Path(__file__).resolve().parents[2] / "docs" / "summary.schema.json"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=FILE, metavar="FILE", help="where to (docs/summary.schema.json)")


def _write(options: argparse.Namespace) -> int:
    whole_file.write_text(options.out, summary.schema())
    return 0


VERB = Verb("schema", "write the JSON Schema of summary.json anew", _add_arguments, _write, __doc__)
