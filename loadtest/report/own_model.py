"""Whose files were served: words for what the user brought in place of Tandem's exports."""

from __future__ import annotations

from loadtest.analysis.records import OwnFile, Summary
from loadtest.report import wording
from models.bundle import Around, Kind

SIDES = {
    Kind.SAVEDMODEL: ("TensorFlow’s side", "the user’s SavedModel"),
    Kind.TORCHSCRIPT: ("PyTorch’s side", "the user’s TorchScript file"),
    Kind.ONNX: ("ONNX", "the user’s file"),
}
DOES = {
    Around.RENAMED: "renames input and output",
    Around.CAST: "casts",
    Around.NORMALISED: "scales the pixels",
    Around.TRANSPOSED: "puts channels first",
    Around.SOFTMAX: "adds the softmax",
}


def rows(figures: Summary) -> list[tuple[str, str]]:
    """(Which side, whose file and what is around it), for each file that the user brought."""
    return [(SIDES[kind][0], _told(kind, file)) for kind, file in figures.own_files.items()]


def _told(kind: Kind, file: OwnFile) -> str:
    what = f"{SIDES[kind][1]} {wording.isolated(file.name)}"
    if not file.around:
        return f"{what}, as it came"
    return f"{what}, behind a graph of Tandem’s that {wording.listed([DOES[step] for step in file.around])}"
