"""The experiment: one TOML file that says what is measured, validated on load and saved resolved with the results."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from loadtest.experiment import conversion, target_specs
from loadtest.experiment.arrival_shape import Shape
from loadtest.experiment.limits import one_of
from loadtest.experiment.scenarios import (
    SCENARIOS,
    Capacity,
    Ladder,
    Offline,
    Rated,
    Scenario,
    ServerScenario,
    SingleStream,
    Soak,
    Spike,
    section,
)
from loadtest.experiment.settings import Cost, Decision, Generator, Slo, WarmUp
from loadtest.experiment.target_specs import TargetSpec
from loadtest.experiment.toml_lines import line_of
from models.problem import Problem
from serving.profile import ServingProfile
from serving.target import PROTOCOLS

BUILT_IN = Path(__file__).resolve().parents[2] / "experiments"
RUNTIMES = ("process", "container", "kubernetes", "remote")
# Their images hold one model.
ONE_MODEL_RUNTIMES = ("container", "kubernetes")
# Shares of several models may leave this much over: thirds are 0.333.
SHARES_TOLERANCE = 0.005

SEVERAL = "a table of two or more, such as {convnet = 0.7, lenet = 0.3}"
Shares = Annotated[Mapping[str, float], msgspec.Meta(description=SEVERAL)]


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
    scenarios: tuple[str, ...] = ("capacity", "ladder")
    profile: ServingProfile = field(default_factory=ServingProfile)
    slo: Slo = field(default_factory=Slo)
    decision: Decision = field(default_factory=Decision)
    ladder: Ladder = field(default_factory=Ladder)
    capacity: Capacity = field(default_factory=Capacity)
    single_stream: SingleStream = field(default_factory=SingleStream)
    server: ServerScenario = field(default_factory=ServerScenario)
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
            if name == "ladder":
                self._check_own_rate()
            if getattr(self.scenario(name), "arrival", "") == "trace" and not self.arrivals.trace:
                raise Problem(f"{section(name)}.arrival = 'trace': name the file of timestamps as arrivals.trace")

    def _check_own_rate(self) -> None:
        own = self.ladder.rate
        for protocol, rates in self.ladder.rates.items():
            if own and own not in rates:
                raise Problem(f"ladder.rate = {own:g}: it is none of ladder.rates.{protocol}; name it there, too")

    def _check_targets(self) -> None:
        names = self.target_names
        if not names or len(set(names)) != len(names):
            raise Problem(f"targets = {list(names)}: name each once")
        engines: set[str] = set()
        for target in self.targets:
            target.tuned(self.profile)
            if self.runtime != "kubernetes":
                continue
            if target.profile:
                raise Problem(f"target.{target.name}.profile: a cluster's servers share one: use [profile] alone")
            if target.engine in engines:
                raise Problem(
                    f"target.{target.name}: a cluster has one server of {target.engine}: leave one target out"
                )
            engines.add(target.engine)

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

    def with_overload(self, rates: Mapping[str, float]) -> Experiment:
        """The same experiment with the ladder's overload rates (requests/s, by protocol) fixed."""
        return replace(self, ladder=replace(self.ladder, overload_rates=dict(rates)))

    def to_toml(self) -> str:
        """The whole experiment as TOML; `load` reads it back to an equal experiment."""
        import tomlkit  # the load generator's image does not have it

        values = asdict(self)
        del values["model" if self.models else "models"]
        values.update(target_specs.values(self.targets))
        for name in SCENARIOS:
            for key in ("rates", "overload_rates"):
                if not values[section(name)].get(key, True):
                    del values[section(name)][key]
        return tomlkit.dumps(values)


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
    given = dict(overrides or {})
    try:
        _override(values, given)
        return _experiment(values, chosen="targets" in given)
    except Problem as problem:
        key = str(problem).partition(" ")[0].rstrip(":")
        here = any(f"{key}.".startswith(f"{dotted}.") for dotted in given)
        where = "command line" if here else f"{file}:{line_of(text, key)}"
        raise Problem(f"{where}: {problem}") from problem


def _override(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Put what the command line gives, by dotted keys, over the file's values."""
    first = {dotted.partition(".")[0] for dotted in given}
    for key, other in (("model", "models"), ("models", "model")):
        if key in first and other not in first:  # the command line wins
            values.pop(other, None)
    for dotted, value in given.items():
        *tables, key = dotted.split(".")
        place = values
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise Problem(f"{dotted}: {table} is no table")
        place[key] = value


def _experiment(values: dict[str, Any], chosen: bool) -> Experiment:
    """The experiment of a file's values; `chosen`: its targets are the command line's choice of those defined."""
    if "model" in values and "models" in values:
        raise Problem("models: give either model or models")
    tables = values.pop("target", [])
    arguments = conversion.arguments(Experiment, {**values, "targets": []})
    if "models" in arguments and len(arguments["models"]) < 2:
        raise Problem(f"models = {values['models']}: use {SEVERAL}")
    arguments["targets"] = target_specs.parse(values.get("targets"), tables, chosen=chosen)
    return Experiment(**arguments)
