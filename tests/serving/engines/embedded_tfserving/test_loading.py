"""Loading a version: what makes it fail, and what may travel with it (batching parameters, warm-up records)."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

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
    flags = Flags(model_name="cnn", model_base_path=str(version.parent), max_num_load_retries=0, **values)
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
