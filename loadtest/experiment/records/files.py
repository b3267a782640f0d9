"""Records as files: written, and read with what older ones lack."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from loadtest.experiment.meter_records import DeviceUse
from loadtest.experiment.records.decisions import Decisions
from loadtest.experiment.records.environment import Environment
from loadtest.experiment.records.search import SearchRecord
from loadtest.experiment.records.server import ServerFigures
from loadtest.experiment.records.trial import TrialRecord
from loadtest.experiment.records.warm_up import WarmUpRecord
from models.problem import Problem

_OPTIONAL = (
    "max_in_flight",
    "arrivals",
    "concurrency",
    "planned_s",
    "slo_p99_ms",
    "late",
    "arrivals_check",
    "by_model",
    "others",
    "throttled",
    "server_throttled",
    "first_error",
    "unsteady_attempts",
    "settling",
    "gpus",
    "idle",
)
_Kind = TypeVar("_Kind", bound=msgspec.Struct)


def values_of(record: msgspec.Struct) -> dict[str, Any]:
    """A record as plain values, as they stand in its file."""
    values: dict[str, Any] = msgspec.to_builtins(record)
    return {key: value for key, value in values.items() if value is not None or key not in _OPTIONAL}


def encode(record: msgspec.Struct) -> str:
    """A record as its file's text."""
    return json.dumps(values_of(record), indent=2) + "\n"


def read_trial(path: Path) -> TrialRecord:
    """A trial.json. Raises `Problem` naming the file where it is missing, damaged or lacks a key."""
    return _read(path, TrialRecord, "delete the folder and run again to repeat the trial")


def read_warm_up(path: Path) -> WarmUpRecord:
    """A warm-up.json. Raises `Problem` naming the file where it is missing, damaged or lacks a key."""
    return _read(path, WarmUpRecord, "run the experiment again")


def read_search(path: Path) -> SearchRecord:
    """A search.json. Raises `Problem` naming the file where it is missing, damaged or lacks a key."""
    return _read(path, SearchRecord, "delete the folder and run again to repeat the search")


def read_server(path: Path) -> ServerFigures:
    """A server.json. Raises `Problem` naming the file where it is missing, damaged or lacks a key."""
    return _read(path, ServerFigures, "delete it and build the report again")


def read_use(path: Path) -> DeviceUse | None:
    """A devices.json; None where there is none. Raises `Problem` naming the file where it is damaged."""
    return _read(path, DeviceUse, "delete it and build the report again") if path.exists() else None


def read_decisions(path: Path) -> Decisions | None:
    """A decisions.json; None where there is none. Raises `Problem` naming the file where it is damaged."""
    return _read(path, Decisions, "run the experiment again") if path.exists() else None


def read_environment(path: Path) -> Environment | None:
    """An environment.json; None where there is none. Raises `Problem` naming the file where it is damaged."""
    return _read(path, Environment, "run the experiment again") if path.exists() else None


def _read(path: Path, kind: type[_Kind], fix: str) -> _Kind:
    try:
        values = json.loads(path.read_text())
        return msgspec.convert(_current(values), kind)
    except msgspec.ValidationError as error:
        raise Problem(f"{path}: {error}; {fix}") from error
    except ValueError as error:
        raise Problem(f"{path}: not valid JSON ({error}); {fix}") from error
    except OSError as error:
        raise Problem(f"{path}: cannot be read ({error.strerror}); {fix}") from error


# Until summary format 2 notes were sentences; these are the two that trials had.
_SPOKEN = re.compile(r"the server (died or became unreachable|refused or closed connections) ([\d.]+) s [^:]*: (\d+) ")


_CORES = ("server_cores", "generator_cores", "load_average_at_start")


def _current(values: Any) -> Any:
    """Values of an older file as those of today's."""
    if not isinstance(values, dict):
        return values
    found = dict(values)
    for key in ("latency_ms", "errors", "notes", "spoiled", "libraries", "nodes", "order", *_CORES):
        if key in found and found[key] is None:
            del found[key]
    if "warnings" in found:
        told = found["warnings"] or ()
        found["warnings"] = [{"type": "remark", "text": one} if isinstance(one, str) else one for one in told]
    if any(isinstance(note, str) for note in found.get("notes", ())):
        found["notes"] = [_note(note) for note in found["notes"]]
    if "steps" in found:
        steps = [one if not isinstance(one.get("why_not"), str) else {**one, "why_not": None} for one in found["steps"]]
        found["steps"] = steps
    return found


def _note(note: Any) -> Any:
    spoken = _SPOKEN.match(note) if isinstance(note, str) else None
    if spoken is None:
        return note
    tag = "server-died" if spoken[1].startswith("died") else "connections-lost"
    return {"type": tag, "after_s": float(spoken[2]), "lost": int(spoken[3])}
