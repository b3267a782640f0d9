"""Why an engine's own program is not at hand, and how to get it, in words: for the command lines and the report."""

from __future__ import annotations

from serving.engines.engine import Download, Engine
from serving.runtimes.containers.image_reference import MIRROR
from serving.runtimes.process import own_program
from serving.target import WhyStandIn

_WHY = {
    WhyStandIn.ASKED: "it was asked for",
    WhyStandIn.MACHINE: "the program is for another kind of machine",
    WhyStandIn.C_LIBRARY: "the program needs another C library",
    WhyStandIn.NO_ANSWER: "the registry does not answer",
    WhyStandIn.REFUSED: "the registry lets nobody in that it does not know",
    WhyStandIn.NOT_FOUND: "the registry does not have the image",
    WhyStandIn.BUSY: "the registry was asked too often",
    WhyStandIn.FAILS: "the registry fails",
    WhyStandIn.DAMAGED: "what the registry sent is damaged",
    WhyStandIn.NOT_UNDERSTOOD: "what the registry sent is not understood",
    WhyStandIn.NOT_IN_IMAGE: "the image does not hold the program",
    WhyStandIn.NO_SPACE: "the disk is full",
    WhyStandIn.NOT_WRITABLE: "the cache cannot be written",
    WhyStandIn.DOES_NOT_START: "the program does not start here",
}
_ELSEWHERE = (WhyStandIn.NO_ANSWER, WhyStandIn.REFUSED, WhyStandIn.BUSY, WhyStandIn.FAILS, WhyStandIn.NOT_FOUND)


def why(reason: WhyStandIn, detail: str = "") -> str:
    """The reason, with what the system or the registry says of it."""
    return f"{_WHY[reason]}: {detail}" if detail else _WHY[reason]


def remedy(reason: WhyStandIn, engine: Engine, *, fetching: bool = False) -> str:
    """What gets the engine itself to run; ``fetching``: for the command that does nothing but fetch it."""
    variable = engine.download.variable if isinstance(engine.download, Download) else ""
    if reason is WhyStandIn.ASKED:
        return f"without {variable}={own_program.STAND_IN} the real one runs"
    if reason in (WhyStandIn.MACHINE, WhyStandIn.C_LIBRARY, WhyStandIn.DOES_NOT_START):
        return f"the real one runs in containers (RUNTIME=container), or where {variable}=PATH names one that starts"
    if fetching:
        how = f", with {MIRROR}=HOST or HTTPS_PROXY where those are needed" if reason in _ELSEWHERE else ""
        return f"try again{how}, or name a program of yours to what runs it: {variable}=PATH"
    mirror = f" (by {MIRROR}=HOST or HTTPS_PROXY, where those are needed)" if reason in _ELSEWHERE else ""
    return f"make {engine.id} fetches the real one{mirror}, {variable}=PATH names one"
