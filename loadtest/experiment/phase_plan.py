"""An experiment's warm-ups and trials as phases of the load generator's plan."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

from loadtest.experiment.file import Experiment
from loadtest.experiment.phases import ClosedLoopPhase, OpenLoopPhase, Phase, SearchPhase, WarmUpPhase
from loadtest.experiment.plan import Start, Trial
from loadtest.experiment.scenarios import Capacity, Offline, SingleStream, Spike

# Seconds of a start that are not load, as planned; measured on 2 cores.
START_S = 6.0
GENERATOR_START_S = 1.5

# A JVM that has answered so many is some way from its best, and near enough for a search to start from.
PROBE_REQUESTS = 5000

# Files that a server has open beside its connections: some 300 of a JVM's; and connections over gRPC and HTTP/2.
OWN_FILES, CONNECTIONS = 512, 64


def warm_up(experiment: Experiment, folder: Path, protocol: str, *, probe: bool = False) -> WarmUpPhase:
    """A warm-up whose results go to `folder`; a probe only asks, roughly, for the closed loop's throughput."""
    settings = experiment.warm_up
    if probe:
        settings = replace(settings, settle_s=0.0, min_requests=min(settings.min_requests, PROBE_REQUESTS))
    most, own = experiment.generator.most_rate, asdict(settings)
    return WarmUpPhase(id=folder.name, folder=folder, protocol=protocol, seed=experiment.seed, most_rate=most, **own)


def trial(
    experiment: Experiment,
    chosen: Trial,
    trials: Path,
    searches: Path,
    warm_up_id: str,
) -> Phase:
    """The phase of a trial: an open loop, a closed loop or a capacity search.

    trials, searches  the folders in which a trial or a search gets a folder of its own
    """
    scenario = experiment.scenario(chosen.scenario)
    if isinstance(scenario, SingleStream | Offline):
        return _closed_loop(experiment, scenario, chosen, trials / chosen.id, warm_up_id)
    generator, shape = experiment.generator, experiment.arrivals
    if shape.trace:  # the generator works in another folder
        shape = replace(shape, trace=str(Path(shape.trace).expanduser().absolute()))
    if isinstance(scenario, Spike):
        shape = replace(shape, spike_factor=scenario.factor, spike_start_s=scenario.before_s, spike_s=scenario.spike_s)
    opened = OpenLoopPhase(
        id=chosen.id,
        folder=trials / chosen.id,
        protocol=chosen.protocol,
        seed=chosen.seed,
        rate=chosen.rate,
        duration_s=scenario.duration_s,
        scenario=chosen.scenario,
        arrival=scenario.arrival,
        arrivals=shape,
        lead_in_s=scenario.lead_in_s,
        limit_ms=experiment.slo.p99_ms,
        max_in_flight=generator.max_in_flight,
        timeout_s=generator.timeout_s,
        check_share=generator.check_share,
        repetition=chosen.repetition,
        batch=scenario.batch,
        warm_up=warm_up_id,
        retries=generator.retries,
    )
    if not isinstance(scenario, Capacity):
        return opened
    return SearchPhase(
        id=chosen.id,
        folder=searches / chosen.id,
        trials=trials,
        trial=opened,
        p99_ms=experiment.slo.p99_ms,
        error_ratio=experiment.slo.error_ratio,
        most=scenario.trials,
        precision=scenario.precision,
        most_rate=generator.most_rate / experiment.peak(chosen.scenario),
    )


def open_files(experiment: Experiment) -> int:
    """How many files a server, or the generator, may have to have open at once: a connection for each request in flight
    over HTTP/1.1, few over gRPC and HTTP/2, and its own."""
    rest = any(protocol != "grpc" for protocol in experiment.protocols)
    most = [experiment.warm_up.concurrency]
    for name in experiment.scenarios:
        one, bound = experiment.scenario(name), experiment.generator.max_in_flight
        most.append(_concurrency(experiment, one) if isinstance(one, SingleStream | Offline) else bound)
    return OWN_FILES + (max(most) if rest else CONNECTIONS)


def overhead_s(experiment: Experiment, start: Start) -> float:
    """Seconds that a start of a server takes besides its trials, as planned: its own, and its warm-ups."""
    protocols = {chosen.protocol for chosen in start.trials}
    warm_ups = [warm_up(experiment, Path(), protocol).expected_s + GENERATOR_START_S for protocol in protocols]
    return START_S + math.fsum(warm_ups)


def expected_s(experiment: Experiment, chosen: Trial) -> float:
    """Seconds of load that a trial or search will probably take."""
    return trial(experiment, chosen, Path(), Path(), "").expected_s


def _closed_loop(
    experiment: Experiment, scenario: SingleStream | Offline, chosen: Trial, folder: Path, warm_up_id: str
) -> ClosedLoopPhase:
    return ClosedLoopPhase(
        id=chosen.id,
        folder=folder,
        protocol=chosen.protocol,
        seed=chosen.seed,
        scenario=chosen.scenario,
        duration_s=scenario.duration_s,
        concurrency=_concurrency(experiment, scenario),
        lead_in_s=scenario.lead_in_s,
        timeout_s=experiment.generator.timeout_s,
        check_share=experiment.generator.check_share,
        most_rate=experiment.generator.most_rate,
        repetition=chosen.repetition,
        batch=scenario.batch,
        warm_up=warm_up_id,
    )


def _concurrency(experiment: Experiment, scenario: SingleStream | Offline) -> int:
    """How many requests a closed loop keeps in flight."""
    concurrency = scenario.concurrency if isinstance(scenario, Offline) else 1
    profiles = [experiment.profile_of(name) for name in experiment.target_names]
    full = 4 * max(profile.max_batch_size * profile.instances for profile in profiles)  # the same load for all
    return concurrency or max(1, full // scenario.batch)
