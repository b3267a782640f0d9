"""Where things are inside our images. Imports the standard library only."""

from __future__ import annotations

from pathlib import Path

MANIFEST = Path("/bundle/manifest.json")
MODELS = Path("/models")
CONFIG = Path("/config")
SCRATCH = Path("/tmp")
# While this file is there the container is unhealthy, on its way out.
DRAINING = SCRATCH / "draining"
# New requests are refused while this file is there, by a server that does not wait for answers under way.
REFUSING = SCRATCH / "refusing"
ENVIRONMENT = "environment.txt"
