"""The experiment: one TOML file that says what is measured, validated on load and saved resolved with the results."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath
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
from loadtest.experiment.settings import Cost, Decision, Generator, Inputs, Slo, WarmUp
from loadtest.experiment.target_specs import TargetSpec
from loadtest.experiment.toml_lines import line_of
from models import declaration
from models.declaration import Preprocessing
from models.encoding import Encoding
from models.problem import Problem
from serving.engines import registry
from serving.profile import ServingProfile
from serving.target import PROTOCOLS

BUILT_IN = Path(__file__).resolve().parents[2] / "experiments"
RUNTIMES = ("process", "container", "kubernetes", "remote")
# Their images hold one model.
ONE_MODEL_RUNTIMES = ("container", "kubernetes")
# Shares of several models may leave this much over: thirds are 0.333.
SHARES_TOLERANCE = 0.005

# What the user may bring, by the keys that are flags of `python -m models export` as well.
BROUGHT = ("checkpoint", "images", "classes", "savedmodel", "torchscript", "onnx")
OF_ONE = ("checkpoint", "classes")  # which no two models of several share

SEVERAL = "a table of two or more, such as {convnet = 0.7, lenet = 0.3}"
Shares = Annotated[Mapping[str, float], msgspec.Meta(description=SEVERAL)]


@dataclass(frozen=True)
class Experiment:
    """A validated experiment. Raises `Problem`, starting with the dotted key at fault, for an impossible value.

    model   the one model that is served: one of the house, or the user's own as package.module:factory; or
    models  several that each server holds at once, and which share of the requests each one gets
    checkpoint, images, classes, savedmodel, torchscript, onnx  paths of what the user brings: the model's weights (else
        they are trained or, for large models, drawn from the seed), a folder of images, a text file with the classes'
        names, a SavedModel's folder that is the TensorFlow side, a whole model (which is called after its file), an
        ONNX file that the SavedModel is made of; "" for none
    encoding  what clients send of an image: its pixels ("none"), or a JPEG or PNG file
    input, output, preprocessing  what clients send ("224x224x3"; "": as a network of the house takes it), what a user's
        own model gives, and what becomes of pixels in both servers' graphs
    """

    name: str = "default"
    model: str = "convnet"
    models: Shares = field(default_factory=dict)
    dataset: str = "fashion-mnist"
    checkpoint: str = ""
    images: str = ""
    classes: str = ""
    input: str = ""
    output: str = ""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    encoding: Encoding = Encoding.NONE
    savedmodel: str = ""
    torchscript: str = ""
    onnx: str = ""
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
    inputs: Inputs = field(default_factory=Inputs)
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name):
            raise Problem(f"name = {self.name!r}: use 1 to 64 letters, digits, '.', '_' or '-'")
        one_of("runtime", self.runtime, RUNTIMES)
        if self.torchscript:
            object.__setattr__(self, "model", declaration.servable_of(PurePath(self.torchscript)))
        self._check_models()
        self._check_own()
        self._check_targets()
        for key, known in (("protocols", PROTOCOLS), ("scenarios", tuple(SCENARIOS))):
            chosen = getattr(self, key)
            for value in chosen:
                one_of(key, value, known)
            if not chosen or len(set(chosen)) != len(chosen):
                raise Problem(f"{key} = {list(chosen)}: name each once, of {', '.join(known)}")
        self._check_batches()
        self._check_encoding()
        self._check_most_rate()
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

    def _check_batches(self) -> None:
        for name in self.scenarios:
            batch = self.scenario(name).batch
            for target in self.targets:
                most = self.profile_of(target.name).max_batch_size
                if batch > most and not target.endpoint and self.runtime != "remote":  # those say so themselves
                    own = f"target.{target.name}." if "max_batch_size" in target.profile else ""
                    raise Problem(
                        f"{section(name)}.batch = {batch}: {target.name} takes at most {most} images in one request: "
                        f"use no more, or raise {own}profile.max_batch_size"
                    )

    def _check_encoding(self) -> None:
        """What is said of files, where servers are started that take such."""
        if self.encoding is Encoding.NONE:
            return
        said = f"encoding = {self.encoding.value!r}"
        if self.runtime != "process":
            raise Problem(f"{said}: servers take files with runtime = 'process' only; use that, or leave encoding out")
        if self.savedmodel:
            raise Problem(f"{said}: savedmodel is served as it comes, and takes no files; leave one of them out")
        if "rest-binary" in self.protocols:
            raise Problem(f"protocols has rest-binary, and {said}: rest carries the files' own bytes; leave it out")
        for target in self.targets:
            if target.endpoint:
                raise Problem(f"{said}: target.{target.name} is up already; what it is asked, say inputs.payloads")
            if not registry.engine(target.engine).takes_encoded:
                raise Problem(
                    f"{said}: target.{target.name} runs {target.engine}, which takes tensors alone; leave it out"
                )
        for name in self.scenarios:
            if (batch := self.scenario(name).batch) > 1:
                raise Problem(f"{section(name)}.batch = {batch}: with {said} a request carries one file; use batch = 1")

    def _check_most_rate(self) -> None:
        most = self.generator.most_rate
        for key, rate in self.asked_rates.items():
            if most and rate > most:
                raise Problem(f"{key}: asks for up to {rate:g} requests/s, and generator.most_rate allows {most:g}")

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
            tuned = target.tuned(self.profile)
            if tuned.precision.exported is not self.profile.precision.exported:
                raise Problem(
                    f"target.{target.name}.profile.precision = {tuned.precision.value!r}: the graphs of a run compute "
                    f"in {self.profile.precision.exported}; compare two runs of different precision with AGAINST"
                )
            if target.endpoint:
                self._check_endpoint(target)
            if self.runtime != "kubernetes":
                continue
            if target.profile:
                raise Problem(f"target.{target.name}.profile: a cluster's servers share one: use [profile] alone")
            if target.engine in engines:
                raise Problem(
                    f"target.{target.name}: a cluster has one server of {target.engine}: leave one target out"
                )
            engines.add(target.engine)

    def _check_endpoint(self, target: TargetSpec) -> None:
        where, spoken = f"target.{target.name}", registry.engine(target.engine).protocols
        if self.runtime in ONE_MODEL_RUNTIMES:
            raise Problem(
                f"{where}: an endpoint, which runtime = {self.runtime!r} has none of: use runtime = 'process'"
            )
        if self.models:
            raise Problem(f"{where}: an endpoint is asked for one model: name it as model, not as models")
        for protocol in self.protocols:
            if target.endpoint and not target.endpoint.offers(protocol):
                key = "grpc" if protocol == "grpc" else "url"
                raise Problem(
                    f"{where}: protocols has {protocol}: give its {key}, or leave {protocol} out of protocols"
                )
            if protocol not in spoken:
                raise Problem(f"{where}: {target.engine} speaks {', '.join(spoken)}, and protocols has {protocol}")

    def _check_own(self) -> None:
        """What is said of the models' images, where servers are started with them."""
        if not self._starts_servers:
            return
        own = self.own
        if self.models and not own:
            for key in self.declared:
                raise Problem(
                    f"{key}: of one model, or of your own among several: use model, not models, or leave it out"
                )
            return
        if own or self.torchscript:
            said = f"models: {own[0]}" if self.models else f"model = {self.model!r}"
            whose = f"torchscript = {self.torchscript!r}" if self.torchscript else said
            if not self.input:
                raise Problem(f"{whose}: say the size of its images: input = '224x224x3' (INPUT=224x224x3)")
            if self.output:
                declaration.output(self.output)
        elif self.output:
            raise Problem(
                "output: for a model of your own (model = 'package.module:factory'), or torchscript; leave it out"
            )
        shape = declaration.image_shape(self.input) if self.input else None
        self.preprocessing.normalisation(shape[2] if shape else 3)
        if shape:  # without one it is the network's, which the exporter knows
            self.preprocessing.steps(shape)

    def _check_models(self) -> None:
        if not self.models:
            return
        whole = dict.fromkeys(("savedmodel", "torchscript", "onnx"), "one model")
        weights = {"checkpoint": "the weights of one model"} if len(self.own) != 1 else {}
        for key, what in {**weights, **whole}.items():
            if given := getattr(self, key):
                raise Problem(f"{key} = {given!r}: {what}; use model, not models")
        for model, share in self.models.items():
            if not 0 < share < 1:
                raise Problem(f"models.{model} = {share:g}: use a share of the requests between 0 and 1")
        if abs(sum(self.models.values()) - 1) > SHARES_TOLERANCE:
            raise Problem(f"models: the shares add up to {sum(self.models.values()):.4g}, not to 1")
        for name in self.mix:
            if len(alike := [model for model in self.models if self._called(model) == name]) > 1:
                raise Problem(
                    f"models: {' and '.join(alike)} are both called {name} on the servers; rename one of the factories"
                )
        if self.runtime in ONE_MODEL_RUNTIMES:
            raise Problem(
                f"models: runtime = {self.runtime!r} serves one model, which its images hold: name it as model, or use "
                "runtime = 'process' or make loadtest"
            )

    @property
    def endpoints(self) -> tuple[TargetSpec, ...]:
        """The targets that are up already, at addresses that the file gives."""
        return tuple(target for target in self.targets if target.endpoint)

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
    def own(self) -> tuple[str, ...]:
        """The models that factories of the user's own make, where servers are started with them."""
        if not self._starts_servers:
            return ()
        return tuple(model for model in self.models or (self.model,) if declaration.is_factory(model))

    def is_told_of(self, model: str) -> bool:
        """Whether `OF_ONE` and what is declared of images are of this one of the models: of several, they are of the
        user's own."""
        return not self.models or not self.own or model in self.own

    @property
    def declared(self) -> dict[str, Any]:
        """What is said of the images that a model takes, and of what it gives, by its keys."""
        said = {"input": self.input, "output": self.output, "preprocessing": self.preprocessing.declared}
        return {key: value for key, value in said.items() if value}

    @property
    def served(self) -> str:
        """What the one model is called on the servers, and under artifacts/."""
        return self._called(self.model)

    def _called(self, model: str) -> str:
        return declaration.servable(model) if self._starts_servers else model

    @property
    def _starts_servers(self) -> bool:
        return self.runtime != "remote" and not all(target.endpoint for target in self.targets)

    @property
    def mix(self) -> Shares:
        """The models, as the servers call them, and the share of the requests that each one gets."""
        return {self._called(model): share for model, share in (self.models or {self.model: 1.0}).items()}

    def scenario(self, name: str) -> Scenario:
        """The settings of a scenario, by its name."""
        settings: Scenario = getattr(self, section(name))
        return settings

    @property
    def unrated(self) -> dict[str, Rated]:
        """The chosen scenarios whose rates a probe still has to find."""
        chosen = {name: self.scenario(name) for name in self.scenarios}
        return {name: item for name, item in chosen.items() if isinstance(item, Rated) and not item.rates}

    @property
    def asked_rates(self) -> dict[str, float]:
        """The highest rate (requests/s) that each key of the file asks for, as far as no probe decides it."""
        found: dict[str, float] = {}
        for name in self.scenarios:
            item, where = self.scenario(name), section(name)
            if isinstance(item, Rated):
                times = self.peak(name)
                found |= {f"{where}.rates.{protocol}": times * max(rates) for protocol, rates in item.rates.items()}
            if isinstance(item, Ladder):
                above = item.overload_rates.items()
                found |= {f"{where}.overload_rates.{protocol}": times * rate for protocol, rate in above}
                found |= {f"{where}.rate": times * item.rate} if item.rate else {}
        return found

    def peak(self, scenario: str) -> float:
        """How many times its rate a scenario's arrivals ask for at their most."""
        item, shape = self.scenario(scenario), self.arrivals
        if isinstance(item, Spike):
            return item.factor
        return {"spike": max(1.0, shape.spike_factor), "ramp": max(1.0, shape.ramp_from)}.get(
            getattr(item, "arrival", ""), 1.0
        )

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
        values["profile"] = self.profile.to_dict()
        del values["model" if self.models else "models"]
        values["preprocessing"] = self.preprocessing.declared
        values["encoding"] = "" if self.encoding is Encoding.NONE else self.encoding.value
        for key in (*BROUGHT, "input", "output", "preprocessing", "encoding"):
            if not values[key]:
                del values[key]
        values.update(target_specs.values(self.targets))
        for name in SCENARIOS:
            for key in ("rates", "overload_rates"):
                if not values[section(name)].get(key, True):
                    del values[section(name)][key]
        return tomlkit.dumps(values)


def load(name: str, overrides: Mapping[str, Any] | None = None, beside: Path | None = None) -> Experiment:
    """Read an experiment: the name of a built-in one ("default", "smoke") or the path of a TOML file.

    `overrides` (dotted key to value) win over the file, and over that of `beside`, a TOML file which wins over it, too:
    it holds the targets, and whatever else is theirs. Raises `Problem` with file, line and key for anything that
    cannot be measured.
    """
    path = BUILT_IN / f"{name}.toml" if re.fullmatch(r"[\w-]+", name) else Path(name)
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in BUILT_IN.glob("*.toml")))
        raise Problem(f"experiment {name!r}: {error.strerror}; use a TOML file's path or one of {known}") from error
    except UnicodeDecodeError as error:
        raise Problem(f"{path}: not UTF-8 text; an experiment is a TOML file") from error
    return parse(text, str(path), overrides, _read(beside) if beside else None)


def said(name: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What somebody says themselves of an experiment that `load` has read, by dotted keys: on the command line, and in
    a file of their own. What a built-in one has is only how things are where nobody says anything."""
    built_in = re.fullmatch(r"[\w-]+", name)
    own = {} if built_in else _dotted(_values(Path(name).read_text("utf-8-sig"), name))
    return {**own, **_dotted(overrides)}


def _read(path: Path) -> tuple[str, str]:
    """A file's name and text."""
    try:
        return str(path), path.read_text("utf-8-sig")
    except OSError as error:
        raise Problem(f"{path}: {error.strerror}; give the file of your targets") from error
    except UnicodeDecodeError as error:
        raise Problem(f"{path}: not UTF-8 text; targets stand in a TOML file") from error


def override(argument: str) -> tuple[str, Any]:
    """Parse "KEY=VALUE" (a dotted key, a TOML value or plain text) into a key and a value."""
    key, equals, value = argument.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key.strip()):
        raise Problem(f"--set {argument}: use KEY=VALUE, such as ladder.duration_s=10")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def parse(
    text: str,
    file: str = "experiment",
    overrides: Mapping[str, Any] | None = None,
    beside: tuple[str, str] | None = None,
) -> Experiment:
    """Parse and validate an experiment's TOML text; `file` names it in errors. `beside`: the name and text of the file
    that wins over it."""
    values, above = _values(text, file), _values(beside[1], beside[0]) if beside else {}
    given = dict(overrides or {})
    try:
        if "target" in above or "targets" in above:
            values = {key: value for key, value in values.items() if key not in ("target", "targets")}
        _override(values, _dotted(above))
        _override(values, given)
        if beside and not any(key.partition(".")[0] == "protocols" for key in (*above, *given)):
            _only_offered(values)
        if beside:
            _only_rates_of_protocols(values, given=_dotted(above))
        return _experiment(values, chosen="targets" in given)
    except Problem as problem:
        key = str(problem).partition(" ")[0].rstrip(":")
        here = any(f"{key}.".startswith(f"{dotted}.") for dotted in given) or (given and _is_fine(text, file, beside))
        if beside and key.partition(".")[0] in above:
            file, text = beside
        where = "command line" if here else f"{file}:{line_of(text, key)}"
        raise Problem(f"{where}: {problem}") from problem


def _is_fine(text: str, file: str, beside: tuple[str, str] | None) -> bool:
    """Whether the files alone are an experiment, so that it is the command line that makes them none."""
    try:
        parse(text, file, None, beside)
    except Problem:
        return False
    return True


def _values(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Problem(f"{file}: not valid TOML: {error}") from error


def _dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a file's sections by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and key != "models":
            found.update({f"{key}.{inner}": one for inner, one in value.items()})
        else:
            found[key] = value
    return found


def _only_offered(values: dict[str, Any]) -> None:
    """Of the protocols that an experiment would use, those that all of its endpoints have an address for."""
    tables = [
        table for table in values.get("target", []) if isinstance(table, dict) and ("url" in table or "grpc" in table)
    ]
    asked = values.get("protocols", list(Experiment.protocols))
    if tables and isinstance(asked, list):
        engines = [registry.find(str(table.get("engine"))) for table in tables]
        offered = [
            protocol
            for protocol in dict.fromkeys([*asked, *PROTOCOLS])
            if all(("grpc" if protocol == "grpc" else "url") in table for table in tables)
            and all(protocol in engine.protocols for engine in engines if engine)
        ]
        if not offered:
            raise Problem("target: its endpoints share no protocol: give each a url, or each a grpc address")
        values["protocols"] = [one for one in offered if one in asked] or offered[:1]


def _only_rates_of_protocols(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Leave out an experiment's rates for protocols that its targets are not asked over, but for those ``given`` with
    them."""
    for name in map(section, SCENARIOS):
        for key in ("rates", "overload_rates"):
            rates = values.get(name, {}).get(key) if isinstance(values.get(name), dict) else None
            if isinstance(rates, dict) and f"{name}.{key}" not in given:
                asked = values.get("protocols", Experiment.protocols)
                values[name][key] = {protocol: rate for protocol, rate in rates.items() if protocol in asked}


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
