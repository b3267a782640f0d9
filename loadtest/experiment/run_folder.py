"""One run's folder under results/: what has been measured, and what is still to do."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from loadtest.experiment import file as experiments
from loadtest.experiment import records
from loadtest.experiment.file import Experiment
from loadtest.experiment.phases import Phase, SearchPhase, WarmUpPhase
from loadtest.experiment.records import Environment, RunNote, SearchRecord, WarmUpRecord
from loadtest.experiment.standing import Standing
from models import in_use, whole_file
from models.problem import Problem


class RunFolder:
    """A run's folder. It is created for a requested experiment and a bundle, and found again by both, so that a
    killed run goes on where it was."""

    def __init__(self, path: Path) -> None:
        # Processes beside this one, the load generator among them, work in another folder.
        self.path = path.absolute()

    @classmethod
    def open(cls, results: Path, requested: Experiment, bundle_digest: str, fresh: bool = False) -> RunFolder:
        """The newest unfinished run of this experiment and bundle, or a new one; `results/latest` points to it."""
        run = None if fresh else cls._unfinished(results, requested, bundle_digest)
        if run is None:
            path = _new_folder(results, f"{time.strftime('%Y%m%d-%H%M%S')}-{requested.name}")
            run = cls(path)
            run.save_experiment(requested)
            state = {"requested": requested.to_toml(), "bundle": bundle_digest, "finished": False}
            whole_file.write_json(path / "run.json", state)
        _point(results / "latest", run.path)
        return run

    @classmethod
    def _unfinished(cls, results: Path, requested: Experiment, bundle_digest: str) -> RunFolder | None:
        for path in sorted(results.glob("*/run.json"), reverse=True):
            if path.parent.is_symlink():
                continue
            with contextlib.suppress(OSError, ValueError, Problem):
                state = json.loads(path.read_text())
                same = state["bundle"] == bundle_digest and experiments.parse(state["requested"]) == requested
                if same and not state["finished"]:
                    return cls(path.parent)
        return None

    def alone(self) -> AbstractContextManager[None]:
        """While this is entered nobody else goes on with the run. Raises `Problem` where another process does."""
        return in_use.alone(
            self.path,
            "this run is going on",
            "wait for its end, stop it there with Ctrl-C, or begin another one with --fresh (make: ARGS=--fresh)",
        )

    def finish(self) -> None:
        """Mark the run as complete: the same command then starts a new one."""
        state = json.loads((self.path / "run.json").read_text())
        whole_file.write_json(self.path / "run.json", {**state, "finished": True})

    @property
    def reference(self) -> Path:
        """What servers are asked and what is right to answer, in a run without a bundle."""
        return self.path / "reference.npz"

    def experiment(self) -> Experiment:
        """The experiment as resolved so far (with the ladder's rates once they are chosen)."""
        return experiments.load(str(self.path / "experiment.toml"))

    def save_experiment(self, resolved: Experiment) -> None:
        """Save the resolved experiment: running this file repeats the experiment."""
        whole_file.write_text(self.path / "experiment.toml", resolved.to_toml())

    def read(self, name: str, default: Any = None) -> Any:
        """A JSON file of the run, or `default` where there is none."""
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return default

    def write(self, name: str, values: Any) -> None:
        """Write a JSON file of the run, whole or not at all."""
        whole_file.write_json(self.path / name, values)

    def note(self, note: RunNote) -> bool:
        """Write down what a reader of the results should know, in environment.json; whether it is new."""
        known = self.environment()
        if note in known.warnings:
            return False
        self.save_environment(msgspec.structs.replace(known, warnings=(*known.warnings, note)))
        return True

    @property
    def has_environment(self) -> bool:
        """Whether it is known where the run takes place."""
        return (self.path / "environment.json").exists()

    def environment(self) -> Environment:
        """Where the run takes place; empty where that is not known yet. Raises `Problem` for a damaged file."""
        return records.read_environment(self.path / "environment.json") or Environment()

    def save_environment(self, environment: Environment) -> None:
        """Write environment.json, whole or not at all."""
        whole_file.write_text(self.path / "environment.json", records.encode(environment))

    def trial(self, trial_id: str) -> Path:
        """The folder of one trial."""
        return self.path / "trials" / trial_id

    def measured(self, trial_id: str) -> bool:
        """Whether that trial (or search) has ended and its results are here."""
        return (self.trial(trial_id) / "trial.json").exists() or (self.search(trial_id) / "search.json").exists()

    def search(self, trial_id: str) -> Path:
        """The folder of one capacity search."""
        return self.path / "searches" / trial_id

    def trials(self) -> list[Path]:
        """The folders of all trials that have ended."""
        return sorted(path.parent for path in self.path.glob("trials/[!.]*/trial.json"))

    def put_aside(self, phases: Iterable[Phase]) -> None:
        """Move what these phases have measured to `replaced/`, out of the results: another server may have answered."""
        for phase in phases:
            name = phase.folder.name
            found = [self.path / "warm-ups" / name] if isinstance(phase, WarmUpPhase) else [self.trial(name)]
            if isinstance(phase, SearchPhase):
                found = [self.search(name), *self.tried(name)]
            for folder in filter(Path.exists, found):
                place = self.new_folder("replaced", folder.name)
                place.parent.mkdir(exist_ok=True)
                folder.rename(place)

    def tried(self, search: str) -> list[Path]:
        """The folders of the trials that a search has made, also where it has not ended."""
        named = re.compile(rf"{re.escape(search)}-\d+")
        return sorted(path for path in (self.path / "trials").glob("[!.]*") if named.fullmatch(path.name))

    def searches(self) -> list[SearchRecord]:
        """All capacity searches that have ended."""
        return [records.read_search(path) for path in sorted(self.path.glob("searches/[!.]*/search.json"))]

    def warm_ups(self) -> list[WarmUpRecord]:
        """All warm-ups that have ended, each with its folder's name as its id."""
        return [records.read_warm_up(path) for path in sorted(self.path.glob("warm-ups/[!.]*/warm-up.json"))]

    def save_decisions(self, planned: Sequence[int], standings: Sequence[Standing], *, over: bool) -> None:
        """Write decisions.json, whole or not at all: after how many starts the run looks, and how its questions stand;
        ``over``: when it has ended."""
        values = records.Decisions(
            looks=tuple(planned),
            over=over,
            questions=tuple(
                records.DecidedQuestion(
                    metric=one.question.metric,
                    family=one.question.family,
                    protocol=one.question.protocol,
                    compared=one.question.compared,
                    rate=one.question.rate,
                    starts=one.starts,
                    decided=one.decision.decided,
                    p_adjusted=one.decision.p_adjusted,
                )
                for one in standings
            ),
        )
        whole_file.write_text(self.path / "decisions.json", records.encode(values))

    def new_folder(self, parent: str, stem: str) -> Path:
        """A folder name `parent/stem-N` that is not taken yet (the folder is not created)."""
        number = 1
        while (path := self.path / parent / f"{stem}-{number}").exists():
            number += 1
        return path


def resolve(run: str) -> Path:
    """The folder of an existing run; `Problem` where it is none."""
    path = Path(run)
    if not (path / "experiment.toml").is_file():
        raise Problem(f"{run}: not a run's folder (no experiment.toml in it); give one under results/, or make compare")
    return path.resolve()


def manifest_name(beside: str = "") -> str:
    """The file in a run's folder that holds the bundle's manifest, or that of another model, `beside` the first."""
    return f"bundle-manifest-{beside}.json" if beside else "bundle-manifest.json"


def _new_folder(results: Path, stem: str) -> Path:
    try:
        results.mkdir(parents=True, exist_ok=True)
        for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
            path = results / f"{stem}{suffix}"
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return path
    except OSError as error:
        raise Problem(f"{results}: cannot create a run's folder there: {error.strerror}") from error
    raise Problem(f"{results}: a thousand runs called {stem}; delete some")


def _point(link: Path, target: Path) -> None:
    with whole_file.replacing(link) as partial:
        partial.symlink_to(target.name)
