"""Writes what is rendered from the schema and the alerts, and says what is out of step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from monitoring import rules, scrape, table
from monitoring.schema import Schema

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Rendered by `python -m monitoring render` from monitoring/{source}; changes here are lost.\n"


def files(schema: Schema) -> dict[Path, str]:
    """Every rendered file, by its path below the repository's root."""
    folder = Path("monitoring/prometheus")
    documentation = Path("docs/monitoring.md")
    return {
        folder / "rules/recording.yaml": _yaml("schema.toml", rules.recording_rules(schema)),
        folder / "rules/alerts.yaml": _yaml("alerts.toml", rules.alerting_rules(rules.alerts(schema))),
        **{
            folder / f"{runtime}.yaml": _yaml("scrape.py", scrape.configuration(runtime)) for runtime in scrape.RUNTIMES
        },
        documentation: table.put_in((ROOT / documentation).read_text(), schema),
    }


def out_of_step(schema: Schema, root: Path = ROOT) -> list[Path]:
    """The rendered files that are not as they would be rendered now."""
    return [
        path for path, text in files(schema).items() if not (root / path).is_file() or (root / path).read_text() != text
    ]


def write(schema: Schema, root: Path = ROOT) -> list[Path]:
    """Write the files that are out of step and return their paths."""
    changed = out_of_step(schema, root)
    rendered = files(schema)
    for path in changed:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(rendered[path])
    return changed


def _yaml(source: str, content: Mapping[str, Any]) -> str:
    return HEADER.format(source=source) + yaml.safe_dump(content, sort_keys=False, width=120, allow_unicode=True)
