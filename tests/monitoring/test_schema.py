import re
import tomllib

import pytest

from monitoring import schema

METRICS = schema.load().metrics


def test_every_metric_of_a_server_has_a_source_or_a_reason_in_every_dialect():
    for name, metric in METRICS.items():
        if metric.subject == "serving" and not {"scrape", "process", "recorded"} & set(metric.dialects):
            assert set(metric.dialects) | set(metric.cannot) == {"torchserve", "tensorflow-serving", "triton"}, name


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_described_in_base_units(name):
    metric = METRICS[name]
    assert metric.description.endswith(".")
    assert metric.description[0].isupper()
    unit = re.search(r"_(seconds|bytes)", name)
    assert unit is None or metric.unit == unit[1]
    assert (metric.unit == "ratio") == bool(re.search(r":ratio(_\w+)?$", name))
    assert (metric.quantile is not None) == bool(re.search(r":p\d+$", name))


@pytest.mark.parametrize("name", METRICS)
def test_expressions_are_written_out_for_any_window(name):
    metric = METRICS[name]
    for dialect in metric.dialects:
        expression = metric.expression(dialect, "17s")
        assert not re.search(r"<[a-z_]", expression)
        assert set(re.findall(r"\[(\d+\w+)[:\]]", expression)) <= {"17s"}


def test_the_objective_is_a_bucket_of_both_servers():
    good = METRICS["serving:goodput:rate1m"]
    assert 'le="0.0674664"' in good.expression("torchserve")
    assert 'le="67466.4"' in good.expression("tensorflow-serving")


def test_servers_and_their_dialects():
    loaded = schema.load()
    assert loaded.servers == (
        *("torchserve", "tensorflow-serving", "embedded-tfserving"),
        *("triton", "triton-torchscript"),
    )
    assert loaded.dialect_of("embedded-tfserving") == "tensorflow-serving"
    assert loaded.dialect_of("triton-torchscript") == "triton"
    with pytest.raises(KeyError):
        loaded.dialect_of("tritno")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('unit = "version"', 'unit = "fortnights"'), 'serving:model_version: unit "fortnights"'),
        (('kind = "state"', 'kind = "mood"'), 'serving:model_version: kind "mood"'),
        (("<by_phase>", "<by_face>"), "loadtest:offered:rate1m: no term <by_face>"),
        (("dcgm = ", "amd = "), 'gpu:utilisation:ratio: dialect "amd"'),
    ],
)
def test_a_mistake_is_named(tmp_path, change, message):
    changed = tmp_path / "schema.toml"
    changed.write_text(schema.SCHEMA.read_text().replace(*change))
    assert tomllib.loads(changed.read_text())
    with pytest.raises(schema.SchemaError, match=re.escape(message)):
        schema.load(changed)
