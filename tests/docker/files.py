"""The files under docker/, read the way the tests look at them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
SERVERS = ("torchserve", "tensorflow-serving", "embedded-tfserving", "triton")


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    """A Compose file with its anchors merged and its variables as written."""
    return yaml.safe_load((DOCKER / name).read_text())


def stages(dockerfile: Path) -> list[list[str]]:
    """The instructions of each stage, continuation lines joined, comments dropped; what stands before the first FROM
    is stage 0."""
    text = re.sub(r"\\\n\s*", " ", "\n".join(line for line in dockerfile.read_text().splitlines() if line[:1] != "#"))
    found: list[list[str]] = [[]]
    for line in filter(None, text.splitlines()):
        if line.startswith("FROM "):
            found.append([])
        found[-1].append(line)
    return found


def instruction(lines: list[str], name: str) -> str:
    """What follows the one ``name`` in a stage."""
    (found,) = [line.partition(" ")[2].strip() for line in lines if line.startswith(f"{name} ")]
    return found
