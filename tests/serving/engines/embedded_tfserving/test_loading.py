"""Loading a version: what makes it fail, and what may travel with it (batching parameters, warm-up records)."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving.engines.embedded_tfserving import config
from serving.engines.embedded_tfserving.batching import Batcher
from serving.engines.embedded_tfserving.direct import Direct
from serving.engines.embedded_tfserving.flags import Flags
from serving.engines.embedded_tfserving.manager import Manager, State, Version
from serving.engines.embedded_tfserving.metrics import Metrics
from serving.engines.embedded_tfserving.status import ServingError
from serving.engines.embedded_tfserving.workers import Workers


@pytest.fixture
def version(models_folder: Path, tmp_path: Path) -> Path:
    """A copy of one version of the CNN, to which a test may add files."""
    return shutil.copytree(models_folder / "cnn" / "1", tmp_path / "cnn" / "1")


def load(version: Path, **values: Any) -> tuple[Version, Metrics]:
    """What the manager makes of the version; raises `ServingError` as the server says it at its start."""
    flags = Flags(**{"model_name": "cnn", "model_base_path": str(version.parent), "max_num_load_retries": 0, **values})
    metrics = Metrics("test")

    async def start() -> Version:
        manager = Manager(flags, config.batching_parameters(flags), Workers(asyncio.get_running_loop(), 1, 1), metrics)
        await manager.start(config.model_configs(flags))
        return manager.find("cnn")

    return asyncio.run(start()), metrics


def test_warm_up_records_are_named_and_not_replayed(version: Path, caplog):
    records = version / "assets.extra" / "tf_serving_warmup_requests"
    records.parent.mkdir()
    records.write_bytes(b"no records at all")
    log = logging.getLogger("embedded-tfserving")
    log.addHandler(caplog.handler)  # it need not propagate
    try:
        loaded, _ = load(version)
    finally:
        log.removeHandler(caplog.handler)
    assert loaded.state == State.AVAILABLE
    assert f"{records}: warm-up records are not replayed here" in caplog.messages


def test_batching_parameters_in_the_versions_folder(version: Path, tmp_path: Path):
    common = tmp_path / "batching.txt"
    common.write_text("max_batch_size { value: 64 }")
    own = version / "batching_params.pbtxt"
    own.write_text("max_batch_size { value: 4 }")
    batching = {"enable_batching": True, "batching_parameters_file": str(common)}

    runner = load(version, **batching)[0].runner  # without the flag, the file does not count
    assert isinstance(runner, Batcher)
    assert runner.parameters.max_batch_size == 64
    runner = load(version, **batching, enable_per_model_batching_parameters=True)[0].runner
    assert isinstance(runner, Batcher)
    assert runner.parameters.max_batch_size == 4

    own.write_text("nonsense: 1")
    with pytest.raises(ServingError, match=f"INVALID_ARGUMENT: Invalid protobuf file: '{own}'"):
        load(version, **batching, enable_per_model_batching_parameters=True)
    own.unlink()  # no file, no batching
    assert isinstance(load(version, **batching, enable_per_model_batching_parameters=True)[0].runner, Direct)


def test_the_model_that_fails_is_named_and_the_reason_is_the_runtimes(version: Path):
    with pytest.raises(ServingError, match=r"Could not find meta graph def matching supplied tags: \{ gpu \}"):
        load(version, saved_model_tags="gpu")
    (version / "variables" / "variables.data-00000-of-00001").write_bytes(b"short")
    with pytest.raises(ServingError, match=r"^UNKNOWN: 1 servable\(s\) did not become available: {{{name: cnn version"):
        load(version)


def test_labels_at_the_start_need_the_flag(version: Path, tmp_path: Path):
    file = tmp_path / "models.txt"
    file.write_text(
        f'model_config_list {{ config {{ name: "cnn" base_path: "{version.parent}" '
        'version_labels { key: "stable" value: 1 } } }'
    )
    with pytest.raises(ServingError, match="Request to assign label to version 1 of model cnn, which is not currently"):
        load(version, model_config_file=str(file))
    loaded, _ = load(version, model_config_file=str(file), allow_version_labels_for_unavailable_models=True)
    assert loaded.number == 1


def break_model(version: Path) -> None:
    (version / "saved_model.pb").write_bytes(b"no model")


def two_models(version: Path, tmp_path: Path) -> Path:
    """A configuration of the CNN and of a copy that is broken."""
    broken = shutil.copytree(version, tmp_path / "broken" / "1")
    break_model(broken)
    file = tmp_path / "two.txt"
    models = (
        f'config {{ name: "cnn" base_path: "{version.parent}" }} config {{ name: "m" base_path: "{broken.parent}" }}'
    )
    file.write_text(f"model_config_list {{ {models} }}")
    return file


def test_at_the_start_a_model_that_cannot_be_loaded_ends_the_server(version: Path, tmp_path: Path):
    """As startup.jsonl has it: one_good_one_broken."""
    with pytest.raises(
        ServingError, match=r"^UNKNOWN: 1 servable\(s\) did not become available: {{{name: m version: 1}"
    ):
        load(version, model_config_file=str(two_models(version, tmp_path)))


def test_a_reload_with_a_model_that_cannot_be_loaded_leaves_the_others(version: Path, tmp_path: Path):
    flags = Flags(model_config_file=str(two_models(version, tmp_path)), max_num_load_retries=0)
    configs = config.model_configs(flags)

    async def go() -> Manager:
        manager = Manager(flags, None, Workers(asyncio.get_running_loop(), 1, 1), Metrics("test"))
        await manager.start(configs[:1])
        with pytest.raises(ServingError, match=r"\{\{\{name: m version: 1\}"):
            await manager.reload(configs)
        return manager

    manager = asyncio.run(go())
    assert manager.find("cnn").state == State.AVAILABLE
    assert manager.status("m")[0].state == State.END


@pytest.mark.parametrize("retries", [0, 5])
def test_a_model_is_served_while_one_of_its_versions_cannot_be_loaded(version: Path, tmp_path: Path, retries: int):
    break_model(shutil.copytree(version, version.parent / "2"))
    file = tmp_path / "models.txt"
    file.write_text(
        f'model_config_list {{ config {{ name: "cnn" base_path: "{version.parent}" '
        "model_version_policy { all {} } } }"
    )
    loaded, _ = load(version, model_config_file=str(file), max_num_load_retries=retries)
    assert (loaded.number, loaded.state) == (1, State.AVAILABLE)


@pytest.mark.parametrize("batching", [False, True])
def test_a_signature_that_cannot_be_called_harms_no_other(tmp_path: Path, batching: bool):
    saved_model = tf.compat.v1.saved_model
    info = saved_model.utils.build_tensor_info
    predict = "tensorflow/serving/predict"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None], "x")
        sparse = tf.compat.v1.sparse_placeholder(tf.float32, name="sparse")
        total = tf.sparse.reduce_sum(sparse)
        variant = tf.raw_ops.EmptyTensorList(element_shape=[2], max_num_elements=3, element_dtype=tf.float32)
        signatures = {
            "serving_default": saved_model.build_signature_def({"x": info(x)}, {"y": info(x * 2)}, predict),
            "sparse": saved_model.build_signature_def({"s": info(sparse)}, {"y": info(total)}, predict),
            "variant": saved_model.build_signature_def({"x": info(x)}, {"y": info(variant)}, predict),
        }
        builder = saved_model.Builder(str(tmp_path / "odd" / "1"))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    loaded, _ = load(tmp_path / "odd" / "1", enable_batching=batching)
    assert loaded.servable is not None
    assert loaded.servable.uncallable == {"sparse"}
    ones = [np.ones(2, np.float32)]
    for name, signature in loaded.servable.signatures.items():
        if name == "serving_default":
            assert loaded.servable.run(signature, ones)[0].tolist() == [2, 2]
        else:
            with pytest.raises(ServingError):
                loaded.servable.run(signature, ones)
