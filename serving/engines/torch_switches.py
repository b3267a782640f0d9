"""PyTorch's switches, for engines whose workers run code of ours: how a worker is told of oneDNN, and what it says is
in force.

oneDNN is PyTorch's default on the CPU (`torch.backends.mkldnn`); our code sets it where `VARIABLE` is there, and prints
one line when its model is loaded.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from serving.engines.engine import Knob, Switch

if TYPE_CHECKING:
    from serving.profile import ServingProfile

VARIABLE = "TANDEM_TORCH_ONEDNN"
_LINE = re.compile(r"tandem switches (\{.*\})")
_DEFAULT = 'onednn = "default": PyTorch computes with oneDNN on every CPU that its build has it for.'


def variables(profile: ServingProfile) -> dict[str, str]:
    """The environment variable that a profile asks for; none where PyTorch is to decide."""
    return {} if profile.onednn == "default" else {VARIABLE: str(int(profile.onednn))}


def unset(profile: ServingProfile) -> tuple[str, ...]:
    """The variable that must not be there for PyTorch to decide."""
    return (VARIABLE,) if profile.onednn == "default" else ()


def knob(profile: ServingProfile) -> Knob:
    """What a server is given."""
    if profile.onednn == "default":
        return Knob("onednn", VARIABLE, None, note=_DEFAULT, asked=profile.onednn)
    return Knob("onednn", VARIABLE, int(profile.onednn), asked=profile.onednn)


def in_force(log: str) -> tuple[Switch, ...]:
    """What the newest worker said in a server's ``log``; empty where none did, as an older archive's does not."""
    said = _LINE.findall(log)
    try:
        values = json.loads(said[-1]) if said else {}
    except ValueError:  # a line that two workers wrote at once
        return ()
    return tuple(Switch(name, value) for name, value in values.items())
