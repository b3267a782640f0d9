"""What each server was given: the profile's knobs beside both servers' own settings, and configuration files side by
side with the differences marked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.analysis import wording


@dataclass(frozen=True)
class _Setting:
    """A server's own key for a knob: ``scale`` turns its value into the knob's unit."""

    key: str
    unit: str = ""
    scale: float = 1.0


TORCHSERVE: dict[str, _Setting] = {
    "max_batch_size": _Setting("batchSize", "requests"),
    "batch_timeout_ms": _Setting("maxBatchDelay", "ms"),
    "instances": _Setting("maxWorkers", "processes"),
    "threads": _Setting("threads", "threads"),
    "queue_capacity": _Setting("job_queue_size", "requests"),
    "front end, gRPC": _Setting("number_of_netty_threads", "threads"),
    "front end, REST": _Setting("number_of_netty_threads", "threads"),
}
TENSORFLOW: dict[str, _Setting] = {
    "max_batch_size": _Setting("max_batch_size", "images"),
    "batch_timeout_ms": _Setting("batch_timeout_micros", "µs", 0.001),
    "instances": _Setting("num_batch_threads", "threads"),
    "threads": _Setting("tensorflow_intra_op_parallelism", "threads"),
    "queue_capacity": _Setting("max_enqueued_batches", "batches"),
    "front end, gRPC": _Setting("grpc_max_threads", "threads"),
    "front end, REST": _Setting("rest_api_num_threads", "threads"),
}
DIALECTS = {"torchserve": TORCHSERVE, "tensorflow-serving": TENSORFLOW, "embedded-tfserving": TENSORFLOW}
# Knobs whose unit is not the same on every server: equal numbers do not make them equal.
DIFFERENT_UNITS = ("max_batch_size", "instances", "queue_capacity", "front end, gRPC", "front end, REST")


@dataclass(frozen=True)
class Knob:
    """One knob of the profile: its value there, what each target was given ("batchSize = 32 requests", or None where it
    has no counterpart), and how these compare: "same", "other unit", "differs" or "no counterpart"."""

    name: str
    value: str
    given: list[str | None]
    compared: str


def knobs(experiment: Mapping[str, Any], targets: Sequence[Mapping[str, Any]]) -> list[Knob]:
    """The tuning of all targets, knob by knob. ``targets``: as in summary.json."""
    profile = experiment.get("profile", {})
    found = []
    for name in dict.fromkeys([*profile, *TORCHSERVE, *TENSORFLOW]):
        settings = [_find(target, name) for target in targets]
        if name not in profile and not any(text for text, _ in settings):
            continue
        value = f"{profile[name]}" if name in profile else wording.NOTHING
        found.append(Knob(name, value, [text for text, _ in settings], _compare(name, settings)))
    return found


def _find(target: Mapping[str, Any], name: str) -> tuple[str | None, float | str | None]:
    """A target's setting for a knob: as text, and as a value in the knob's unit."""
    settings = target.get("settings") or {}
    known = DIALECTS.get(str(target.get("engine")), {}).get(name) or _Setting(name)
    if known.key not in settings:
        return None, None
    value = settings[known.key]
    unit = f" {known.unit}" if known.unit and not re.search(r"[a-zµ]", str(value)) else ""
    number = re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)(?:\s*[a-zµ]+)?\s*", str(value))
    return f"{known.key} = {value}{unit}", float(number[1]) * known.scale if number else str(value)


def _compare(name: str, settings: Sequence[tuple[str | None, float | str | None]]) -> str:
    values = [value for _, value in settings]
    if any(value is None for value in values):
        return "no counterpart" if any(value is not None for value in values) else "not rendered"
    if len(values) < 2:
        return "one target"
    texts = {str(text).split(" = ")[0] for text, _ in settings}
    if len(set(values)) > 1:
        return "differs"
    return "other unit" if name in DIFFERENT_UNITS and len(texts) > 1 else "same"


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


def marked(text: str, target: Mapping[str, Any], known: Sequence[Knob]) -> list[ConfigLine]:
    """The lines of one server's file, those that set a knob on which the servers differ marked with its name."""
    dialect = DIALECTS.get(str(target.get("engine")), {})
    keys = {
        dialect[knob.name].key: knob.name
        for knob in known
        if knob.name in dialect and knob.compared in ("differs", "other unit", "no counterpart")
    }
    found = []
    for line in text.splitlines():
        here = [] if line.lstrip().startswith("#") else [name for key, name in keys.items() if _sets(line, key)]
        found.append(ConfigLine(line, ", ".join(dict.fromkeys(here))))
    return found


def _sets(line: str, key: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])\W*[=:{{]", line) is not None
