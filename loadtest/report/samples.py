"""Ten samples of the test set with every server's answer beside the reference: parity for the eye."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from loadtest.analysis import wording
from loadtest.analysis.saved_run import SavedRun

SMALLEST = 64  # pixels; smaller images are enlarged without smoothing, as the model sees them


@dataclass(frozen=True)
class Answer:
    """What a target said over these protocols: its best class and that class' probability. The reference has neither
    target nor protocol."""

    target: str
    protocols: list[str]
    best: int
    probability: float


@dataclass(frozen=True)
class Sample:
    """One image. ``index``: its place in the test set; ``image``: a data URI; ``label``: its true class."""

    index: int
    image: str
    label: int
    reference: Answer
    answers: list[Answer]

    @property
    def agrees(self) -> bool:
        """Whether every server gave the reference's best class."""
        return all(answer.best == self.reference.best for answer in self.answers)


def load(run: SavedRun) -> list[Sample]:
    """The samples that wire parity kept, of the first of several models; empty where a run has none."""
    saved = run.samples()
    if saved is None:
        return []
    return [
        Sample(
            index=int(index),
            image=data_uri(image),
            label=int(label),
            reference=Answer("", [], int(expected.argmax()), float(expected.max())),
            answers=_answers(run, int(index)),
        )
        for index, image, label, expected in zip(
            saved["indices"], saved["images"], saved["labels"], saved["probabilities"], strict=True
        )
    ]


def _answers(run: SavedRun, index: int) -> list[Answer]:
    found: dict[tuple[str, int, float], list[str]] = {}
    for stack, protocols in run.wire_targets.items():
        for protocol, figures in protocols.items():
            best = (figures.get("examples") or {}).get(str(index))
            if best:
                found.setdefault((stack, int(best[0]), round(float(best[1]), 5)), []).append(protocol)
    return [Answer(stack, protocols, best, probability) for (stack, best, probability), protocols in found.items()]


def data_uri(image: np.ndarray) -> str:
    """A uint8 image [H, W, 3] as a PNG inside an address."""
    picture = Image.fromarray(image)
    factor = max(1, -(-SMALLEST // max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def class_name(names: list[Any], index: int) -> str:
    """A class' name, or its number where the bundle has no names."""
    return wording.isolated(str(names[index])) if 0 <= index < len(names) else f"class {index}"


@dataclass(frozen=True)
class Disagreement:
    """How often a target's best class (``answered``) was another than the reference's (``expected``); ``model`` is
    empty where there is only one."""

    target: str
    protocol: str
    expected: int
    answered: int
    times: int
    model: str = ""


def disagreements(parity: dict[str, Any]) -> list[Disagreement]:
    """The confusion of best classes over all models, servers and protocols; ``parity``: as in summary.json."""
    return [
        Disagreement(stack, protocol, int(expected), int(answered), int(times), model)
        for model, one in evidence(parity).items()
        for stack, protocols in one["wire"].items()
        for protocol, figures in protocols.items()
        for expected, answered, times in figures.get("disagreements") or []
    ]


def evidence(parity: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The parity figures of each of several models by its name, or of the only one by no name."""
    return parity.get("by_model") or {"": parity}
