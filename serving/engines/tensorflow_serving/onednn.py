"""oneDNN in TensorFlow: how it is switched, and how a server's log says whether it is on. Imports the standard library
only.

TensorFlow reads `VARIABLE` once. Where it is not set, `DefaultOneDnnPolicy` of tensorflow/core/util/port.cc decides: on
Linux oneDNN is on where the CPU has AVX512-VNNI, AVX512-BF16, AVX-VNNI or AMX, or is an Arm Neoverse V1, and off
elsewhere. The package `tensorflow` and tensorflow_model_server are built of the same file. `IsMklEnabled` there logs
one line at level INFO where it is on, and none where it is off.
"""

from __future__ import annotations

import re

from serving.engines.engine import ONEDNN, Switch
from serving.engines.onednn_variable import OneDnnVariable

VARIABLE = OneDnnVariable(
    "TF_ENABLE_ONEDNN_OPTS",
    "TensorFlow computes with oneDNN where the CPU has AVX512-VNNI, AVX512-BF16, AVX-VNNI or AMX, and without it "
    "elsewhere.",
)
SAID = "oneDNN custom operations are "
_LINE = re.compile(rf"{SAID}(on|off)\b")
_INFO = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: I |^I\d{4} ", re.MULTILINE)


def in_force(log: str) -> tuple[Switch, ...]:
    """What a server's ``log`` says: on or off in words, off where it tells other things of level INFO but not this;
    a log without any such line says nothing."""
    found = _LINE.search(log)
    if found:
        return (Switch(ONEDNN, found[1] == "on"),)
    return (Switch(ONEDNN, False if _INFO.search(log) else None),)
