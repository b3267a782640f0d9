"""The one file that pins other people's images."""

from __future__ import annotations

import re
from pathlib import Path

from models.problem import Problem

FILE = Path(__file__).resolve().parents[3] / "docker" / "base-images.env"


def variables(*, digests: bool = True, file: Path = FILE) -> dict[str, str]:
    """The file's NAME_IMAGE and NAME_DIGEST; ``digests`` False empties the latter, for images made or imported here."""
    found = {}
    for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Z_]+)_(IMAGE|DIGEST)=(.*)", line)
        if not match or (match[2] == "DIGEST" and not re.fullmatch(r"(@sha256:[0-9a-f]{64})?", match[3])):
            raise Problem(f"{file}:{number}: {line!r}: use NAME_IMAGE=image:tag or NAME_DIGEST=@sha256:... (or empty)")
        found[f"{match[1]}_{match[2]}"] = match[3] if match[2] == "IMAGE" or digests else ""
    return found


def reference(name: str, values: dict[str, str]) -> str:
    """What a ``FROM`` or Compose's ``image`` names: tag and digest."""
    return values[f"{name}_IMAGE"] + values[f"{name}_DIGEST"]
