"""What a run's folder holds beside its trials, as far as results are made from it: the resolved experiment, the
environment, the targets, the bundles' manifests, wire parity, and the model's own time. Keys that no result needs are
passed over, those that a file does not have are None or empty."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from loadtest.analysis.records import EncodedImages, ExperimentInfo, FromFp32, OwnFile, WireParity
from loadtest.experiment import records as saved
from loadtest.experiment.records import Environment, RightAnswers
from models.bundle import Kind, Weights, WhyLeftOut
from models.precision import Precision
from models.problem import Problem
from serving.engines.engine import Backend, Knob, Switch
from serving.target import Caveat

_Kind = TypeVar("_Kind")


class Export(msgspec.Struct, frozen=True):
    """What the parity gate found of an export; only the reference has no ``max_abs_diff``. ``tolerance``: where it is
    another than the others'."""

    accuracy: float | None = None
    max_abs_diff: float | msgspec.UnsetType | None = msgspec.UNSET
    top1_agreement: float | None = None
    tolerance: float | None = None


class NotAsked(msgspec.Struct, frozen=True):
    """Why the parity gate could not ask an export."""

    why: WhyLeftOut


class Gate(msgspec.Struct, frozen=True):
    """The parity gate of a bundle: how many samples, what was allowed, each export's figures, those that could not be
    asked, and how far the reference lies from float32, where that is not what it is."""

    samples: int | None = None
    tolerance: float | None = None
    exports: dict[str, Export] = {}
    left_out: dict[str, NotAsked] = {}
    from_fp32: FromFp32 | None = None


class Dataset(msgspec.Struct, frozen=True):
    """The names of a data set's classes."""

    class_names: tuple[str, ...] = ()


class Training(msgspec.Struct, frozen=True):
    """The trained model's accuracy on the test split, a share."""

    test_accuracy: float | None = None


class Manifest(msgspec.Struct, frozen=True):
    """A bundle's manifest.json; ``files``: name → sha256; ``own_files``: of the user's
    own, by their kind; ``encoding``: the files that clients send; bundles of before ``weights`` was said were
    trained."""

    version: int | str | None = None
    weights: Weights | None = None
    parity: Gate | None = None
    training: Training | None = None
    dataset: Dataset | None = None
    files: dict[str, str] = {}
    own_files: dict[Kind, OwnFile] = {}
    encoding: EncodedImages | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The data set's class names; empty where the bundle has none."""
        return self.dataset.class_names if self.dataset else ()


class WireResult(msgspec.Struct, frozen=True):
    """wire-parity.json of one model: target → protocol → what was found, where these answers were right."""

    right: RightAnswers = RightAnswers.REFERENCE
    samples: int | None = None
    tolerance: float | None = None
    targets: dict[str, dict[str, WireParity]] = {}


class WireResults(WireResult, frozen=True):
    """wire-parity.json: of one model, or of each of several (``models``)."""

    models: dict[str, WireResult] = {}


class SavedTarget(msgspec.Struct, frozen=True):
    """A target as targets.json has it, as far as results tell of it. Before summary format 2 it had its name as
    ``stack``, and instead of knobs ``settings``, a server's own keys and their values."""

    name: str | None = None
    stack: str | None = None
    engine: str | None = None
    engine_version: str | None = None
    runtime: str | None = None
    model: str | None = None
    version: int | str | None = None
    cores: tuple[int, ...] = ()
    knobs: tuple[Knob, ...] = ()
    switches: tuple[Switch, ...] = ()
    backend: Backend | None = None
    precision: Precision = Precision.FP32
    caveats: tuple[Caveat, ...] = ()
    output: str = ""
    settings: dict[str, Any] = {}


class ModelTime(msgspec.Struct, frozen=True):
    """The model alone: images in a batch → mean milliseconds of a call, or what prevented it, the ``problem``;
    ``decoding_ms``: of decoding as many files, where clients sent such."""

    ms: dict[str, float] = {}
    decoding_ms: dict[str, float] = {}
    problem: str | None = None


def experiment(path: Path) -> tuple[ExperimentInfo, str] | None:
    """The resolved experiment and its file's text; None where there is no such file. Raises `Problem`."""
    text = _text(path)
    if text is None:
        return None
    try:
        values = tomllib.loads(text)
        tables = values.pop("target", [])
        known = {key: value for key, value in values.items() if key in ExperimentInfo.__struct_fields__}
        tuned = {table["name"]: table["profile"] for table in tables if table.get("profile")}
        sections = {key: value for key, value in values.items() if key not in known}  # in the file's order
        found = {**known, "overrides": tuned, "sections": sections}
        return msgspec.convert(found, ExperimentInfo), text
    except tomllib.TOMLDecodeError as error:
        raise Problem(f"{path}: not valid TOML: {error}") from error
    except (msgspec.ValidationError, AttributeError, KeyError, TypeError, Problem) as error:
        raise Problem(f"{path}: not an experiment: {error}; run the experiment again") from error


def targets(path: Path) -> list[SavedTarget]:
    """targets.json; empty where there is none. Raises `Problem`."""
    found = read(path, list[SavedTarget]) or []
    return [msgspec.structs.replace(one, name=one.name or one.stack, stack=None) for one in found]


def environment(path: Path) -> Environment:
    """environment.json; empty where there is none. Raises `Problem`."""
    return saved.read_environment(path) or Environment()


def read(path: Path, kind: type[_Kind]) -> _Kind | None:
    """A JSON file as one of this module's records, or a list or mapping of them; None where there is no such file.
    Raises `Problem`."""
    values = json_values(path)
    try:
        return None if values is None else msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise Problem(f"{path}: {error}; run the experiment again") from error


def json_values(path: Path) -> Any:
    """A JSON file's values; None where there is no such file. Raises `Problem`."""
    text = _text(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise Problem(f"{path}: not valid JSON ({error}); run the experiment again") from error


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"{path}: cannot be read ({error})") from error
