"""The points that people are told to weigh when they choose: what this run measured, what is a fact (with its source),
and what stays the reader's own judgement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loadtest.analysis import wording
from loadtest.report import sizing, story


@dataclass(frozen=True)
class Fact:
    """A sentence and where it stands: the source's name and address."""

    text: str
    source: str
    url: str


@dataclass(frozen=True)
class Point:
    """One decision point. ``measured``: sentences from this run's figures; empty where a run cannot say anything."""

    topic: str
    measured: list[str]
    facts: list[Fact]
    judgement: str


TORCHSERVE_NOTICE = Fact(
    "TorchServe is no longer actively maintained: no updates, bug fixes or security patches are planned. Its "
    "repository was archived on 7 August 2025; 0.12.0 (September 2024) is its last release.",
    "TorchServe’s README",
    "https://github.com/pytorch/serve",
)
TENSORFLOW_SERVING_RELEASES = Fact(
    "TensorFlow Serving is released beside TensorFlow: its API package has reached 2.21.0, as TensorFlow has.",
    "tensorflow-serving-api on PyPI",
    "https://github.com/tensorflow/serving",
)
EXPERIENCE = [
    Fact(
        "TorchServe runs a handler written in Python: pre- and post-processing can be any Python code.",
        "TorchServe: custom service",
        "https://docs.pytorch.org/serve/custom_service.html",
    ),
    Fact(
        "TensorFlow Serving runs a SavedModel alone: other processing belongs into its graph or in front of it.",
        "TensorFlow: SavedModel",
        "https://www.tensorflow.org/guide/saved_model",
    ),
]
NEEDS = [
    Fact(
        "TorchScript, which TorchServe loads here, is deprecated in favour of torch.export.",
        "PyTorch: TorchScript",
        "https://docs.pytorch.org/docs/stable/jit.html",
    ),
    Fact(
        "TensorFlow Serving serves several models and versions at once, with labels such as canary and stable.",
        "TensorFlow Serving: configuration",
        "https://www.tensorflow.org/tfx/serving/serving_config",
    ),
    Fact(
        "TorchServe registers and scales models and versions over a management API while it runs.",
        "TorchServe: management API",
        "https://docs.pytorch.org/serve/management_api.html",
    ),
]
SCALE = [
    Fact(
        "Both servers batch requests that wait together; how long a batch may wait trades latency for throughput.",
        "TensorFlow Serving: batching guide",
        "https://github.com/tensorflow/serving/tree/master/tensorflow_serving/batching",
    ),
]
HARDWARE = [
    Fact(
        "TensorFlow Serving recommends its Docker images, also as the easiest way to a GPU.",
        "TensorFlow Serving: setup",
        "https://www.tensorflow.org/tfx/serving/setup",
    ),
    Fact(
        "TorchServe can be installed for CPU, CUDA and ROCm.",
        "TorchServe: getting started",
        "https://docs.pytorch.org/serve/getting_started.html",
    ),
]
DOCUMENTATION = [
    Fact(
        "TorchServe’s documentation is still online and carries the notice that it is no longer maintained.",
        "TorchServe’s documentation",
        "https://docs.pytorch.org/serve/",
    ),
    Fact(
        "TensorFlow Serving’s guides and API reference are part of TensorFlow’s documentation.",
        "TensorFlow Serving’s guide",
        "https://www.tensorflow.org/tfx/guide/serving",
    ),
]
PLACEMENT = [
    Fact(
        "Kubernetes gives a container whole GPUs through a device plugin, asked for in its limits; node labels and "
        "selectors choose the kind.",
        "Kubernetes: schedule GPUs",
        "https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/",
    ),
]


def points(figures: dict[str, Any], plan: sizing.Plan) -> list[Point]:
    """The checklist of a run; ``figures`` is its summary."""
    return [
        Point(
            "Experience of the team",
            [],
            EXPERIENCE,
            "Which of the two your people can debug at night. A server that you know may beat one that is faster here.",
        ),
        Point(
            "Needs",
            _needs(figures),
            NEEDS,
            "Which of these you will use: protocols, custom code, several models, versions side by side.",
        ),
        Point(
            "Scale",
            _scale(plan),
            SCALE,
            "How high your peak is, how fast it comes, and whether capacity grows in proportion with servers behind "
            "your load balancer: this run measured one server.",
        ),
        Point(
            "Hardware",
            _hardware(figures),
            HARDWARE,
            "Whether production runs on this hardware. Figures of one machine say little about another: run it there.",
        ),
        Point("Documentation and community", [], DOCUMENTATION, "How soon you find an answer when something breaks."),
        Point(
            "Maintenance status",
            [
                f"{wording.stack(str(target['name']))}: {wording.shorten(wording.engine(target))} was measured."
                for target in figures["targets"]
                if target["measured"]
            ],
            [TORCHSERVE_NOTICE, TENSORFLOW_SERVING_RELEASES],
            "Whether you may run software without security fixes, and who would patch it.",
        ),
        Point(
            "Hardware placement",
            _placement(figures),
            PLACEMENT,
            "Whether servers share nodes with other work, and which nodes they must not leave.",
        ),
    ]


def _needs(figures: dict[str, Any]) -> list[str]:
    measured = figures["measurements"]
    found = []
    protocols = list(dict.fromkeys(wording.protocol(item["protocol"]) for item in measured))
    if protocols:
        found.append(f"Protocols: {' and '.join(protocols)}.")
    if figures["parity"]["proven"]:
        found.append(
            "The model could be exported to both worlds with the same answers (largest difference "
            f"{wording.scientific(figures['parity']['max_abs_diff'])})."
        )
    else:
        found.append("That both serve the same model was not proven.")
    return found


def _scale(plan: sizing.Plan) -> list[str]:
    found = []
    for item in plan.sizings:
        who = f"{wording.shorten(wording.stack(item.target), 30)} over {wording.protocol(item.protocol)}"
        if item.images_per_s is None:
            found.append(f"{who}: no tested rate met the SLO.")
            continue
        text = f"{who}: {wording.images(item.images_per_s)} within the SLO ({wording.interval(item.images_ci95, True)})"
        if item.replicas:
            shown = item.replicas[len(item.replicas) // 2]
            text += f"; {wording.images(shown.rate)} need {wording.plural(shown.with_spare, 'server')}, one to spare"
        found.append(f"{text}.")
    return found


def _hardware(figures: dict[str, Any]) -> list[str]:
    environment = figures["environment"]
    device = figures["experiment"].get("profile", {}).get("device")
    found = [value for name, value in story.conditions(figures, None) if name == "Machine"]
    if environment.get("memory_bytes"):
        found.append(f"{wording.gibibytes(environment['memory_bytes'])} of memory")
    if device:
        found.append(f"device: {device}")
    return [f"{', '.join(found)}."] if found else []


def _placement(figures: dict[str, Any]) -> list[str]:
    found = [f"{name}: {value}." for name, value in story.conditions(figures, None) if name == "Pinning"]
    runtime = figures["experiment"].get("runtime")
    return [*found, f"Runtime: {runtime}, one server at a time."] if runtime else found
