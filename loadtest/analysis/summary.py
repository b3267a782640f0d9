"""The summary of a run: everything that it measured, with intervals, merged from its saved data alone; summary.json."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from loadtest.analysis import capacity, decomposition, measurements, rankings, saved_run, validity, verdicts
from loadtest.analysis.records import (
    FORMAT,
    Capacity,
    MeasuredOnce,
    ModelShare,
    NotFinished,
    NotItsOwnBackend,
    NotMeasured,
    Parity,
    ParityNotProven,
    StandIn,
    Summary,
    SummaryWarning,
    TargetInfo,
    TrialsMissing,
)
from loadtest.analysis.run_files import SavedTarget
from loadtest.analysis.saved_run import SavedRun
from loadtest.experiment import decision, starts
from loadtest.experiment.records import StoodIn
from loadtest.experiment.settings import Slo
from loadtest.experiment.starts import Figures
from models import whole_file
from models.bundle import Weights
from models.problem import Problem
from serving.engines import registry
from serving.engines.engine import Knob

FILE = "summary.json"


def build(run_folder: Path) -> Summary:
    """The summary of a run; the same folder gives the same figures.

    ``achieved_rate`` counts ok answers over the measured time plus the backlog that grew in it, so that what is
    answered after the end does not look like throughput. Raises `Problem` for a folder that is no run or holds a
    damaged file.
    """
    run = saved_run.load(run_folder)
    slo = run.experiment.slo
    measured = measurements.of(run, slo)
    figures = tuple(item.figures for item in measured)
    parity = prove(run)
    encoded = run.manifest.encoding if run.manifest else None
    of_starts = starts_of(run, slo)
    limits = capacity.of(measurements.in_order(run), of_starts, slo)
    targets = tuple(describe(run, name) for name in run.target_names)
    ladder = run.experiment.ladder_asked
    rates, main = verdicts.rates(ladder, run.protocols), verdicts.main_rates(ladder, run.protocols)
    asked = verdicts.questions(run.target_names, rates, main, searched(limits))
    evidence = verdicts.Evidence(
        figures=of_starts,
        measurements={item.key: item.figures for item in measured},
        limits={(item.target, item.protocol): item for item in limits},
        proven=parity.proven,
        looks=run.decisions.looks or _looks(run, verdicts.most_starts(asked, of_starts)),
        start_s=run.start_s,
    )
    found = verdicts.decide(asked, evidence, slo)
    return Summary(
        experiment=run.experiment,
        environment=run.environment,
        parity=parity,
        targets=targets,
        measurements=figures,
        capacity=limits,
        decomposition=decomposition.of(
            figures, [item.mean_ms for item in measured], run.model_times, encoded=encoded is not None
        ),
        verdicts=found,
        rankings=rankings.of(run.target_names, found),
        warnings=tuple(_warnings(run, targets, parity)),
        weights=_weights(run),
        own_files=run.manifest.own_files if run.manifest else {},
        encoded=encoded,
    )


def write(run_folder: Path) -> Summary:
    """Build a run's summary, write it to its summary.json (whole or not at all) and return it."""
    summary = build(run_folder)
    whole_file.write_bytes(run_folder / FILE, msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
    return summary


class _Numbered(msgspec.Struct):
    format: int = 1


def read(run_folder: Path) -> Summary:
    """A run's summary.json. Raises `Problem` for one that is missing, damaged, or of another format."""
    path = run_folder / FILE
    rebuild = f"rebuild it: make report RUN={run_folder}"
    try:
        text = path.read_bytes()
        number = msgspec.json.decode(text, type=_Numbered).format
        if number != FORMAT:
            raise Problem(f"{path}: format {number}, but this version reads {FORMAT}; {rebuild}")
        return msgspec.json.decode(text, type=Summary)
    except OSError as error:
        raise Problem(f"{path}: cannot be read ({error.strerror}); {rebuild}") from error
    except msgspec.DecodeError as error:
        raise Problem(f"{path}: not a summary ({error}); {rebuild}") from error


def schema() -> str:
    """The JSON Schema of summary.json, as the text of docs/summary.schema.json."""
    draft = "https://json-schema.org/draft/2020-12/schema"
    values = {"$schema": draft, "title": f"Tandem’s summary.json, format {FORMAT}", **msgspec.json.schema(Summary)}
    return msgspec.json.format(msgspec.json.encode(values), indent=1).decode() + "\n"


def prove(run: SavedRun) -> Parity:
    """The evidence that a run's targets served one model, or one mix of models."""
    asked = sorted((target, protocol) for target in run.target_names for protocol in run.protocols)
    if not run.mix:
        return validity.parity(run.manifest, run.wire(), asked)
    return validity.parity_of_all(
        {model: validity.parity(run.manifests[model], run.wire(model), asked, model) for model in run.mix}
    )


def _weights(run: SavedRun) -> dict[str, Weights]:
    """Where the weights of each model come from, as far as the bundles tell."""
    manifests = run.manifests or {run.experiment.model or "": run.manifest}
    return {model: manifest.weights for model, manifest in manifests.items() if manifest and manifest.weights}


def _looks(run: SavedRun, most: int) -> tuple[int, ...]:
    """After how many starts a run that does not say so looked, of which a question has at most so many."""
    return (most,) if run.experiment.is_fixed else decision.looks(most)


def starts_of(run: SavedRun, slo: Slo) -> Figures:
    """What each start of a run says of each question."""
    return starts.figures((trial.record for trial in measurements.in_order(run)), run.searches, slo, run.unsteady)


def searched(limits: Iterable[Capacity]) -> set[tuple[str, str]]:
    """(target, protocol) of each capacity that was searched for."""
    return {(item.target, item.protocol) for item in limits if item.scenario == "capacity"}


def describe(run: SavedRun, name: str) -> TargetInfo:
    """A target's entry in the summary."""
    saved = run.target(name)
    record = next((trial.record for trial in run.trials if trial.key[0] == name), None)
    engine = saved.engine or (record.engine or None if record else None)
    known = registry.find(engine) if engine else None
    versions = {model: manifest.version if manifest else None for model, manifest in run.manifests.items()}
    return TargetInfo(
        name=name,
        engine=engine,
        engine_version=saved.engine_version or (record.engine_version or None if record else None),
        stands_in_for=known.stands_in_for if known else None,
        runtime=saved.runtime or run.experiment.runtime,
        model=saved.model or run.experiment.model,
        version=saved.version,
        models=tuple(ModelShare(name=model, version=versions[model], share=share) for model, share in run.mix.items()),
        cores=saved.cores,
        knobs=saved.knobs or _earlier(run, saved),
        switches=saved.switches,
        backend=saved.backend,
        precision=saved.precision,
        caveats=saved.caveats,
        output=saved.output,
        measured=record is not None,
    )


def _earlier(run: SavedRun, saved: SavedTarget) -> tuple[Knob, ...]:
    """The knobs of a target that was saved before it had them: a server's own keys under their own names."""
    given = {key: value for key, value in saved.settings.items() if key not in run.experiment.profile}
    return tuple(
        Knob(key, key, value if isinstance(value, (int, float)) else str(value)) for key, value in given.items()
    )


def _warnings(run: SavedRun, targets: Sequence[TargetInfo], parity: Parity) -> list[SummaryWarning]:
    noted = run.environment.warnings
    found: list[SummaryWarning] = [note for note in noted if not isinstance(note, StoodIn)]
    stood_in = {(note.engine, note.stand_in): note for note in noted if isinstance(note, StoodIn)}
    for target in targets:
        if not target.measured:
            found.append(NotMeasured(target.name))
        elif target.engine and target.stands_in_for:
            note = stood_in.get((target.stands_in_for, target.engine))
            found.append(
                StandIn(
                    target.name,
                    target.engine,
                    target.engine_version,
                    target.stands_in_for,
                    reason=note.reason if note else None,
                    detail=note.detail if note else "",
                )
            )
        elif target.engine and target.backend and target.backend.instead_of:
            found.append(NotItsOwnBackend(target.name, target.engine, target.backend))
    found += _missing(run)
    if _measured_once(run):
        found.append(MeasuredOnce())
    return [*found, *(ParityNotProven(why) for why in parity.why_not_proven)]


def _missing(run: SavedRun) -> Iterable[TrialsMissing | NotFinished]:
    """What a run lacks: of a ladder that was to be climbed so often, trials; else that the run did not end."""
    asked, ladder = run.experiment, run.experiment.ladder_asked
    if ladder.repetitions:
        each = sum(map(len, verdicts.rates(ladder, ladder.rates).values())) * ladder.repetitions
        planned = (each + len(ladder.overload_rates)) * len(asked.targets)
        present = sum(trial.key[2] == "ladder" for trial in run.trials)
        if present < planned:
            yield TrialsMissing(planned - present, planned)
    elif run.environment.finished_at is None:
        starts_of_each = [
            {trial.record.repetition for trial in run.trials if trial.key[0] == name} for name in asked.targets
        ]
        yield NotFinished(min(map(len, starts_of_each), default=0))


def _measured_once(run: SavedRun) -> bool:
    """Whether every load was measured on one start alone; the overload is by design."""
    overload = run.experiment.ladder_asked.overload_rates
    seen: dict[tuple[str, str, str], set[int]] = {}
    for trial in run.trials:
        target, protocol, scenario, rate = trial.key
        if scenario != "ladder" or rate != overload.get(protocol):
            seen.setdefault((target, protocol, scenario), set()).add(trial.record.repetition)
    return bool(seen) and all(len(starts_seen) < 2 for starts_seen in seen.values())
