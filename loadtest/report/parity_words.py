"""Whether all targets serve one model, in words: what was compared with what."""

from __future__ import annotations

from loadtest.analysis.records import Parity
from loadtest.experiment.records import RightAnswers
from loadtest.report import wording
from models.bundle import WhyLeftOut

LABELS = {
    RightAnswers.REFERENCE: "Same model, proven",
    RightAnswers.FIRST: "Same answers as the first",
    RightAnswers.RECORDED: "Right answers, as recorded",
}
_DID = {
    RightAnswers.FIRST: "every server answered as the first one does",
    RightAnswers.RECORDED: "every server gave the recorded answers",
}


_LEFT_OUT = {WhyLeftOut.NO_KERNEL: "not asked: its runtime has no kernels for this precision on a CPU"}


def label(parity: Parity) -> str:
    """What was proven, in a few words."""
    return LABELS.get(parity.right, "Model parity not proven") if parity.proven else "Model parity not proven"


def lead(parity: Parity) -> str:
    """What was proven of endpoints, whose model nobody has here."""
    allowed = wording.scientific(parity.tolerance)
    asked = wording.plural(parity.wire_samples or 0, "sample")
    return (
        f"As far as they were asked: to {asked} {_DID[parity.right]}. No value differs by more than "
        f"{wording.scientific(parity.max_abs_diff)}; {allowed} is allowed."
    )


def left_out(why: WhyLeftOut) -> str:
    """Why there are no figures of an export."""
    return _LEFT_OUT[why]


def line(parity: Parity, servers: int) -> str:
    """The same for a terminal, where it is proven; ``servers``: how many."""
    if parity.right is not RightAnswers.REFERENCE:
        return lead(parity)
    sides = "all" if servers > 2 else "both"
    largest = wording.scientific(parity.max_abs_diff)
    return f"Same model on {sides} sides: largest difference of a probability {largest}."
