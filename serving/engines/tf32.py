"""TF32, the short format in which NVIDIA's GPUs may multiply float32: how a server is told, and what it says. Imports
the standard library only.

Where nobody says otherwise, PyTorch computes convolutions in it, TensorFlow and ONNX Runtime matrix products as well.
`OVERRIDE` = 0 forbids it to every library of NVIDIA's, and is all that reaches a server that is not Python.
https://docs.nvidia.com/deeplearning/frameworks/tensorflow-user-guide/index.html#tf_override
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.precision import Precision
from models.problem import Problem
from serving.engines.engine import TF32, Knob, Switch

if TYPE_CHECKING:
    from serving.profile import ServingProfile

OVERRIDE = "NVIDIA_TF32_OVERRIDE"
# Our code in PyTorch's workers sets PyTorch's own switches by it.
TORCH = "TANDEM_TORCH_TF32"
FORCES_TORCH = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
SAID = "TF32 is "
_LINE = re.compile(rf"{SAID}(on|off)\b")
_DEFAULT = 'precision = "tf32": it is computed with where nothing forbids it.'
_GRAPH = "The weights and activations of the exported graph are {}; what is left in float32 is computed as such."


def variables(profile: ServingProfile, *, torch: bool = False) -> dict[str, str]:
    """What a profile asks of a server; ``torch``: of one whose workers are PyTorch and run code of ours."""
    allowed = profile.precision is Precision.TF32
    return {**({TORCH: str(int(allowed))} if torch else {}), **({} if allowed else {OVERRIDE: "0"})}


def unset(profile: ServingProfile) -> tuple[str, ...]:
    """What must not be there."""
    return (OVERRIDE,) if profile.precision is Precision.TF32 else ()


def knob(profile: ServingProfile, *, torch: bool = False) -> Knob:
    """What a server is given."""
    key = TORCH if torch else OVERRIDE
    value = variables(profile, torch=torch).get(key)
    exported = profile.precision.exported
    note = _GRAPH.format(exported) if exported is not Precision.FP32 else "" if value else _DEFAULT
    return Knob("precision", key, None if value is None else int(value), note=note, asked=profile.precision.value)


def allowed(environment: Mapping[str, str]) -> bool:
    """Whether `OVERRIDE` leaves it to the library."""
    return environment.get(OVERRIDE) != "0"


def require(environment: Mapping[str, str], *, forbidden: bool) -> None:
    """Raise `Problem` where a variable of ``environment`` would have a server compute in TF32 though it is
    ``forbidden``, or not though it is asked for, whatever the profile says."""
    if environment.get(FORCES_TORCH):
        raise Problem(
            f"{FORCES_TORCH}={environment[FORCES_TORCH]} in the environment: PyTorch would heed it, and not "
            "profile.precision; unset it"
        )
    if environment.get(OVERRIDE) and allowed(environment) is forbidden:
        wanted = "forbids TF32" if forbidden else "asks for TF32"
        raise Problem(
            f"{OVERRIDE}={environment[OVERRIDE]} in the environment: profile.precision {wanted}; unset the variable, "
            "or change the profile"
        )


def in_force(log: str) -> tuple[Switch, ...]:
    """What a server's ``log`` says in our own words; empty where it says nothing."""
    found = _LINE.search(log)
    return (Switch(TF32, found[1] == "on"),) if found else ()
