"""Servers that somebody keeps up, at the addresses that an experiment's file gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from loadtest.experiment import inputs, right_answers
from loadtest.experiment.file import Experiment
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.records import RightAnswers
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes import on_this_machine
from loadtest.experiment.runtimes.kept_up import KeptUp
from loadtest.experiment.runtimes.parity_gate import FILE, Proof
from loadtest.experiment.settings import FIRST, STATUS, Inputs
from models.bundle import Bundle
from models.problem import Problem
from serving import description, reference_file
from serving.credentials import headers_of
from serving.engines import registry
from serving.runtimes.process import metrics_relay
from serving.target import Target


def named(experiment: Experiment) -> list[Target]:
    """The experiment's endpoints as their clients see them."""
    return [
        spec.endpoint.target(spec.name, registry.engine(spec.engine), experiment.served)
        for spec in experiment.targets
        if spec.endpoint
    ]


def reached(experiment: Experiment) -> list[Target]:
    """The same, each of which has been connected to. Raises `Problem`."""
    found = named(experiment)
    for target in found:
        headers_of(target)
        for protocol in experiment.protocols:
            description.reach(target, protocol)
    return found


def with_metrics(targets: list[Target]) -> list[Target]:
    """The same, each of whose pages of metrics has been fetched, where one is named. Raises `Problem`."""
    for target in targets:
        if target.metrics:
            metrics_relay.fetch(target)
    return targets


def described(targets: Sequence[Target], protocol: str, asked: Inputs) -> list[Target]:
    """The targets with what their servers say of themselves and of the models. Raises `Problem` where one does not say
    what it takes, though its engine would, and the user does not either."""
    return inputs.alike([_described(target, protocol, asked) for target in targets])


def _described(target: Target, protocol: str, asked: Inputs) -> Target:
    if target.output and registry.engine(target.engine).metadata(target, protocol) is None:
        raise Problem(
            f"target.{target.name}.output = {target.output!r}: answers of {target.engine} have no outputs by "
            "name: leave it out"
        )
    try:
        said = description.describe(target, protocol)
    except Problem:
        # A proxy may let nothing but predictions through.
        if not (target.input_shape or target.input_shapes or asked.payloads):
            raise
        said = None
    if said is None:
        return target
    if asked.answers != STATUS:
        _check_judged(target, [one.name for one in said.outputs])
    return replace(target, engine_version=said.server, inputs=said.inputs, outputs=said.outputs)


def _check_judged(target: Target, outputs: Sequence[str]) -> None:
    """Raise `Problem` where it is not clear which output of the answers is compared."""
    names = ", ".join(outputs)
    if target.output and outputs and target.output not in outputs:
        raise Problem(
            f"target.{target.name}.output = {target.output!r}: {target.model} gives {names}: name one of them"
        )
    if not target.output and len(outputs) > 1:
        raise Problem(
            f"target.{target.name}: {target.model} gives {len(outputs)} outputs ({names}): name the one that is "
            f"compared, output = {outputs[0]!r}"
        )


def serving(targets: Sequence[Target], bundle: Bundle) -> list[Target]:
    """The targets asked for a bundle's model, under the names that they have for it."""
    shape, classes, precision = bundle.input_shape, bundle.classes, bundle.precision
    return [replace(one, input_shape=shape, classes=classes, precision=precision) for one in targets]


class EndpointTargets:
    """The endpoints of a run without a bundle, all up at the same time."""

    def __init__(self, folder: RunFolder, experiment: Experiment, targets: Sequence[Target]) -> None:
        """The samples are written into the folder, unless an interrupted run has. Raises `Problem`."""
        targets = on_this_machine.located(targets)
        self.server_cores, self.generator_cores = on_this_machine.split(targets)
        self._folder, self._experiment = folder, experiment
        self._kept_up = KeptUp(folder, targets, self._forget, self._answers)
        self._prometheus: Prometheus | None = None
        if not folder.reference.exists():
            samples = inputs.load(experiment.inputs, targets[0], experiment.seed)
            if samples.bodies and "grpc" in experiment.protocols:
                raise Problem(
                    f"inputs.payloads = {experiment.inputs.payloads!r}: whole bodies go over REST: leave grpc out of "
                    "protocols, or give arrays"
                )
            right = right_answers.of(experiment.inputs, samples, targets[0], experiment.protocols[0])
            reference_file.write(folder.reference, samples, right, experiment.inputs.tolerance)

    def observe(self, prometheus: Prometheus | None) -> None:
        self._prometheus = prometheus

    def use(self, name: str, now: Callable[[str], None], offset: int = 0) -> None:  # noqa: ARG002 - as the protocol has it
        target = self._kept_up.use(name, now)
        if self._prometheus:
            self._prometheus.watch_server(target)
        self._prove(target, now)

    def target(self, name: str) -> Target:
        return self._kept_up.targets[name]

    def check(self, *, fresh: bool = False) -> None:
        """Raise `Replaced` where another process has taken the place of a server on this machine; the death of somebody
        else's shows as errors in the trial."""
        self._kept_up.check(fresh=fresh)

    def stop(self) -> None:
        """Somebody else's server: it stays up."""

    def _forget(self, name: str) -> None:
        """Nothing is proven any more of the server that is called so."""
        known = msgspec.convert(self._folder.read(FILE, {}), Proof, strict=False)
        others = {other: figures for other, figures in known.targets.items() if other != name}
        self._folder.write(FILE, msgspec.to_builtins(msgspec.structs.replace(known, targets=others), str_keys=True))

    def _answers(self, target: Target) -> bool:
        with np.load(self._folder.reference) as values:
            samples = reference_file.samples(values)
        for protocol in self._experiment.protocols:
            right_answers.answers_at_all(target, protocol, samples)
        return True

    def _prove(self, target: Target, now: Callable[[str], None]) -> None:
        """Record the target, and ask it for every sample unless that has been done in this run."""
        others = [known for known in self._folder.read("targets.json", []) if known["name"] != target.name]
        self._folder.write("targets.json", [*others, target.to_dict()])
        known = msgspec.convert(self._folder.read(FILE, {}), Proof, strict=False)
        if target.name in known.targets:
            return
        now(f"{target.name}: answers before any load")
        with np.load(self._folder.reference) as values:
            samples = reference_file.samples(values)
            right = values.get("probabilities")
        asked, figures = self._experiment.inputs, {}
        for protocol in self._experiment.protocols:
            if right is None:
                right_answers.answers_at_all(target, protocol, samples)
            else:
                whose = (
                    f"those of {next(iter(self._kept_up.targets))}" if asked.answers == FIRST else "the recorded ones"
                )
                figures[protocol] = right_answers.check(target, protocol, samples, right, asked.tolerance, whose)
        proof = Proof(
            samples=len(samples) if right is not None else 0,
            tolerance=asked.tolerance,
            right={FIRST: RightAnswers.FIRST, STATUS: RightAnswers.ANY}.get(asked.answers, RightAnswers.RECORDED),
            targets={**known.targets, target.name: figures},
        )
        self._folder.write(FILE, msgspec.to_builtins(proof, str_keys=True))
