"""Ten samples of the test set with every server's answer beside the reference: parity for the eye."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from loadtest.analysis.records import Parity, WireParity
from loadtest.analysis.saved_run import SavedRun
from loadtest.report import wording

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
            answers=_answers(run.wire_targets, int(index)),
        )
        for index, image, label, expected in zip(
            saved["indices"], saved["images"], saved["labels"], saved["probabilities"], strict=True
        )
    ]


def _answers(wire: Mapping[str, Mapping[str, WireParity]], index: int) -> list[Answer]:
    found: dict[tuple[str, int, float], list[str]] = {}
    for target, protocols in wire.items():
        for protocol, figures in protocols.items():
            if str(index) in figures.examples:
                best, probability = figures.examples[str(index)]
                found.setdefault((target, best, round(probability, 5)), []).append(protocol)
    return [Answer(target, protocols, best, probability) for (target, best, probability), protocols in found.items()]


def data_uri(image: np.ndarray) -> str:
    """A uint8 image [H, W, 3], or [H, W, 1] in gray, as a PNG inside an address."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    factor = max(1, -(-SMALLEST // max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def class_name(names: Sequence[str], index: int) -> str:
    """A class' name, or its number where the bundle has no names; of an image without a label none."""
    if index < 0:
        return wording.NOTHING
    return wording.isolated(names[index]) if 0 <= index < len(names) else f"class {index}"


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


def disagreements(parity: Parity) -> list[Disagreement]:
    """The confusion of best classes over all models, servers and protocols; ``parity``: as in summary.json."""
    return [
        Disagreement(target, protocol, expected, answered, times, model)
        for model, one in evidence(parity).items()
        for target, protocols in one.wire.items()
        for protocol, figures in protocols.items()
        for expected, answered, times in figures.disagreements
    ]


def evidence(parity: Parity) -> Mapping[str, Parity]:
    """The parity figures of each of several models by its name, or of the only one by no name."""
    return parity.by_model or {"": parity}
