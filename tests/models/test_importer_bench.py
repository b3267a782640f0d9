"""The bench of the importer: its table, what it exits with, and that its twins are the networks of the house."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from models import importer_bench
from models.importer_bench import Row, interleaved, table
from models.problem import Problem
from models.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
MS = {"imported": 105.0, "keras": 100.0, "eager": 240.0, "torchscript": 120.0, "onnxruntime": 84.0}
ROWS = [Row("resnet50", 1, MS), Row("mobilenet_v2", 32, {**MS, "imported": 1060.0, "keras": 1000.0})]


def printed() -> list[list[str]]:
    out = io.StringIO()
    Console(file=out, width=200).print(table(ROWS, 2))
    lines = [line for line in out.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_the_table_has_times_and_their_ratios():
    first, second = printed()
    assert first == ["resnet50", "1", "105.0", "100.0", "240.0", "120.0", "84.0", "1.05", "0.50", "1.25", "yes"]
    assert second[:3] == ["mobilenet_v2", "32", "1,060.0"]
    assert second[-1] == "no: more than 1.05"
    assert [row.holds for row in ROWS] == [True, False]


def test_all_take_turns_forth_and_back_and_the_first_rounds_do_not_count():
    order = []

    def run(name: str):
        return lambda images: order.append((name, images.shape, images.dtype))

    with Progress(io.StringIO()).bar("timing", 12, "runs") as bar:
        times = interleaved({"a": run("a"), "b": run("b")}, 2, 3, bar)
    assert list(times) == ["a", "b"]
    assert "".join(name for name, _, _ in order) == "baab" * 3
    assert {(shape, dtype) for _, shape, dtype in order} == {((2, 224, 224, 3), np.dtype(np.uint8))}


@pytest.mark.parametrize("wrong", [["--batches", "0"], ["--rounds", "0"], ["--threads", "-1"]])
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(Problem, match="use whole numbers of 1 or more"):
        importer_bench.main(wrong)


@pytest.mark.exhaustive
def test_it_runs_and_the_twins_are_the_networks_of_the_house(tmp_path):
    command = [sys.executable, "-m", "models.importer_bench", "--models", "mobilenet_v2", "--rounds", "1"]
    command += ["--batches", "1", "2", "--json", str(tmp_path / "rows.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode in (0, 1), done.stderr  # one round says little about speed
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["model"], row["batch"]) for row in rows] == [("mobilenet_v2", 1), ("mobilenet_v2", 2)]
    assert all(value > 0 for row in rows for value in row["ms"].values())
    from models.keras_twins import TWINS

    # Published: torchvision's figures, which count what is trained.
    for name, parameters in (("resnet50", 25_557_032), ("mobilenet_v2", 3_504_872)):
        assert sum(np.prod(weight.shape) for weight in TWINS[name](1000).trainable_weights) == parameters
