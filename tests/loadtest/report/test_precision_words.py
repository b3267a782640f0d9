"""What a report says of precision: what was computed in, which exports could not be asked in it, and what two runs that
differ in it compare."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadtest import report
from loadtest.analysis import saved_run, summary, two_runs
from loadtest.analysis.records import ModelsDiffer, PrecisionsDiffer
from loadtest.report import against, conditions, first_screen, warning_words
from models.precision import Precision
from tests.loadtest.runs.build import TF_SERVING, TORCHSERVE, write_run

BOTH = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}
NOT_ASKED = "not asked: its runtime has no kernels for this precision on a CPU"


def _change(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def _run(folder: Path, precision: Precision, checkpoint: str = "0") -> Path:
    """A run at a precision, as the instrument saves it; of one checkpoint, the exports' files differ by precision."""

    def manifest(values: dict[str, Any]) -> dict[str, Any]:
        parity = {**values["parity"], "tolerance": precision.tolerance}
        if precision is Precision.BF16:
            parity["exports"] = {name: one for name, one in parity["exports"].items() if name != "onnx"}
            parity["left_out"] = {"onnx": {"why": "no-kernel", "detail": "NOT_IMPLEMENTED"}}
            parity["from_fp32"] = {"max_abs_diff": 0.0019, "top1_agreement": 0.995}
        files = {"checkpoint.pt": 64 * checkpoint, "onnx/model.onnx": 64 * precision[0]}
        return {**values, "precision": precision.value, "parity": parity, "files": files}

    run = write_run(folder, BOTH, rates={"grpc": [200.0, 400.0]}, duration_s=2)
    _change(run / "targets.json", lambda targets: [{**one, "precision": precision.value} for one in targets])
    _change(run / "bundle-manifest.json", manifest)
    _change(run / "wire-parity.json", lambda wire: {**wire, "tolerance": precision.tolerance})
    return run


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    return _run(tmp_path_factory.mktemp("runs") / "full", Precision.FP32)


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    return _run(tmp_path_factory.mktemp("runs") / "short", Precision.BF16)


def test_what_was_computed_in_and_how_far_that_is_from_float32_is_on_the_first_screen(full, short):
    assert first_screen.build(summary.build(full)).precision == ""
    figures = summary.build(short)
    said = first_screen.build(figures).precision
    assert said == (
        "Computed in bf16: probabilities lie up to 1.9 × 10⁻³ from float32’s, the best class is the same for 99.50 % "
        "of the images."
    )
    told = dict(conditions.conditions(figures))["Precision"]
    assert told == "bf16: weights and activations of both exported graphs; preprocessing and softmax in float32"
    assert dict(conditions.conditions(summary.build(full)))["Precision"] == "fp32, strict: no TF32"
    assert "in bf16" in conditions.holds(figures)


def test_an_export_that_could_not_be_asked_has_a_row_that_says_why(full, short):
    for run, rows in ((short, 1), (full, 0)):
        report.write(run)
        assert (run / "report.md").read_text().count(NOT_ASKED) == rows
        assert html.unescape((run / "report.html").read_text()).count(NOT_ASKED) == rows


def test_of_two_precisions_it_is_said_that_they_are_compared_and_no_other_model_is_claimed(full, short, tmp_path):
    found = two_runs.compare(saved_run.load(short), saved_run.load(full)).warnings
    assert {one for one in found if isinstance(one, PrecisionsDiffer)} == {
        PrecisionsDiffer(name, Precision.FP32, Precision.BF16) for name in BOTH
    }
    assert ModelsDiffer() not in found  # of one checkpoint every other file follows from the precision
    page, _ = against.write(short, full)
    text = html.unescape(page.read_text(encoding="utf-8"))
    for one in found:
        if isinstance(one, PrecisionsDiffer):
            words = warning_words.of_two_runs(one, "full")
            assert words.endswith("is precision: the baseline computed in fp32, this run in bf16")
            assert words in text
    other = _run(tmp_path / "other", Precision.BF16, checkpoint="1")
    assert ModelsDiffer() in two_runs.compare(saved_run.load(other), saved_run.load(full)).warnings
