"""Asks Prometheus' and Alertmanager's own tools whether their files are right."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from monitoring import scrape
from monitoring.render import ROOT

# Two engines record the same names, which --lint would call duplicates.
COMMANDS = (
    *(("promtool", "check", "config", "--lint=none", f"prometheus/{runtime}.yaml") for runtime in scrape.RUNTIMES),
    ("promtool", "check", "rules", "--lint=none", "prometheus/rules/recording.yaml", "prometheus/rules/alerts.yaml"),
    ("amtool", "check-config", "alertmanager/alertmanager.yaml"),
)
PACKAGES = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}


def run(folder: Path = ROOT / "monitoring") -> bool:
    """Run every command and print what one that fails says; a tool that is missing is a note, or a failure with
    TANDEM_REQUIRE_ALL=1."""
    good = True
    for tool, package in PACKAGES.items():
        if shutil.which(tool) is None:
            required = os.environ.get("TANDEM_REQUIRE_ALL") == "1"
            kind = "error" if required else "note"
            print(f"{kind}: {tool} is not installed (apt-get install {package}); not checked by it", file=sys.stderr)
            good &= not required
    for command in COMMANDS:
        if shutil.which(command[0]):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                print(f"{' '.join(command)}:\n{done.stdout}{done.stderr}", file=sys.stderr)
                good = False
    return good
