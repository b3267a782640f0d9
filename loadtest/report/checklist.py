"""The points that people are told to weigh when they choose: what this run measured, what is a fact (with its source),
and what stays the reader's own judgement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.analysis.records import Summary, TargetInfo
from loadtest.experiment.records import RightAnswers
from loadtest.report import conditions, parity_words, sizing, wording
from serving.engines import registry
from serving.engines.engine import Engine, Fact, Topic


@dataclass(frozen=True)
class Point:
    """One decision point. ``measured``: sentences from this run's figures; empty where a run cannot say anything."""

    topic: str
    measured: list[str]
    facts: list[Fact]
    judgement: str


# Of the hardware that servers share, so of no engine.
PLACEMENT = [
    Fact(
        Topic.HARDWARE,
        "Kubernetes gives a container whole GPUs through a device plugin, asked for in its limits; node labels and "
        "selectors choose the kind.",
        "Kubernetes: schedule GPUs",
        "https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/",
    ),
]


def points(figures: Summary, plan: sizing.Plan) -> list[Point]:
    """The checklist of a run; ``figures`` is its summary."""
    return [
        Point(
            "Experience of the team",
            [],
            facts(figures.targets, Topic.EXPERIENCE),
            f"Which of {'the two' if len(figures.targets) <= 2 else 'them'} your people can debug at night. A server "
            "that you know may beat one that is faster here.",
        ),
        Point(
            "Needs",
            _needs(figures),
            facts(figures.targets, Topic.NEEDS),
            "Which of these you will use: protocols, custom code, several models, versions side by side.",
        ),
        Point(
            "Scale",
            _scale(plan),
            facts(figures.targets, Topic.SCALE),
            "How high your peak is, how fast it comes, and whether capacity grows in proportion with servers behind "
            "your load balancer: this run measured one server.",
        ),
        Point(
            "Hardware",
            _hardware(figures),
            facts(figures.targets, Topic.HARDWARE),
            "Whether production runs on this hardware. Figures of one machine say little about another: run it there.",
        ),
        Point(
            "Documentation and community",
            [],
            facts(figures.targets, Topic.DOCUMENTATION),
            "How soon you find an answer when something breaks.",
        ),
        Point(
            "Maintenance status",
            [
                f"{wording.target_name(target.name)}: {wording.shorten(wording.engine(target))} was measured."
                for target in figures.targets
                if target.measured
            ],
            facts(figures.targets, Topic.MAINTENANCE),
            "Whether you may run software without security fixes, and who would patch it.",
        ),
        Point(
            "Hardware placement",
            _placement(figures),
            PLACEMENT,
            "Whether servers share nodes with other work, and which nodes they must not leave.",
        ),
    ]


def facts(targets: Sequence[TargetInfo], topic: Topic) -> list[Fact]:
    """What is known of the targets' engines; of a stand-in, of the engine that it stands in for."""
    engines: dict[str, Engine] = {}
    for target in targets:
        known = registry.find(target.stands_in_for or target.engine or "")
        # One that never came up is known by its name alone.
        found = [known] if known else [one for one in registry.all() if one.default_target == target.name]
        engines |= {one.id: one for one in found}
    return [fact for engine in engines.values() for fact in engine.facts if fact.topic is topic]


def _needs(figures: Summary) -> list[str]:
    found = []
    protocols = list(dict.fromkeys(wording.protocol(item.protocol) for item in figures.measurements))
    if protocols:
        found.append(f"Protocols: {' and '.join(protocols)}.")
    if figures.parity.proven and figures.parity.right is not RightAnswers.REFERENCE:
        found.append(parity_words.lead(figures.parity))
    elif figures.parity.proven:
        found.append(
            "The model could be exported to both worlds with the same answers (largest difference "
            f"{wording.scientific(figures.parity.max_abs_diff)})."
        )
    else:
        both = "both" if len(figures.targets) <= 2 else "all"
        found.append(f"That {both} serve the same model was not proven.")
    return found


def _scale(plan: sizing.Plan) -> list[str]:
    found = []
    for item in plan.sizings:
        who = f"{wording.shorten(wording.target_name(item.target), 30)} over {wording.protocol(item.protocol)}"
        if item.images_per_s is None:
            found.append(f"{who}: no tested rate met the SLO.")
            continue
        text = f"{who}: {wording.images(item.images_per_s)} within the SLO ({wording.interval(item.images_ci95, True)})"
        if item.replicas:
            shown = item.replicas[len(item.replicas) // 2]
            text += f"; {wording.images(shown.rate)} need {wording.plural(shown.with_spare, 'server')}, one to spare"
        found.append(f"{text}.")
    return found


def _hardware(figures: Summary) -> list[str]:
    memory, device = figures.environment.memory_bytes, figures.experiment.profile.get("device")
    parts = [
        conditions.machine(figures.environment),
        f"{wording.gibibytes(memory)} of memory" if memory else "",
        f"device: {device}" if device else "",
    ]
    found = ", ".join(part for part in parts if part)
    return [f"{found}."] if found else []


def _placement(figures: Summary) -> list[str]:
    pinning, runtime = conditions.pinning(figures.environment), figures.experiment.runtime
    found = [f"Pinning: {pinning}."] if pinning else []
    return [*found, f"Runtime: {runtime}, one server at a time."] if runtime else found
