"""The summary of a run: everything that it measured, with intervals, merged from its saved data alone; summary.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from loadtest.analysis import capacity, decomposition, measurements, rankings, saved_run, validity, verdicts
from loadtest.analysis.records import (
    FORMAT,
    MeasuredOnce,
    Measurement,
    ModelShare,
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
from loadtest.experiment.settings import Slo
from models import whole_file
from models.problem import Problem
from serving.engines import registry
from serving.engines.engine import Knob

FILE = "summary.json"


def build(run_folder: Path) -> Summary:
    """The summary of a run; the same folder gives the same figures.

    ``achieved_rate`` counts ok answers over the measured time plus the backlog that grew in it, so that what is
    answered after the end does not look like throughput. The trials of a capacity search have no intervals of their
    own: it tries a rate as often as it needs to. Raises `Problem` for a folder that is no run or holds a damaged file.
    """
    run = saved_run.load(run_folder)
    slo = run.experiment.slo
    measured = measurements.of(run, slo)
    figures = tuple(item.figures for item in measured)
    parity = prove(run)
    limits = capacity.of(votes(run, slo), run.searches, slo)
    targets = tuple(describe(run, name) for name in run.target_names)
    found = verdicts.decide(run.target_names, run.protocols, measured, limits, slo, parity)
    return Summary(
        experiment=run.experiment,
        environment=run.environment,
        parity=parity,
        targets=targets,
        measurements=figures,
        capacity=limits,
        decomposition=decomposition.of(figures, [item.mean_ms for item in measured], run.model_times),
        verdicts=found,
        rankings=rankings.of(run.target_names, found),
        warnings=tuple(_warnings(run, targets, figures, parity)),
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


def votes(run: SavedRun, slo: Slo) -> list[capacity.Vote]:
    """What a run's trials say of the SLO, in the order of `measurements.repetitions`."""
    return capacity.votes([trial for trials in measurements.repetitions(run).values() for trial in trials], slo)


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
        caveats=saved.caveats,
        measured=record is not None,
    )


def _earlier(run: SavedRun, saved: SavedTarget) -> tuple[Knob, ...]:
    """The knobs of a target that was saved before it had them: a server's own keys under their own names."""
    given = {key: value for key, value in saved.settings.items() if key not in run.experiment.profile}
    return tuple(
        Knob(key, key, value if isinstance(value, (int, float)) else str(value)) for key, value in given.items()
    )


def _warnings(
    run: SavedRun, targets: Sequence[TargetInfo], figures: Sequence[Measurement], parity: Parity
) -> list[SummaryWarning]:
    found: list[SummaryWarning] = [*run.environment.warnings]
    for target in targets:
        if not target.measured:
            found.append(NotMeasured(target.name))
        elif target.engine and target.stands_in_for:
            found.append(StandIn(target.name, target.engine, target.engine_version, target.stands_in_for))
    ladder, targets_asked = run.experiment.ladder, len(run.experiment.targets)
    if ladder and "ladder" in run.experiment.scenarios:
        planned = sum(map(len, ladder.rates.values())) * targets_asked * (ladder.repetitions or 1)
        present = sum(trial.key[2] == "ladder" for trial in run.trials)
        if present < planned:
            found.append(TrialsMissing(planned - present, planned))
    if figures and all(item.repetitions < 2 for item in figures):
        found.append(MeasuredOnce())
    return [*found, *(ParityNotProven(why) for why in parity.why_not_proven)]
