"""Where the figures of a page come from: the trials or files of a run, and the command that shows them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.analysis.records import Measurement, Summary, Verdict
from loadtest.experiment.questions import Metric
from loadtest.report import sizing, wording


@dataclass(frozen=True)
class Origin:
    """Where a figure comes from: ``paths`` from the root of the repository, and commands that print the first of them
    and build everything from them again. ``id`` is that of its popover, which all figures of one origin share."""

    id: str
    says: str
    paths: tuple[str, ...]
    show: str
    rebuild: str


class Origins:
    """The origins of a run's figures. Each is made once, when a page first asks for it; `all` has those asked for."""

    def __init__(self, folder: str, figures: Summary, prefix: str = "from") -> None:
        self._folder = f"results/{folder}"
        self._figures = figures
        self._prefix = prefix
        self._made: dict[tuple[str, ...], Origin] = {}

    def all(self) -> list[Origin]:
        """Every origin that was asked for so far."""
        return list(self._made.values())

    def measurement(self, item: Measurement) -> Origin | None:
        """Of a measurement's figures."""
        return self.trials(item.trials)

    def load(self, target: str, protocol: str, scenario: str, rate: float | None = None) -> Origin | None:
        """Of figures that are told of a target under a load (requests/s; None: under all loads of the scenario)."""
        return self.trials(trials_under(self._figures, target, protocol, scenario, rate))

    def capacity(self, target: str, protocol: str) -> Origin | None:
        """Of a target's highest rate within the SLO, and of what follows from it."""
        return self.trials(trials_of_capacity(self._figures, target, protocol))

    def verdict(self, verdict: Verdict) -> Origin | None:
        """Of a verdict's ratio and figures."""
        return self.trials(trials_of_verdict(self._figures, verdict))

    def verdicts(self, verdicts: Sequence[Verdict]) -> Origin | None:
        """Of what is told of several verdicts together."""
        return self.trials([name for one in verdicts for name in trials_of_verdict(self._figures, one)])

    def file(self, *names: str) -> Origin:
        """Of figures that stand in files of the run's folder."""
        return self._made_of(names, f"From {wording.listed(names)} of this run")

    def trials(self, trials: Sequence[str]) -> Origin | None:
        """Of figures of these trials; None where there are none."""
        if not trials:
            return None
        paths = [f"trials/{name}/trial.json" for name in dict.fromkeys(trials)]
        return self._made_of(paths, f"From {wording.plural(len(paths), 'trial')} of this run")

    def _made_of(self, paths: Sequence[str], says: str) -> Origin:
        full = tuple(f"{self._folder}/{path}" for path in paths)
        if full not in self._made:
            rebuild = f"make report RUN={shlex.quote(self._folder)}"
            self._made[full] = Origin(f"{self._prefix}-{len(self._made)}", says, full, _shows(full[0]), rebuild)
        return self._made[full]


def _shows(path: str) -> str:
    """A command that prints a file of a run."""
    if path.endswith(".npz"):
        return shlex.join([".venv/bin/python", "-c", f"import numpy; print(dict(numpy.load({path!r})))"])
    return shlex.join(["cat", path])


def trials_under(
    figures: Summary, target: str, protocol: str, scenario: str, rate: float | None = None
) -> tuple[str, ...]:
    """Folders of the trials of a target over a protocol in a scenario, at a rate or at all of them."""
    return tuple(
        name
        for item in figures.measurements
        if (item.target, item.protocol, item.scenario) == (target, protocol, scenario)
        and rate in (None, item.offered_rate)
        for name in item.trials
    )


def trials_of_capacity(figures: Summary, target: str, protocol: str) -> tuple[str, ...]:
    """Folders of the trials that a target's capacity over a protocol rests on."""
    found = sizing.capacity(figures, target, protocol)
    if found and found.starts:
        return tuple(name for start in found.starts for name in start.trials)
    return trials_under(figures, target, protocol, found.scenario) if found else ()


def trials_of_verdict(figures: Summary, verdict: Verdict) -> tuple[str, ...]:
    """Folders of the trials that a verdict compares, of both targets."""
    if verdict.metric is Metric.CAPACITY:
        found = [trials_of_capacity(figures, target, verdict.protocol) for target in verdict.compared]
        return tuple(name for trials in found for name in trials)
    return tuple(
        name
        for item in figures.measurements
        if item.target in verdict.compared
        and (item.protocol, item.offered_rate) == (verdict.protocol, verdict.offered_rate)
        and item.scenario != "capacity"
        for name in item.trials
    )
