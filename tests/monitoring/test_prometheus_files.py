import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.components import require

FOLDER = Path(__file__).resolve().parents[2] / "monitoring" / "prometheus"
QUERIES = tomllib.loads((FOLDER / "queries.toml").read_text())


def test_promtool_accepts_the_configuration():
    require("promtool")
    done = subprocess.run(
        ["promtool", "check", "config", "process.yaml"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_engine_is_asked_the_same_questions():
    assert {frozenset(engine["query"]) for engine in QUERIES.values()} == {
        frozenset({"throughput", "latency_p50_ms", "latency_p99_ms", "batch_size_mean", "queue_ms_mean"})
    }
    assert all(engine["latency_meaning"] for engine in QUERIES.values())


@pytest.mark.parametrize("engine", QUERIES)
def test_every_query_looks_at_the_trial_alone(engine):
    for query in QUERIES[engine]["query"].values():
        ranges = re.findall(r"\[(\$[^\]]+|[0-9][^\]]*)\]", query)
        assert ranges
        assert set(ranges) <= {"$window", "$window:100ms"}
