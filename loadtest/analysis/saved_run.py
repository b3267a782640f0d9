"""A run read back from its folder: plain files in, values and arrays out. All that is reported comes from here."""

from __future__ import annotations

import csv
import json
import math
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.analysis.statistics import Intervals, read_intervals
from loadtest.experiment.run_folder import manifest_name
from loadtest.generator.trial_files import model_log
from models.problem import Problem

Values = dict[str, Any]


@dataclass(frozen=True)
class SavedTrial:
    """One repetition of one rate on one target, as saved.

    record     trial.json
    warm_up    its warm-up.json, or None
    server     server.json (what Prometheus knew), or None
    """

    folder: Path
    record: Values
    warm_up: Values | None
    server: Values | None

    @property
    def key(self) -> tuple[str, str, str, float]:
        """(target, protocol, scenario, offered rate): equal for repetitions of one measurement."""
        record = self.record
        return record["target"], record["protocol"], record.get("scenario", "ladder"), float(record["offered_rate"])

    @property
    def seconds(self) -> int:
        """Measured seconds, rounded up to whole ones."""
        return max(1, math.ceil(self.record["duration_s"]))

    def intervals(self, model: str = "") -> Intervals:
        """The latency histograms by the second, of one of several models or of all requests. Raises `Problem` for a
        missing or damaged log."""
        path = model_log(self.folder, model) if model else self.folder / "latency.hlog"
        return read_intervals(path, self.seconds)

    def timeline(self) -> list[dict[str, float | None]]:
        """timeline.csv, a row a second; empty where there is none. Cells that hold no number are None."""
        return _rows(self.folder / "timeline.csv")

    def server_timeline(self) -> list[dict[str, float | None]]:
        """server-timeline.csv (what Prometheus saw of the server, a row a second), read as `timeline`."""
        return _rows(self.folder / "server-timeline.csv")


@dataclass(frozen=True)
class SavedRun:
    """A run's folder as values; what a run did not save is empty or None.

    manifest   of the model, or the first of several; `manifests`: of each, by name, where there are several
    """

    folder: Path
    experiment: Values
    experiment_text: str
    environment: Values
    manifest: Values | None
    wire_parity: Values | None
    targets: list[Values]
    trials: list[SavedTrial]
    searches: list[Values]
    model_times: Values
    manifests: Values

    @property
    def mix(self) -> dict[str, float]:
        """The models and their shares of the requests, where the experiment has several; else empty."""
        return dict(self.experiment.get("models") or {})

    @property
    def stacks(self) -> list[str]:
        """The targets in the experiment's order, then any others that were measured."""
        asked = [str(name) for name in self.experiment.get("targets", [])]
        return list(dict.fromkeys([*asked, *(trial.key[0] for trial in self.trials)]))

    @property
    def wire_targets(self) -> Values:
        """What wire parity found of each target: of the model, or of the first of several; empty where not saved."""
        parity = self.wire_parity or {}
        if self.mix:
            parity = (parity.get("models") or {}).get(next(iter(self.mix))) or {}
        return parity.get("targets") or {}

    def target(self, stack: str) -> Values:
        """The saved `Target` of a stack; empty where it never came up."""
        return next((target for target in self.targets if target.get("name") == stack), {})

    def samples(self) -> dict[str, np.ndarray] | None:
        """wire-samples.npz: some test images with labels and the reference's probabilities; None where not saved."""
        path = self.folder / "wire-samples.npz"
        try:
            with np.load(path) as saved:
                return {name: saved[name] for name in ("indices", "images", "labels", "probabilities")}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise Problem(f"{path}: cannot be read ({error}); delete it and build the report again") from error

    def servers(self) -> list[tuple[str, str]]:
        """(path in the run's folder, text) of each rendered server configuration, one start of each server."""
        found: dict[str, tuple[str, str]] = {}
        for path in sorted((self.folder / "servers").glob("*/**/*")):
            relative = path.relative_to(self.folder)
            stack = relative.parts[1].rpartition("-")[0] or relative.parts[1]
            name = "/".join([stack, *relative.parts[2:]])
            if path.is_file() and path.suffix in CONFIGURATION and path.stat().st_size < 100_000 and name not in found:
                found[name] = (str(relative), path.read_text(errors="replace"))
        return list(found.values())


CONFIGURATION = (".properties", ".yaml", ".yml", ".xml", ".txt", ".config", ".pbtxt", ".json", ".toml")


def load(folder: Path) -> SavedRun:
    """Read a run. Raises `Problem` for a folder that is no run, and for a damaged file, by name."""
    if not folder.is_dir():
        raise Problem(f"{folder}: no such run; name a folder under results/")
    text = _text(folder / "experiment.toml")
    if text is None:
        raise Problem(f"{folder}: no experiment.toml in it, so it is not a run; name a folder under results/")
    try:
        experiment = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Problem(f"{folder / 'experiment.toml'}: not valid TOML: {error}") from error
    models = list(experiment.get("models") or {})
    return SavedRun(
        folder=folder,
        experiment=experiment,
        experiment_text=text,
        environment=_json(folder / "environment.json") or {},
        manifest=_json(folder / manifest_name()),
        manifests={name: _json(folder / manifest_name(name if number else "")) for number, name in enumerate(models)},
        wire_parity=_json(folder / "wire-parity.json"),
        targets=_json(folder / "targets.json") or [],
        trials=[_trial(folder, path) for path in sorted((folder / "trials").glob("[!.]*/trial.json"))],
        searches=[_json(path) for path in sorted((folder / "searches").glob("[!.]*/search.json"))],
        model_times=_json(folder / "model-time.json") or {},
    )


def _trial(folder: Path, path: Path) -> SavedTrial:
    record = _json(path)
    for key in ("target", "protocol", "offered_rate", "duration_s", "requests"):
        if not isinstance(record, Mapping) or key not in record:
            raise Problem(f"{path}: no {key!r} in it; delete the folder and run again to repeat the trial")
    warm_up = record.get("warm_up")
    return SavedTrial(
        folder=path.parent,
        record=record,
        warm_up=_json(folder / "warm-ups" / str(warm_up) / "warm-up.json") if warm_up else None,
        server=_json(path.parent / "server.json"),
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"{path}: cannot be read ({error})") from error


def _json(path: Path) -> Any:
    text = _text(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise Problem(f"{path}: not valid JSON ({error}); run the experiment again") from error


def _rows(path: Path) -> list[dict[str, float | None]]:
    try:
        with path.open(newline="") as lines:
            return [{key: _number(cell) for key, cell in row.items()} for row in csv.DictReader(lines)]
    except FileNotFoundError:
        return []


def _number(cell: str | None) -> float | None:
    try:
        return float(cell) if cell else None
    except ValueError:
        return None
