"""The experiment: one TOML file that says what is measured, validated on load and saved resolved with the results."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from loadtest.experiment import target_specs
from loadtest.experiment.limits import between, one_of
from loadtest.experiment.scenarios import (
    SCENARIOS,
    Capacity,
    Ladder,
    Offline,
    Rated,
    Scenario,
    Server,
    SingleStream,
    Soak,
    Spike,
    section,
)
from loadtest.experiment.target_specs import TargetSpec
from loadtest.generator.arrivals import Shape
from models.problem import Problem
from serving.profile import ServingProfile
from serving.target import PROTOCOLS

BUILT_IN = Path(__file__).resolve().parents[2] / "experiments"
RUNTIMES = ("process", "container", "kubernetes", "remote")
# Their images hold one model, and they have one server of each engine, all under one profile.
ONE_MODEL_RUNTIMES = ("container", "kubernetes")
# Shares of several models may leave this much over: thirds are 0.333.
SHARES_TOLERANCE = 0.005

Shares = dict[str, float]


@dataclass(frozen=True)
class Slo:
    """The service-level objective: p99 latency in milliseconds, and the share of requests that may fail."""

    p99_ms: float = 50.0
    error_ratio: float = 0.001

    def __post_init__(self) -> None:
        between("slo", self, p99_ms=(0.1, 60_000, "milliseconds"), error_ratio=(0, 1, "a share"))


@dataclass(frozen=True)
class WarmUp:
    """Closed-loop warm-up until successive windows agree within `tolerance`; it also probes the throughput. Where they
    do not within `max_s` it is repeated `retries` times; then what follows is measured, and is not valid. Afterwards
    open load, until its median latency agrees and `min_requests` have been sent in all, for at most `settle_s`. The
    probe, and a warm-up with a `settle_s` of 0, have none: there the closed loop goes on until `min_requests`, for at
    most `max_s`."""

    concurrency: int = 32
    window_s: float = 0.5
    min_s: float = 2.0
    max_s: float = 15.0
    tolerance: float = 0.1
    retries: int = 1
    settle_s: float = 12.0
    min_requests: int = 20_000

    def __post_init__(self) -> None:
        between(
            "warm_up",
            self,
            concurrency=(1, 4096, "requests in flight"),
            window_s=(0.1, 60, "seconds"),
            min_s=(0, 600, "seconds"),
            max_s=(0.1, 3600, "seconds"),
            tolerance=(0.001, 1, "a share"),
            retries=(0, 10, "repeats"),
            settle_s=(0, 600, "seconds"),
            min_requests=(0, 10_000_000, "requests"),
        )
        if self.max_s < self.min_s:
            raise Problem(f"warm_up.max_s = {self.max_s}: use at least warm_up.min_s ({self.min_s})")


@dataclass(frozen=True)
class Generator:
    """The load generator: most requests in flight before arrivals are dropped (and the measurement invalid), the
    time-out of one request, the share of answers compared with the reference, the number of distinct payloads, how
    often a trial is repeated that the generator spoiled by sending late.

    processes       Locust processes on this machine that share each schedule
    remote_workers  instead of them: Locust workers on other machines, which find this one at `port` (there:
                    make loadtest-worker MASTER=HOST)
    """

    max_in_flight: int = 4096
    timeout_s: float = 10.0
    check_share: float = 0.05
    payloads: int = 256
    retries: int = 2
    processes: int = 1
    remote_workers: int = 0
    port: int = 5557

    def __post_init__(self) -> None:
        between(
            "generator",
            self,
            max_in_flight=(1, 65_536, "requests"),
            timeout_s=(0.01, 600, "seconds"),
            check_share=(0, 1, "a share"),
            payloads=(1, 10_000, "images"),
            retries=(0, 10, "repeats"),
            processes=(1, 256, "processes"),
            remote_workers=(0, 4096, "workers"),
            port=(1, 65_535, "a TCP port"),
        )
        if self.remote_workers and self.processes > 1:
            raise Problem(
                f"generator.remote_workers = {self.remote_workers}: workers are here (generator.processes) or there"
            )


@dataclass(frozen=True)
class Cost:
    """What the report's cost and sizing rest on: the price of a node for an hour (0: not known) in a currency (ISO 4217
    or any short word), and the images/s that production must answer (0: not known)."""

    price_per_hour: float = 0.0
    currency: str = "USD"
    expected_rate: float = 0.0

    def __post_init__(self) -> None:
        between("cost", self, price_per_hour=(0, 1e6, "money for an hour"), expected_rate=(0, 1e9, "images/s"))
        if not re.fullmatch(r"\w{1,12}", self.currency):
            raise Problem(f"cost.currency = {self.currency!r}: use a short word, such as USD")


@dataclass(frozen=True)
class Experiment:
    """A validated experiment. Raises `Problem`, starting with the dotted key at fault, for an impossible value.

    model   the one model that is served, or
    models  several that each server holds at once, and which share of the requests each one gets
    """

    name: str = "default"
    model: str = "convnet"
    models: Shares = field(default_factory=dict)
    dataset: str = "fashion-mnist"
    targets: tuple[TargetSpec, ...] = field(default_factory=target_specs.by_default)
    protocols: tuple[str, ...] = ("grpc", "rest")
    runtime: str = "process"
    seed: int = 0
    scenarios: tuple[str, ...] = ("ladder", "capacity")
    profile: ServingProfile = field(default_factory=ServingProfile)
    slo: Slo = field(default_factory=Slo)
    ladder: Ladder = field(default_factory=Ladder)
    capacity: Capacity = field(default_factory=Capacity)
    single_stream: SingleStream = field(default_factory=SingleStream)
    server: Server = field(default_factory=Server)
    offline: Offline = field(default_factory=Offline)
    soak: Soak = field(default_factory=Soak)
    spike: Spike = field(default_factory=Spike)
    arrivals: Shape = field(default_factory=Shape)
    warm_up: WarmUp = field(default_factory=WarmUp)
    generator: Generator = field(default_factory=Generator)
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name):
            raise Problem(f"name = {self.name!r}: use 1 to 64 letters, digits, '.', '_' or '-'")
        one_of("runtime", self.runtime, RUNTIMES)
        self._check_models()
        self._check_targets()
        for key, known in (("protocols", PROTOCOLS), ("scenarios", tuple(SCENARIOS))):
            chosen = getattr(self, key)
            for value in chosen:
                one_of(key, value, known)
            if not chosen or len(set(chosen)) != len(chosen):
                raise Problem(f"{key} = {list(chosen)}: name each once, of {', '.join(known)}")
        for name in self.scenarios:
            rates = getattr(self.scenario(name), "rates", None)
            if rates and set(rates) != set(self.protocols):
                raise Problem(
                    f"{section(name)}.rates: give rates for exactly the protocols {', '.join(self.protocols)}"
                )
            if name == "capacity":
                self._check_starts()
            if getattr(self.scenario(name), "arrival", "") == "trace" and not self.arrivals.trace:
                raise Problem(f"{section(name)}.arrival = 'trace': name the file of timestamps as arrivals.trace")

    def _check_starts(self) -> None:
        for protocol, starts in self.capacity.rates.items():
            if len(starts) not in (1, len(self.targets)):
                raise Problem(
                    f"capacity.rates.{protocol} = {list(starts)}: use one rate, or one for each of the targets "
                    f"{', '.join(self.target_names)}"
                )

    def _check_targets(self) -> None:
        names = self.target_names
        if not names or len(set(names)) != len(names):
            raise Problem(f"targets = {list(names)}: name each once")
        for target in self.targets:
            target.tuned(self.profile)
            if self.runtime in ONE_MODEL_RUNTIMES and not target.is_shorthand:
                raise Problem(
                    f"target.{target.name}: runtime = {self.runtime!r} has one server of each engine, all under "
                    f"[profile]: name it in targets, without a table ({', '.join(target_specs.SHORTHAND)}), or use "
                    "runtime = 'process'"
                )

    def _check_models(self) -> None:
        if not self.models:
            return
        for model, share in self.models.items():
            if not 0 < share < 1:
                raise Problem(f"models.{model} = {share:g}: use a share of the requests between 0 and 1")
        if abs(sum(self.models.values()) - 1) > SHARES_TOLERANCE:
            raise Problem(f"models: the shares add up to {sum(self.models.values()):.4g}, not to 1")
        if self.runtime in ONE_MODEL_RUNTIMES:
            raise Problem(
                f"models: runtime = {self.runtime!r} serves one model, which its images hold: name it as model, or use "
                "runtime = 'process' or make loadtest"
            )

    @property
    def target_names(self) -> tuple[str, ...]:
        """What the targets are called, in their order."""
        return tuple(target.name for target in self.targets)

    def target(self, name: str) -> TargetSpec:
        """The target of that name; KeyError where there is none."""
        return {target.name: target for target in self.targets}[name]

    def profile_of(self, name: str) -> ServingProfile:
        """The tuning of one target: the shared profile, and what is different for it."""
        return self.target(name).tuned(self.profile)

    @property
    def mix(self) -> Shares:
        """The models served and the share of the requests that each one gets."""
        return self.models or {self.model: 1.0}

    def scenario(self, name: str) -> Scenario:
        """The settings of a scenario, by its name."""
        settings: Scenario = getattr(self, section(name))
        return settings

    @property
    def unrated(self) -> dict[str, Rated]:
        """The chosen scenarios whose rates a probe still has to find."""
        chosen = {name: self.scenario(name) for name in self.scenarios}
        return {name: item for name, item in chosen.items() if isinstance(item, Rated) and not item.rates}

    def with_rates(self, rates: Mapping[str, tuple[float, ...]], scenario: str = "ladder") -> Experiment:
        """The same experiment with a scenario's rates (requests/s, by protocol) fixed."""
        rated: Any = self.scenario(scenario)
        return replace(self, **{section(scenario): replace(rated, rates=dict(rates))})

    def to_toml(self) -> str:
        """The whole experiment as TOML; `load` reads it back to an equal experiment."""
        import tomli_w  # the load generator's image does not have it

        values = asdict(self)
        del values["model" if self.models else "models"]
        values.update(target_specs.values(self.targets))
        for name in SCENARIOS:
            if "rates" in values[section(name)] and not values[section(name)]["rates"]:
                del values[section(name)]["rates"]
        return tomli_w.dumps(values)


def load(name: str, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read an experiment: the name of a built-in one ("default", "smoke") or the path of a TOML file.

    `overrides` (dotted key to value) win over the file. Raises `Problem` with file, line and key for anything that
    cannot be measured.
    """
    path = BUILT_IN / f"{name}.toml" if re.fullmatch(r"[\w-]+", name) else Path(name)
    try:
        text = path.read_text()
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in BUILT_IN.glob("*.toml")))
        raise Problem(f"experiment {name!r}: {error.strerror}; use a TOML file's path or one of {known}") from error
    except UnicodeDecodeError as error:
        raise Problem(f"{path}: not UTF-8 text; an experiment is a TOML file") from error
    return parse(text, str(path), overrides)


def override(argument: str) -> tuple[str, Any]:
    """Parse "KEY=VALUE" (a dotted key, a TOML value or plain text) into a key and a value."""
    key, equals, value = argument.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key.strip()):
        raise Problem(f"--set {argument}: use KEY=VALUE, such as ladder.duration_s=10")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def parse(text: str, file: str = "experiment", overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Parse and validate an experiment's TOML text; `file` names it in errors."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Problem(f"{file}: not valid TOML: {error}") from error
    given = {dotted.partition(".")[0] for dotted in overrides or {}}
    for key, other in (("model", "models"), ("models", "model")):
        if key in given and other not in given:  # the command line wins
            values.pop(other, None)
    for dotted, value in (overrides or {}).items():
        _put(values, dotted, value)
    try:
        if "model" in values and "models" in values:
            raise Problem("models: give either model or models")
        _put_targets(values, chosen="targets" in given)
        return _build(Experiment, values, "")
    except Problem as problem:
        found = re.match(r"[\w.-]+", str(problem))
        key = found[0] if found else ""
        where = "command line" if key in (overrides or {}) else f"{file}:{_line_of(text, key)}"
        raise Problem(f"{where}: {problem}") from problem


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    *tables, key = dotted.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise Problem(f"command line: {dotted}: {table} is no table")
    values[key] = value


def _put_targets(values: dict[str, Any], chosen: bool) -> None:
    """Replace the list of names and the tables by what both say; `chosen`: the command line gives the list."""
    tables = values.pop("target", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise Problem("target: use tables, [[target]], each with a name, an engine and what is different of [profile]")
    specs = []
    for number, table in enumerate(tables, start=1):
        where = f"target.{table['name']}" if isinstance(table.get("name"), str) else f"target.{number}"
        for key in ("name", "engine"):
            if key not in table:
                raise Problem(f"{where}: give it a {key}")
        specs.append(_build(TargetSpec, table, where))
    names = _typed("targets", values["targets"], "tuple[str, ...]") if "targets" in values else None
    if names is not None and not chosen:
        target_specs.unnamed(names, specs)
    values["targets"] = target_specs.parse(names, specs)


def _build(kind: type, values: Mapping[str, Any], section: str) -> Any:
    known = {item.name: item for item in fields(kind)}
    arguments = {}
    for key, value in values.items():
        dotted = f"{section}.{key}" if section else key
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
            raise Problem(f"{dotted}: unknown key; {hint}")
        arguments[key] = _typed(dotted, value, str(known[key].type))
    return kind(**arguments)


_SECTIONS: dict[str, type] = {
    "ServingProfile": ServingProfile,
    "Slo": Slo,
    **{kind.__name__: kind for kind in SCENARIOS.values()},
    "Shape": Shape,
    "WarmUp": WarmUp,
    "Generator": Generator,
    "Cost": Cost,
}


def _typed(dotted: str, value: Any, annotation: str) -> Any:  # noqa: PLR0911
    """Convert a TOML value to a field's type, or say which type the key takes."""
    if annotation in _SECTIONS:
        if isinstance(value, dict):
            return _build(_SECTIONS[annotation], value, dotted)
        raise Problem(f"{dotted}: use a table, [{dotted}]")
    if annotation == "tuple[TargetSpec, ...]":
        return value
    if annotation == "Mapping[str, Override]":
        if isinstance(value, dict):
            return value
        raise Problem(f"{dotted}: use a table, [{dotted}]")
    if annotation == "Shares":
        if isinstance(value, dict) and len(value) > 1:
            return {key: _typed(f"{dotted}.{key}", item, "float") for key, item in value.items()}
        raise Problem(f"{dotted} = {value!r}: use a table of two or more, such as {{convnet = 0.7, lenet = 0.3}}")
    if annotation == "Rates":
        if isinstance(value, dict):
            return {key: _typed(f"{dotted}.{key}", item, "tuple[float, ...]") for key, item in value.items()}
        raise Problem(f"{dotted} = {value!r}: use a table of lists, such as {{grpc = [100.0, 200.0]}}")
    if annotation.startswith("tuple"):
        if isinstance(value, list):
            item_type = annotation[len("tuple[") :].split(",", maxsplit=1)[0]
            return tuple(_typed(dotted, item, item_type) for item in value)
        raise Problem(f"{dotted} = {value!r}: use a list")
    accepted: dict[str, Any] = {"int": (int,), "float": (int, float), "str": (str,)}
    if isinstance(value, bool) or not isinstance(value, accepted[annotation]):
        words = {"int": "a whole number", "float": "a number without a unit (the key's suffix names it)", "str": "text"}
        raise Problem(f"{dotted} = {value!r}: use {words[annotation]}")
    return float(value) if annotation == "float" else value


def _line_of(text: str, dotted: str) -> int:
    """The line of a dotted key in TOML text (tomllib keeps no positions); its table's line, or 1, as a fallback."""
    *tables, key = dotted.split(".")
    here: list[str] = []
    best = 1
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\s*([\w.\s\"'-]+?)\s*\]", line)
        if header:
            here = [part.strip(" \"'") for part in header[1].split(".")]
            if here == [*tables, key][: len(here)]:
                best = number
            continue
        found = re.match(r"\s*([\w.\"'-]+?)\s*=", line)
        if found:
            path = [*here, *(part.strip("\"'") for part in found[1].split("."))]
            if path == [*tables, key]:
                return number
            if path == tables:  # an inline table
                best = number
    return best
