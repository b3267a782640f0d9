"""PyTorch's switches, for engines whose workers run code of ours: how a worker is told of oneDNN, and what it says is
in force.

oneDNN is PyTorch's default on the CPU (`torch.backends.mkldnn`); our code sets it where `VARIABLE` is there, and prints
one line when its model is loaded.
"""

from __future__ import annotations

import json
import re

from serving.engines.engine import Switch
from serving.engines.onednn_variable import OneDnnVariable

VARIABLE = OneDnnVariable("TANDEM_TORCH_ONEDNN", "PyTorch computes with oneDNN on every CPU that its build has it for.")
_LINE = re.compile(r"tandem switches (\{.*\})")


def in_force(log: str) -> tuple[Switch, ...]:
    """What the newest worker said in a server's ``log``; empty where none did, as an older archive's does not."""
    said = _LINE.findall(log)
    try:
        values = json.loads(said[-1]) if said else {}
    except ValueError:  # a line that two workers wrote at once
        return ()
    return tuple(Switch(name, value) for name, value in values.items())
