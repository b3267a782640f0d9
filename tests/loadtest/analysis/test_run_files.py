"""What is read from a run's folder beside its trials, as the parts of Tandem write it."""

from __future__ import annotations

import codecs
import json
import time

import pytest

from loadtest.analysis import run_files
from loadtest.experiment import environment
from loadtest.experiment.file import Experiment
from loadtest.experiment.records import Environment, Lateness, NoPrometheus, Remark, values_of
from loadtest.experiment.settings import Slo
from loadtest.experiment.target_specs import TargetSpec
from models.problem import Problem
from serving.engines.engine import Knob, KnobKind, Switch
from serving.target import Caveat, Target

KNOBS = (
    Knob("max_batch_size", "batchSize", 32, "requests", KnobKind.OTHER_UNIT),
    Knob("instances", "", None, kind=KnobKind.NO_COUNTERPART, note="One process computes all batches."),
)
SWITCHES = (Switch("oneDNN", False), Switch("quantized engine", "x86"), Switch("TF_ENABLE_ONEDNN_OPTS", None))


def test_a_target_comes_back_with_its_knobs_and_caveats(tmp_path):
    target = Target(
        name="plain",
        engine="torchserve",
        engine_version="0.12.0",
        runtime="container",
        model="convnet",
        version=3,
        input_shape=(28, 28, 3),
        classes=10,
        grpc="127.0.0.1:7070",
        rest="127.0.0.1:8080",
        metrics=None,
        cores=(0, 1),
        knobs=KNOBS,
        switches=SWITCHES,
        caveats=(Caveat.DOCKER_PROXY,),
    )
    (tmp_path / "targets.json").write_text(json.dumps([target.to_dict()]))
    (found,) = run_files.targets(tmp_path / "targets.json")
    assert (found.name, found.engine, found.version, found.cores) == ("plain", "torchserve", 3, (0, 1))
    assert (found.knobs, found.switches, found.caveats) == (KNOBS, SWITCHES, (Caveat.DOCKER_PROXY,))


def test_an_experiment_comes_back_with_what_differs_for_one_target(tmp_path):
    targets = (TargetSpec("batching", "torchserve", {"max_batch_size": 64}), TargetSpec("plain", "torchserve"))
    asked = Experiment(name="batching", targets=targets, slo=Slo(p99_ms=20.0))
    (tmp_path / "experiment.toml").write_text(asked.to_toml())
    read = run_files.experiment(tmp_path / "experiment.toml")
    assert read is not None
    found, text = read
    assert text == asked.to_toml()
    assert (found.name, found.targets, found.slo) == ("batching", ("batching", "plain"), Slo(p99_ms=20.0))
    assert found.overrides == {"batching": {"max_batch_size": 64}}
    assert found.profile["max_batch_size"] == asked.profile.max_batch_size
    assert found.images_of("offline") == asked.offline.batch
    assert found.sections["warm_up"]["window_s"] == asked.warm_up.window_s


def test_a_slo_that_leaves_something_out_has_the_experiment_s_defaults(tmp_path):
    (tmp_path / "experiment.toml").write_text("[slo]\np99_ms = 10.0\n")
    read = run_files.experiment(tmp_path / "experiment.toml")
    assert read is not None
    assert read[0].slo == Slo(p99_ms=10.0, error_ratio=Experiment().slo.error_ratio)


def test_the_environment_of_this_machine_comes_back(tmp_path):
    here = environment.describe()
    noted = [{"type": "no-prometheus"}, "a sentence of the previous format"]
    late = {"p50": 0.05, "p99": 0.4, "max": 2.0}
    more = {"prometheus": None, "server_cores": [0], "wake_up_lateness_ms": late, "warnings": noted}
    (tmp_path / "environment.json").write_text(json.dumps({**values_of(here), **more}))
    found = run_files.environment(tmp_path / "environment.json")
    assert (found.cpu_count, found.python, found.libraries) == (here.cpu_count, here.python, here.libraries)
    assert found.started_at == pytest.approx(time.time(), abs=60)
    assert (found.prometheus, found.server_cores) == (None, (0,))
    assert found.wake_up_lateness_ms == Lateness(**late)
    assert found.warnings == (NoPrometheus(), Remark(text="a sentence of the previous format"))


def test_a_file_that_an_editor_gave_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "experiment.toml"
    path.write_bytes(codecs.BOM_UTF8 + b'model = "lenet"\n')
    read = run_files.experiment(path)
    assert read is not None
    assert (read[0].model, read[1]) == ("lenet", 'model = "lenet"\n')


def test_what_is_not_there_is_empty(tmp_path):
    assert run_files.experiment(tmp_path / "experiment.toml") is None
    assert run_files.environment(tmp_path / "environment.json") == Environment()
    assert run_files.targets(tmp_path / "targets.json") == []
    assert run_files.read(tmp_path / "model-time.json", dict[str, run_files.ModelTime]) is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("experiment.toml", "targets = 3", r"experiment.toml: not an experiment: Expected `array`.*targets"),
        ("experiment.toml", "[slo]\np99_ms = -1", r"experiment.toml: not an experiment: slo.p99_ms"),
        ("environment.json", "[]", r"environment.json: Expected `object`, got `array`"),
        (
            "environment.json",
            '{"warnings": [{"type": "weather"}]}',
            r"environment.json: Invalid value 'weather'",
        ),
        ("targets.json", '[{"name": 3}]', r"targets.json: Expected `str \| null`.*name"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong_in_it(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    readers = {
        "experiment.toml": run_files.experiment,
        "environment.json": run_files.environment,
        "targets.json": run_files.targets,
    }
    with pytest.raises(Problem, match=message) as problem:
        readers[name](path)
    assert "\n" not in str(problem.value)
