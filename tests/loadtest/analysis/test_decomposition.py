"""Where the time goes: the parts add up to what the client saw, and what nobody knows stays unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.analysis import decomposition, summary
from loadtest.analysis.records import Decomposition, Measurement, Untold
from loadtest.analysis.run_files import ModelTime
from loadtest.experiment import model_time
from loadtest.experiment.records import ServerFigures
from models import bundle as bundles
from serving.profile import ServingProfile
from tests.loadtest.analysis.figures import measurement
from tests.loadtest.runs.build import write_run, write_trial

MODEL_TIMES = {"pytorch": ModelTime({"1": 0.4, "2": 0.6, "4": 1.0, "8": 1.8})}
SERVER = {"latency_ms_mean": 4.0, "queue_ms_mean": 1.5, "batch_size_mean": 3.0, "compute_ms_mean": 0.9}


def item(*servers: dict[str, Any], **values: Any) -> Measurement:
    return measurement("pytorch", server=tuple(ServerFigures(**server) for server in servers), **values)


def parts(found: Decomposition) -> dict[str, Any]:
    return msgspec.structs.asdict(found.parts_ms)


def test_the_parts_are_model_queue_rest_of_the_server_and_the_way():
    (found,) = decomposition.of([item(SERVER, SERVER)], [5.5], MODEL_TIMES)
    # The model at 3 images lies between 0.6 ms at 2 and 1.0 ms at 4.
    assert parts(found) == pytest.approx(
        {"model": 0.8, "decoding": 0.0, "queue": 1.5, "runtime": 1.7, "transport": 1.5}
    )
    assert found.total_ms == 5.5
    assert found.batch_size_mean == 3.0
    assert found.cannot_report == ()


times = st.floats(0.01, 100)


@given(times, times, st.floats(1, 40), times)
def test_known_parts_add_up_to_the_total_and_none_is_negative(inside, queue, batch, total):
    server = {"latency_ms_mean": inside, "queue_ms_mean": queue, "batch_size_mean": batch}
    (found,) = decomposition.of([item(server)], [total], MODEL_TIMES)
    assert sum(parts(found).values()) == pytest.approx(total)
    assert all(part >= 0 for part in parts(found).values())


@pytest.mark.parametrize(
    ("servers", "model_times", "unknown", "reasons", "problem"),
    [
        (
            [{**SERVER, "queue_ms_mean": None}],
            MODEL_TIMES,
            {"queue", "runtime"},
            [Untold.QUEUE],
            None,
        ),
        ([{**SERVER, "batch_size_mean": None}], MODEL_TIMES, {"model", "runtime"}, [Untold.BATCH], None),
        ([SERVER], {}, {"model", "runtime"}, [Untold.MODEL], None),
        ([SERVER], {"pytorch": ModelTime(problem="no torch")}, {"model", "runtime"}, [Untold.MODEL], "no torch"),
    ],
)
def test_what_nobody_can_report_is_none_and_said(servers, model_times, unknown, reasons, problem):
    (found,) = decomposition.of([item(*servers)], [5.5], model_times)
    assert {part for part, value in parts(found).items() if value is None} == unknown
    assert (list(found.cannot_report), found.model_problem) == (reasons, problem)


def test_a_model_that_took_longer_alone_than_inside_the_server_fills_what_is_there():
    (found,) = decomposition.of([item({**SERVER, "latency_ms_mean": 2.0})], [5.5], MODEL_TIMES)
    assert parts(found) == pytest.approx(
        {"model": 0.5, "decoding": 0.0, "queue": 1.5, "runtime": 0.0, "transport": 3.5}
    )
    assert found.cannot_report == (Untold.UNEVEN,)


def test_decoding_files_is_a_part_of_its_own():
    times = {"pytorch": ModelTime({"1": 0.2, "4": 0.8}, {"1": 0.3, "4": 1.2})}
    (found,) = decomposition.of([item(SERVER)], [5.5], times, encoded=True)
    assert parts(found) == pytest.approx(
        {"model": 0.6, "decoding": 0.9, "queue": 1.5, "runtime": 1.0, "transport": 1.5}
    )
    (shorter,) = decomposition.of([item({**SERVER, "latency_ms_mean": 2.0})], [5.5], times, encoded=True)
    assert parts(shorter) == pytest.approx(
        {"model": 0.2, "decoding": 0.3, "queue": 1.5, "runtime": 0.0, "transport": 3.5}
    )
    assert shorter.cannot_report == (Untold.UNEVEN,)
    (untimed,) = decomposition.of([item(SERVER)], [5.5], {}, encoded=True)
    assert (untimed.parts_ms.decoding, untimed.parts_ms.runtime) == (None, None)


def test_invalid_and_overloaded_measurements_are_not_taken_apart():
    assert decomposition.of([item(SERVER, valid=False), item(SERVER, scenario="capacity")], [5.0, 5.0], {}) == ()


def test_where_the_server_does_not_say_how_long_it_took_there_is_nothing_to_take_apart():
    silent = {**SERVER, "latency_ms_mean": None}
    assert decomposition.of([item(), item(silent)], [5.0, 5.0], MODEL_TIMES) == ()


def test_the_summary_takes_a_run_apart(tmp_path):
    run = write_run(tmp_path / "run", {}, rates={"grpc": [50.0]}, asked=["pytorch"])
    (run / "model-time.json").write_bytes(msgspec.json.encode(MODEL_TIMES))
    for repetition in (1, 2):
        record = {"target": "pytorch", "protocol": "grpc", "offered_rate": 50.0, "repetition": repetition}
        write_trial(run / "trials" / f"t{repetition}", record, [np.full(50, 6.0)] * 3, SERVER)
    (found,) = summary.build(run).decomposition
    assert found.total_ms == pytest.approx(6.0, rel=1e-3)
    assert sum(parts(found).values()) == pytest.approx(found.total_ms)


@pytest.mark.parametrize("engine", ["torchserve", "tensorflow-serving", "embedded-tfserving"])
def test_the_model_alone_is_measured_in_a_process_of_its_own(artifacts: Path, engine):
    bundle = bundles.load(next(artifacts.glob("*/*/manifest.json")).parent)
    found = model_time.measure(bundle, engine, ServingProfile(max_batch_size=4), ())
    assert isinstance(found, model_time.ModelTime)
    assert sorted(found.ms) == [1, 2, 4]
    assert 0 < found.ms[1] < 1000
    assert found.ms[4] > 0.5 * found.ms[1]


def test_a_model_that_cannot_be_measured_is_a_reason_and_not_the_end(tmp_path):
    broken = bundles.Bundle(tmp_path / "nothing", {})
    found = model_time.measure(broken, "torchserve", ServingProfile(), ())
    assert isinstance(found, model_time.NotTimed)
