"""Which answers count as right, of wire-parity.json."""

from __future__ import annotations

import enum


class RightAnswers(enum.Enum):
    """Which answers count as right in a run.

    REFERENCE  those of eager PyTorch, which the bundle brings
    FIRST      those of the first target, before any load
    RECORDED   those of a file
    ANY        all that are no errors: nothing shows that the targets serve one model
    """

    REFERENCE = "reference"
    FIRST = "first"
    RECORDED = "recorded"
    ANY = "any"
