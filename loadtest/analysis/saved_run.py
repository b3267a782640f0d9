"""A run read back from its folder: plain files in, values and arrays out. All that is reported comes from here."""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from loadtest.analysis import run_files
from loadtest.analysis.records import ExperimentInfo, WireParity
from loadtest.analysis.run_files import Manifest, ModelTime, SavedTarget, WireResult, WireResults
from loadtest.analysis.statistics import Intervals, read_intervals
from loadtest.experiment import records as saved
from loadtest.experiment.meter_records import DeviceUse
from loadtest.experiment.records import Decisions, Environment, SearchRecord, ServerFigures, TrialRecord, WarmUpRecord
from loadtest.experiment.run_folder import manifest_name
from models import declaration
from models.problem import Problem

# (target, protocol, scenario, offered rate)
Key = tuple[str, str, str, float]


@dataclass(frozen=True)
class SavedTrial:
    """One repetition of one rate on one target, as saved.

    record     trial.json
    warm_up    its warm-up.json, or None
    server     server.json (what Prometheus knew), or None
    use        devices.json (what the machine's meters counted), or None
    """

    folder: Path
    record: TrialRecord
    warm_up: WarmUpRecord | None
    server: ServerFigures | None
    use: DeviceUse | None = None

    @property
    def key(self) -> Key:
        """(target, protocol, scenario, offered rate): equal for repetitions of one measurement."""
        record = self.record
        return record.target, record.protocol, record.scenario, record.offered_rate

    @property
    def seconds(self) -> int:
        """Measured seconds, rounded up to whole ones."""
        return max(1, math.ceil(self.record.duration_s))

    def intervals(self, model: str = "") -> Intervals:
        """The latency histograms by the second, of one of several models or of all requests. Raises `Problem` for a log
        that is missing, damaged, or holds other numbers of answers than trial.json says."""
        path = self.folder / (f"latency-{model}.hlog" if model else "latency.hlog")
        found = read_intervals(path, self.seconds)
        counted = (self.record.by_model or {})[model].requests if model else self.record.requests
        _agree(path, "answers", int(found.counts.sum()), counted.ok)
        return found

    def timeline(self) -> list[dict[str, float | None]]:
        """timeline.csv, a row a second; empty where there is none. Cells that hold no number are None."""
        return _rows(self.folder / "timeline.csv")

    def server_timeline(self) -> list[dict[str, float | None]]:
        """server-timeline.csv (what Prometheus saw of the server, a row a second), read as `timeline`."""
        return _rows(self.folder / "server-timeline.csv")


@dataclass(frozen=True)
class SavedRun:
    """A run's folder as values; what a run did not save is empty or None.

    manifest     of the model, or the first of several; `manifests`: of each, by name, where there are several
    model_times  target → the model's own time on its engine
    """

    folder: Path
    experiment: ExperimentInfo
    experiment_text: str
    environment: Environment
    manifest: Manifest | None
    manifests: dict[str, Manifest | None]
    wire_parity: WireResults | None
    targets: list[SavedTarget]
    trials: list[SavedTrial]
    searches: list[SearchRecord]
    decisions: Decisions
    model_times: dict[str, ModelTime]

    @property
    def mix(self) -> dict[str, float]:
        """The models as the servers call them and their shares of the requests, where there are several; else empty."""
        return _mix(self.experiment)

    @property
    def unsteady(self) -> frozenset[str]:
        """The ids of warm-ups that did not get steady."""
        unsteady = (trial.record.warm_up for trial in self.trials if trial.warm_up and not trial.warm_up.steady)
        return frozenset(one for one in unsteady if one)

    @property
    def start_s(self) -> float | None:
        """How long one start of a target took, with what was measured on it to decide the run's questions: the median,
        so that an interruption does not count. None for fewer than two starts."""
        began: dict[tuple[str, int], float] = {}
        for trial in self.trials:
            if trial.key[2] in ("ladder", "capacity"):
                start = trial.record.target, trial.record.repetition
                began[start] = min(began.get(start, math.inf), trial.record.started_at)
        times = sorted(began.values())
        return median(after - before for before, after in pairwise(times)) if len(times) > 1 else None

    @property
    def target_names(self) -> list[str]:
        """The targets in the experiment's order, then any others that were measured."""
        return list(dict.fromkeys([*self.experiment.targets, *(trial.key[0] for trial in self.trials)]))

    @property
    def protocols(self) -> list[str]:
        """The protocols in the experiment's order, then any others that were measured."""
        return list(dict.fromkeys([*self.experiment.protocols, *sorted(trial.key[1] for trial in self.trials)]))

    def wire(self, model: str = "") -> WireResult | None:
        """What wire parity found, of one of several models or of the only one; None where not saved."""
        if self.wire_parity is None:
            return None
        return self.wire_parity.models.get(model) if model else self.wire_parity

    @property
    def wire_targets(self) -> dict[str, dict[str, WireParity]]:
        """What wire parity found of each target: of the model, or of the first of several; empty where not saved."""
        found = self.wire(next(iter(self.mix), ""))
        return found.targets if found else {}

    def target(self, name: str) -> SavedTarget:
        """A target as it was saved; empty where it never came up."""
        return next((target for target in self.targets if target.name == name), SavedTarget())

    def samples(self) -> dict[str, np.ndarray] | None:
        """wire-samples.npz: some test images with labels and the reference's probabilities; None where not saved."""
        path = self.folder / "wire-samples.npz"
        try:
            with np.load(path) as kept:
                return {name: kept[name] for name in ("indices", "images", "labels", "probabilities")}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise Problem(f"{path}: cannot be read ({error}); delete it and build the report again") from error

    def servers(self) -> list[tuple[str, str]]:
        """(path in the run's folder, text) of each rendered server configuration, one start of each server."""
        found: dict[str, tuple[str, str]] = {}
        for path in sorted((self.folder / "servers").glob("*/**/*")):
            relative = path.relative_to(self.folder)
            target = relative.parts[1].rpartition("-")[0] or relative.parts[1]
            name = "/".join([target, *relative.parts[2:]])
            if path.is_file() and path.suffix in CONFIGURATION and path.stat().st_size < 100_000 and name not in found:
                found[name] = (str(relative), path.read_text(errors="replace"))
        return list(found.values())


CONFIGURATION = (".properties", ".yaml", ".yml", ".xml", ".txt", ".config", ".pbtxt", ".json", ".toml")


def load(folder: Path) -> SavedRun:
    """Read a run. Raises `Problem` for a folder that is no run, and for a damaged file, by name."""
    if not folder.is_dir():
        raise Problem(f"{folder}: no such run; name a folder under results/")
    asked = run_files.experiment(folder / "experiment.toml")
    if asked is None:
        raise Problem(f"{folder}: no experiment.toml in it, so it is not a run; name a folder under results/")
    experiment, text = asked
    models = list(_mix(experiment))
    searches = [saved.read_search(path) for path in sorted((folder / "searches").glob("[!.]*/search.json"))]
    _check_searches(folder, searches)
    return SavedRun(
        folder=folder,
        experiment=experiment,
        experiment_text=text,
        environment=run_files.environment(folder / "environment.json"),
        manifest=run_files.read(folder / manifest_name(), Manifest),
        manifests={
            name: run_files.read(folder / manifest_name(name if number else ""), Manifest)
            for number, name in enumerate(models)
        },
        wire_parity=run_files.read(folder / "wire-parity.json", WireResults),
        targets=run_files.targets(folder / "targets.json"),
        trials=[_trial(folder, path) for path in sorted((folder / "trials").glob("[!.]*/trial.json"))],
        searches=searches,
        decisions=saved.read_decisions(folder / "decisions.json") or Decisions(looks=()),
        model_times=run_files.read(folder / "model-time.json", dict[str, ModelTime]) or {},
    )


def _mix(experiment: ExperimentInfo) -> dict[str, float]:
    if experiment.runtime == "remote":
        return experiment.models
    return {declaration.servable(model): share for model, share in experiment.models.items()}


def _agree(path: Path, what: str, held: int, counted: int) -> None:
    """Raise `Problem` where a file does not hold as many of something as its trial.json counted."""
    if held != counted:
        raise Problem(
            f"{path}: holds {held:,} {what}, and trial.json beside it counted {counted:,}: one of them is damaged; "
            "delete the folder and run again to repeat the trial"
        )


def _check_timeline(trial: SavedTrial) -> None:
    """Raise `Problem` where a trial's timeline.csv, if it has one, is of other requests than its trial.json."""
    path, rows, record = trial.folder / "timeline.csv", trial.timeline(), trial.record
    if not path.exists():
        return
    counted = {
        "scheduled": record.requests.scheduled,
        "sent": record.requests.sent,
        "ok": record.requests.ok,
        "errors": sum(record.errors.values()),
    }
    for column, count in counted.items():
        _agree(path, f"requests as {column}", round(sum(row.get(column) or 0.0 for row in rows)), count)


def _check_server_timeline(trial: SavedTrial) -> None:
    """Raise `Problem` where a trial's server-timeline.csv, if it has one, is of another length than the trial."""
    path, passed = trial.folder / "server-timeline.csv", trial.record.ended_at - trial.record.started_at
    if path.exists() and len(trial.server_timeline()) != math.ceil(passed):
        _agree(path, "seconds", len(trial.server_timeline()), math.ceil(round(passed, 3)))


def _check_searches(folder: Path, searches: Sequence[SearchRecord]) -> None:
    """Raise `Problem` where a trial is missing that a search tried."""
    for search in searches:
        for step in search.steps:
            if step.trial and not (folder / "trials" / step.trial / "trial.json").exists():
                raise Problem(
                    f"{folder}/trials/{step.trial}: missing, and searches/{search.id}/search.json tried it; run again "
                    "to repeat the trial"
                )


def _trial(folder: Path, path: Path) -> SavedTrial:
    record = saved.read_trial(path)
    warm_up, server = folder / "warm-ups" / str(record.warm_up) / "warm-up.json", path.parent / "server.json"
    trial = SavedTrial(
        folder=path.parent,
        record=record,
        warm_up=saved.read_warm_up(warm_up) if record.warm_up else None,
        server=saved.read_server(server) if server.exists() else None,
        use=saved.read_use(path.parent / "devices.json"),
    )
    _check_timeline(trial)
    _check_server_timeline(trial)
    return trial


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
