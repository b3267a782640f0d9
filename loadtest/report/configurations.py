"""What each server was given: the profile's knobs beside each server's own settings, and configuration files side by
side with the differences marked."""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtest.report import wording
from serving.engines.engine import Knob, KnobKind, Switch


class Compared(enum.Enum):
    """How one knob of the profile came out over all targets."""

    SAME = "same"
    OTHER_UNIT = "other unit"
    DIFFERS = "differs"
    NO_COUNTERPART = "no counterpart"
    NOT_RECORDED = "not recorded"
    ONE_TARGET = "one target"


UNLIKE = (Compared.OTHER_UNIT, Compared.DIFFERS, Compared.NO_COUNTERPART)


@dataclass(frozen=True)
class Row:
    """One knob: its value in the profile, what each target was given ("batchSize = 32 requests", or None where it has
    no counterpart or the run did not record it), and how these compare."""

    name: str
    value: str
    given: list[str | None]
    compared: Compared


def rows(profile: Mapping[str, object], given: Sequence[Sequence[Knob]]) -> list[Row]:
    """The tuning of all targets, knob by knob. ``given``: the knobs of each target; those of a run of an earlier
    version do not say which of the profile's they are, or there are none."""
    found = []
    known = bool(given) and all(any(knob.name in profile for knob in knobs) for knobs in given)
    for name in dict.fromkeys([*profile, *(knob.name for knobs in given for knob in knobs)]):
        own = [next((knob for knob in knobs if knob.name == name), None) for knobs in given]
        value = wording.plain(profile[name]) if name in profile else wording.NOTHING
        found.append(
            Row(name, value, [_shown(knob) for knob in own], _compare(own) if known else Compared.NOT_RECORDED)
        )
    return found


def in_force(switches: Sequence[Sequence[Switch]]) -> list[Row]:
    """The switches of all targets' numerical libraries, as they were when a server was last started; ``switches``: of
    each target."""
    found = []
    for name in dict.fromkeys(switch.name for own in switches for switch in own):
        own = [next((switch for switch in one if switch.name == name), None) for one in switches]
        values = {switch.value for switch in own if switch is not None}
        if len(switches) < 2:
            compared = Compared.ONE_TARGET
        elif None in own:
            compared = Compared.NO_COUNTERPART
        elif None in values:
            compared = Compared.NOT_RECORDED
        else:
            compared = Compared.SAME if len(values) == 1 else Compared.DIFFERS
        shown = [None if switch is None else wording.switch(switch.value) for switch in own]
        found.append(Row(f"in force: {name}", wording.NOTHING, shown, compared))
    return found


def _shown(knob: Knob | None) -> str | None:
    if knob is None or knob.kind is KnobKind.NO_COUNTERPART:
        return None
    unit = f" {knob.unit}" if knob.unit else ""
    return f"{knob.native_key} not set" if knob.value is None else f"{knob.native_key} = {knob.value}{unit}"


def _compare(knobs: Sequence[Knob | None]) -> Compared:
    known = [knob for knob in knobs if knob is not None and knob.kind is not KnobKind.NO_COUNTERPART]
    if len(known) < len(knobs):
        return Compared.NO_COUNTERPART
    if len(known) < 2:
        return Compared.ONE_TARGET
    if len({(knob.native_key, knob.value) for knob in known}) == 1:
        return Compared.SAME
    if all(knob.kind is KnobKind.SAME and knob.asked is not None for knob in known):
        return Compared.SAME if len({knob.asked for knob in known}) == 1 else Compared.DIFFERS
    return Compared.OTHER_UNIT if len({knob.value for knob in known}) == 1 else Compared.DIFFERS


@dataclass(frozen=True)
class Line:
    """One line of two files side by side; None where a file has no such line. ``state``: "same", "changed", "only
    left" or "only right"."""

    left: str | None
    right: str | None
    state: str


def side_by_side(left: str, right: str) -> list[Line]:
    """Two texts, line by line, aligned as by diff."""
    ours, theirs = left.splitlines(), right.splitlines()
    found = []
    for kind, from_a, to_a, from_b, to_b in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        for offset in range(max(to_a - from_a, to_b - from_b)):
            a = ours[from_a + offset] if from_a + offset < to_a else None
            b = theirs[from_b + offset] if from_b + offset < to_b else None
            state = (
                "same" if kind == "equal" else "only right" if a is None else "only left" if b is None else "changed"
            )
            found.append(Line(a, b, state))
    return found


@dataclass(frozen=True)
class ConfigLine:
    """A line of a rendered file; ``knob`` names what it tunes where the targets' values differ there, else ""."""

    text: str
    knob: str


def marked(text: str, knobs: Sequence[Knob], known: Sequence[Row]) -> list[ConfigLine]:
    """The lines of a file of a server that was given ``knobs``; those that set one on which the servers differ are
    marked with its name."""
    unlike = {row.name for row in known if row.compared in UNLIKE}
    keys = [(knob.native_key, knob.name) for knob in knobs if knob.native_key and knob.name in unlike]
    found = []
    for line in text.splitlines():
        here = [] if line.lstrip().startswith("#") else [name for key, name in keys if _sets(line, key)]
        found.append(ConfigLine(line, ", ".join(dict.fromkeys(here))))
    return found


def _sets(line: str, key: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])\W*[=:{{]", line) is not None
