"""The generator's plan: which phases to run against which target, read from the JSON file that a run writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from loadtest.generator.arrivals import PROCESSES, Shape, shape
from models.problem import Problem
from serving.target import PROTOCOLS, Target


@dataclass(frozen=True)
class WarmUpPhase:
    """A closed loop at `concurrency` until successive windows of `window_s` agree within `tolerance`, for at least
    `min_s` and at most `max_s` seconds; `retries` times more where they did not. Then open load for at most `settle_s`
    seconds, until its latency agrees, too, and `min_requests` have been sent in all (see `settling`); with a `settle_s`
    of 0 the closed loop goes on until so many were answered, or `max_s`."""

    id: str
    folder: Path
    protocol: str
    seed: int
    concurrency: int = 32
    window_s: float = 0.5
    min_s: float = 2.0
    max_s: float = 20.0
    tolerance: float = 0.05
    timeout_s: float = 10.0
    batch: int = 1
    retries: int = 0
    settle_s: float = 0.0
    min_requests: int = 0


@dataclass(frozen=True)
class OpenLoopPhase:
    """Requests on a schedule fixed before the start: `rate` requests/s for `duration_s` seconds, after `lead_in_s`
    seconds at the same rate that are not counted. `arrival` names the process and `arrivals` shapes it. `check_share`
    of the answers are compared with the reference. A trial that the generator spoils is repeated `retries` times."""

    id: str
    folder: Path
    protocol: str
    seed: int
    rate: float
    duration_s: float
    scenario: str = "ladder"
    arrival: str = "poisson"
    arrivals: Shape = field(default_factory=Shape)
    lead_in_s: float = 1.0
    max_in_flight: int = 1024
    timeout_s: float = 10.0
    check_share: float = 0.05
    repetition: int = 1
    batch: int = 1
    warm_up: str | None = None
    retries: int = 0


@dataclass(frozen=True)
class ClosedLoopPhase:
    """`concurrency` requests in flight for `duration_s` seconds, after `lead_in_s` that are not counted. A request is
    due when it is sent, so its latency says nothing of waiting before that: for single-stream and offline only."""

    id: str
    folder: Path
    protocol: str
    seed: int
    scenario: str
    duration_s: float
    concurrency: int = 1
    lead_in_s: float = 1.0
    timeout_s: float = 10.0
    check_share: float = 0.05
    repetition: int = 1
    batch: int = 1
    warm_up: str | None = None


@dataclass(frozen=True)
class SearchPhase:
    """A search for the highest rate that meets `p99_ms` and `error_ratio`, by trials like `trial` at other rates.

    trials     the folder in which each trial gets its own
    growth, precision, repeats   see `capacity_search.look`; it starts at the trial's rate
    before     [rate, met] of an earlier repetition's tries, from which this one goes on
    budget_s   no trial starts that would end later than this after the search began
    """

    id: str
    folder: Path
    trials: Path
    trial: OpenLoopPhase
    p99_ms: float
    error_ratio: float
    growth: float
    precision: float
    repeats: int
    budget_s: float
    before: Sequence[tuple[float, bool]] = ()

    @property
    def protocol(self) -> str:
        """The protocol of its trials."""
        return self.trial.protocol


Phase = WarmUpPhase | OpenLoopPhase | ClosedLoopPhase | SearchPhase
_KINDS: dict[str, type[Phase]] = {
    "warm-up": WarmUpPhase,
    "open-loop": OpenLoopPhase,
    "closed-loop": ClosedLoopPhase,
    "search": SearchPhase,
}


@dataclass(frozen=True)
class Traffic:
    """One model's part of the requests: where they go, the bundle's reference.npz, and which share of all it is."""

    target: Target
    reference: Path
    share: float = 1.0

    def to_values(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {"target": self.target.to_dict(), "reference": str(self.reference), "share": self.share}


@dataclass(frozen=True)
class Plan:
    """Phases against one server. `traffic`: the models that it is asked for; `payloads`: distinct images to draw of
    each; `exporter_port`: Prometheus exporter on loopback, 0 for none; `cores`: CPUs to stay on, empty for any; `name`:
    whose results these are, where that is not the target's stack (a server compared with one of its own kind)."""

    traffic: Sequence[Traffic]
    phases: Sequence[Phase]
    payloads: int = 256
    exporter_port: int = 0
    cores: Sequence[int] = ()
    name: str = ""

    @property
    def target(self) -> Target:
        """The server, asked for the first of its models."""
        return self.traffic[0].target

    @property
    def measured(self) -> str:
        """What results call the target."""
        return self.name or self.target.name


def load(path: Path) -> Plan:
    """Read a plan: `target` and `reference` say what is asked for, or `mix` where that is several models. Raises
    `Problem` naming the file and the key that is wrong."""
    try:
        values = json.loads(path.read_text())
        mix = values.get("mix") or [{"target": values["target"], "reference": values["reference"]}]
        return Plan(
            traffic=[
                Traffic(Target.from_dict(one["target"]), Path(one["reference"]), float(one.get("share", 1.0)))
                for one in mix
            ],
            phases=[build(phase, f"phases[{number}]") for number, phase in enumerate(values["phases"])],
            payloads=int(values.get("payloads", 256)),
            exporter_port=int(values.get("exporter_port") or 0),
            cores=[int(core) for core in values.get("cores") or ()],
            name=str(values.get("name") or ""),
        )
    except OSError as error:
        raise Problem(f"{path}: cannot read the plan: {error.strerror}") from error
    except KeyError as error:
        raise Problem(f"{path}: key {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise Problem(f"{path}: not a plan: {error}") from error
    except Problem as problem:
        raise Problem(f"{path}: {problem}") from problem


def to_values(phase: Phase) -> dict[str, Any]:
    """A phase as plain values; `build` reads them back."""
    kind = next(name for name, known in _KINDS.items() if isinstance(phase, known))
    return {"kind": kind, **asdict(phase), "folder": str(phase.folder)}


def build(values: dict[str, Any], where: str) -> Phase:
    """A phase from plain values. Raises `Problem` naming the key that is wrong, below `where`."""
    kind = values.get("kind")
    if kind not in _KINDS:
        raise Problem(f"{where}.kind = {kind!r}: use one of {', '.join(_KINDS)}")
    phase = _build(_KINDS[kind], {key: value for key, value in values.items() if key != "kind"}, where)
    if phase.protocol not in PROTOCOLS:
        raise Problem(f"{where}.protocol = {phase.protocol!r}: use one of {', '.join(PROTOCOLS)}")
    if isinstance(phase, OpenLoopPhase) and phase.arrival not in PROCESSES:
        raise Problem(f"{where}.arrival = {phase.arrival!r}: use one of {', '.join(PROCESSES)}")
    _positive(phase, where, *_POSITIVE[kind])
    return phase


_POSITIVE = {
    "warm-up": ("concurrency", "window_s", "max_s", "tolerance", "timeout_s", "batch"),
    "open-loop": ("rate", "duration_s", "max_in_flight", "timeout_s", "batch"),
    "closed-loop": ("concurrency", "duration_s", "timeout_s", "batch"),
    "search": ("p99_ms", "growth", "precision", "repeats", "budget_s"),
}


def _build(kind: type[Phase], values: dict[str, Any], where: str) -> Phase:
    known = {item.name: item for item in fields(kind)}
    for key in values:
        if key not in known:
            raise Problem(f"{where}.{key}: unknown key; use one of {', '.join(known)}")
    for key, item in known.items():
        if key not in values and item.default is MISSING and item.default_factory is MISSING:
            raise Problem(f"{where}.{key}: missing")
    built: dict[str, Any] = {**values, **{key: Path(values[key]) for key in ("folder", "trials") if key in values}}
    if "arrivals" in values:
        built["arrivals"] = shape(values["arrivals"])
    if "trial" in values:
        built["trial"] = build({"kind": "open-loop", **values["trial"]}, f"{where}.trial")
    return kind(**built)


def _positive(phase: Phase, where: str, *keys: str) -> None:
    for key in keys:
        value = getattr(phase, key)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
            raise Problem(f"{where}.{key} = {value!r}: use a number above 0")
