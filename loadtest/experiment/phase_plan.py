"""An experiment's warm-ups and trials as phases of the load generator's plan: plain values, ready for JSON."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from loadtest.experiment.capacity_search import CLOSING
from loadtest.experiment.file import Experiment
from loadtest.experiment.plan import Trial
from loadtest.experiment.scenarios import Capacity, Offline, SingleStream, Spike
from loadtest.generator.settling import CHUNK_S

Phase = dict[str, Any]


def warm_up(experiment: Experiment, folder: Path, protocol: str, *, probe: bool = False) -> Phase:
    """A warm-up whose results go to `folder`; a probe only asks for the closed loop's throughput."""
    settings = asdict(replace(experiment.warm_up, settle_s=0.0) if probe else experiment.warm_up)
    return {**_common("warm-up", folder, protocol, experiment.seed), **settings}


def trial(experiment: Experiment, chosen: Trial, trials: Path, searches: Path, warm_up_id: str) -> Phase:
    """The phase of a trial: an open loop, a closed loop or a capacity search.

    `trials`, `searches`: the folders in which a trial or a search gets a folder of its own.
    """
    scenario = experiment.scenario(chosen.scenario)
    generator = experiment.generator
    loop: Phase = {
        **_common("", trials / chosen.id, chosen.protocol, chosen.seed),
        "scenario": chosen.scenario,
        "repetition": chosen.repetition,
        "duration_s": scenario.duration_s,
        "lead_in_s": scenario.lead_in_s,
        "batch": scenario.batch,
        "timeout_s": generator.timeout_s,
        "check_share": generator.check_share,
        "warm_up": warm_up_id,
    }
    if isinstance(scenario, SingleStream | Offline):
        concurrency = scenario.concurrency if isinstance(scenario, Offline) else 1
        profiles = [experiment.profile_of(name) for name in experiment.target_names]
        full = 4 * max(profile.max_batch_size * profile.instances for profile in profiles)  # the same load for all
        return {**loop, "kind": "closed-loop", "concurrency": concurrency or max(1, full // scenario.batch)}
    shape = experiment.arrivals
    if isinstance(scenario, Spike):
        shape = replace(shape, spike_factor=scenario.factor, spike_start_s=scenario.before_s, spike_s=scenario.spike_s)
    opened = {
        **loop,
        "kind": "open-loop",
        "rate": chosen.rate,
        "arrival": scenario.arrival,
        "arrivals": asdict(shape),
        "max_in_flight": generator.max_in_flight,
        "retries": generator.retries,
    }
    return _search(experiment, scenario, opened, trials, searches) if isinstance(scenario, Capacity) else opened


def _search(experiment: Experiment, scenario: Capacity, opened: Phase, trials: Path, searches: Path) -> Phase:
    name = opened["id"]
    last = opened["repetition"] == scenario.repetitions
    return {
        "kind": "search",
        "id": name,
        "folder": str(searches / name),
        "trials": str(trials),
        "trial": {key: value for key, value in opened.items() if key != "kind"},
        "p99_ms": experiment.slo.p99_ms,
        "error_ratio": experiment.slo.error_ratio,
        "growth": scenario.growth,
        "precision": scenario.precision,
        "repeats": 2 if last else 1,
        "budget_s": scenario.budget_s,
        "before": [],
    }


def protocol_of(phase: Phase) -> str:
    """The protocol of any phase."""
    protocol: str = (phase.get("trial") or phase)["protocol"]
    return protocol


def expected_s(phase: Phase) -> float:
    """Seconds that a phase will probably take, without overheads."""
    if phase["kind"] == "warm-up":
        if phase.get("min_requests") and not phase.get("settle_s"):
            return (float(phase["min_s"]) + float(phase["max_s"])) / 2
        return float(phase["min_s"]) + min(phase.get("settle_s", 0.0), 4 * CHUNK_S)
    if phase["kind"] == "search":
        lead_in, once = float(phase["trial"]["lead_in_s"]), float(phase["trial"]["duration_s"])
        closing = lead_in + CLOSING * once
        again = phase["trial"]["repetition"] > 1
        return min(float(phase["budget_s"]), 2 * closing if again else 7 * (lead_in + once) + closing)
    return float(phase["lead_in_s"] + phase["duration_s"])


def longest_s(phase: Phase) -> float:
    """Seconds after which a phase has surely failed to end."""
    if phase["kind"] == "warm-up":
        return (float(phase["max_s"]) + 30) * (1 + phase.get("retries", 0)) + 2 * phase.get("settle_s", 0.0) + 30
    if phase["kind"] == "search":
        # The last trial may start just in time, and may be repeated.
        return float(phase["budget_s"]) + longest_s({**phase["trial"], "kind": "open-loop"})
    once = float(phase["lead_in_s"] + phase["duration_s"] + phase["timeout_s"]) + 30
    return once * (1 + phase.get("retries", 0))


def _common(kind: str, folder: Path, protocol: str, seed: int) -> Phase:
    return {"kind": kind, "id": folder.name, "folder": str(folder), "protocol": protocol, "seed": seed}
