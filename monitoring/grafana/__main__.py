"""``python -m monitoring.grafana``: write the dashboards that Grafana reads, from the code beside this file."""

from __future__ import annotations

import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.grafana import comparison, gpu, load_test, tensorflow_serving, torchserve, triton
from monitoring.grafana.queries import DASHBOARDS


def dashboards() -> list[Dashboard]:
    """All dashboards, the one to start from first."""
    return [one.build() for one in (comparison, torchserve, tensorflow_serving, triton, load_test, gpu)]


def generated() -> dict[str, str]:
    """File name to JSON of every dashboard."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return {f"{one.uid}.json": encoder.encode(one) + "\n" for one in dashboards()}


def write(folder: Path) -> None:
    """Write every dashboard, and delete the files of those that are no more."""
    folder.mkdir(exist_ok=True)
    files = generated()
    for path in folder.glob("*.json"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text)
        print(folder / name)


if __name__ == "__main__":
    write(DASHBOARDS)
    sys.exit(0)
