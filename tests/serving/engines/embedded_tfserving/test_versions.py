"""Following the file system and the configuration, as recorded in hotreload.jsonl and the reload_* calls."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, model_service_pb2_grpc

from tests.serving.engines.embedded_tfserving.embedded import Embedded, predict_request, running

pytestmark = pytest.mark.slow

IMAGE = np.zeros((1, 32, 32, 3), np.uint8)
STATES = get_model_status_pb2.ModelVersionStatus.State.Name


def until(ready: Callable[[], bool], timeout_s: float = 30) -> None:
    """Wait until something has become so."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def states(server: Embedded, model: str = "cnn") -> dict[int, str]:
    """Version to state, and the error's code after it where there is one."""
    status, body = server.http("GET", f"/v1/models/{model}")
    assert status == 200
    found = {}
    for version in json.loads(body)["model_version_status"]:
        error = version["status"]["error_code"]
        found[int(version["version"])] = version["state"] + ("" if error == "OK" else f" {error}")
    return found


def served(server: Embedded, model: str = "cnn") -> int:
    """The version that answers a request which names none."""
    return int(server.predict(model, {"images": IMAGE}).model_spec.version.value)


@contextmanager
def traffic(server: Embedded) -> Iterator[list[Any]]:
    """Predictions one after the other all the while; what each ended with (a version, or an error)."""
    seen: list[Any] = []
    stopped = threading.Event()

    def send() -> None:
        while not stopped.is_set():
            try:
                seen.append(served(server))
            except grpc.RpcError as error:
                seen.append(error)

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        try:
            yield seen
        finally:
            stopped.set()
            sending.result(60)


def put(models_folder: Path, source: str, base: Path, number: int) -> None:
    """Copy a version beside its place, then move it there in one step."""
    base.mkdir(parents=True, exist_ok=True)
    shutil.copytree(models_folder / source, base.parent / "arriving")
    (base.parent / "arriving").rename(base / str(number))


@pytest.fixture
def base(models_folder: Path, tmp_path: Path) -> Path:
    """A model's folder with version 2 in it."""
    put(models_folder, "cnn/2", tmp_path / "hot" / "cnn", 2)
    return tmp_path / "hot" / "cnn"


@pytest.fixture
def server(base: Path, tmp_path: Path) -> Iterator[Embedded]:
    flags = ["--model_name=cnn", f"--model_base_path={base}", "--max_num_load_retries=0", "--enable_batching"]
    with running(tmp_path / "server", *flags) as started:
        yield started


def test_versions_follow_the_folder_and_no_request_fails(models_folder: Path, base: Path, server: Embedded):
    with traffic(server) as seen:
        # A newer version replaces the older one.
        put(models_folder, "cnn_v3/3", base, 3)
        until(lambda: states(server) == {3: "AVAILABLE", 2: "END"})
        assert served(server) == 3

        # It goes away: the older one comes back.
        shutil.rmtree(base / "3")
        until(lambda: states(server) == {3: "END", 2: "AVAILABLE"})
        assert served(server) == 2

        # An empty folder is an error of that version and of nothing else.
        (base / "5").mkdir()
        until(lambda: states(server) == {5: "END NOT_FOUND", 3: "END", 2: "AVAILABLE"})
        body = json.loads(server.http("GET", "/v1/models/cnn/versions/5")[1])
        assert body["model_version_status"][0]["status"]["error_message"] == (
            "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
            f"`saved_model.pb`)\nSpecified file path: {base}/5"
        )
        assert served(server) == 2
    assert [one for one in seen if isinstance(one, grpc.RpcError)] == []
    assert set(seen) == {2, 3}

    # No version is left: the model is unloaded, and comes back with its folder.
    shutil.move(base / "2", base.parent / "kept")
    shutil.rmtree(base / "5")
    until(lambda: states(server)[2] == "END")
    with pytest.raises(grpc.RpcError) as refused:
        served(server)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert refused.value.details() == "Servable not found for request: Latest(cnn)"
    (base.parent / "kept").rename(base / "2")
    until(lambda: states(server)[2] == "AVAILABLE")
    assert served(server) == 2

    # The base path itself goes away: what is served stays.
    base.rename(base.parent / "elsewhere")
    with traffic(server) as seen:
        until(lambda: len(seen) > 500)
    assert set(seen) == {2}


# TensorFlow Serving's default is 5 retries, a minute apart: a version that has become complete does not wait for them.
@pytest.mark.parametrize("retries", [0, 5])
def test_a_half_copied_version_is_never_served_and_is_loaded_when_it_is_complete(
    models_folder: Path, base: Path, tmp_path: Path, retries: int
):
    flags = ["--model_name=cnn", f"--model_base_path={base}", f"--max_num_load_retries={retries}", "--enable_batching"]
    with running(tmp_path / "server", *flags) as server, traffic(server) as seen:
        source, copy = models_folder / "cnn" / "1", base / "4"
        copy.mkdir()
        shutil.copy(source / "saved_model.pb", copy)
        until(lambda: "loading cnn version 4 failed" in server.log.read_text())
        assert states(server)[2] == "AVAILABLE"
        assert states(server)[4] != "AVAILABLE"
        (copy / "variables").mkdir()
        shutil.copy(source / "variables" / "variables.index", copy / "variables")
        data = (source / "variables" / "variables.data-00000-of-00001").read_bytes()
        with (copy / "variables" / "variables.data-00000-of-00001").open("wb", buffering=0) as arriving:
            arriving.write(data[: len(data) // 2])
            until(lambda: len(seen) > 300)
            arriving.write(data[len(data) // 2 :])
        until(lambda: states(server) == {4: "AVAILABLE", 2: "END"})
        assert served(server) == 4
    assert [one for one in seen if isinstance(one, grpc.RpcError)] == []


def test_a_long_request_keeps_its_version_and_holds_up_nothing_else(models_folder: Path, tmp_path: Path):
    hot = tmp_path / "hot"
    put(models_folder, "slow/1", hot / "slow", 1)
    put(models_folder, "cnn/2", hot / "cnn", 2)
    file = tmp_path / "models.txt"
    models = "".join(f'config {{ name: "{name}" base_path: "{hot / name}" }} ' for name in ("cnn", "slow"))
    file.write_text(f"model_config_list {{ {models} }}")
    flags = [f"--model_config_file={file}", "--tensorflow_inter_op_parallelism=4"]
    with running(tmp_path / "server", *flags) as server, ThreadPoolExecutor(1) as pool:
        started = time.perf_counter()
        server.predict("slow", {"x": np.array([300], np.float32)})
        amount = 300 * 6 / (time.perf_counter() - started)
        long = pool.submit(server.predict, "slow", {"x": np.array([amount], np.float32)})
        put(models_folder, "slow/1", hot / "slow", 2)
        until(lambda: states(server, "slow").get(2) == "AVAILABLE")
        put(models_folder, "cnn_v3/3", hot / "cnn", 3)
        until(lambda: states(server) == {3: "AVAILABLE", 2: "END"})
        assert not long.done()
        assert states(server, "slow") == {2: "AVAILABLE", 1: "UNLOADING"}
        assert long.result(60).model_spec.version.value == 1
        until(lambda: states(server, "slow") == {2: "AVAILABLE", 1: "END"})


def reload(server: Embedded, models: str, timeout: float = 60) -> None:
    """HandleReloadConfigRequest with this list of models; raises grpc.RpcError."""
    from google.protobuf import text_format

    request = text_format.Parse(
        f"config {{ model_config_list {{ {models} }} }}", model_management_pb2.ReloadConfigRequest()
    )
    response = model_service_pb2_grpc.ModelServiceStub(server.channel).HandleReloadConfigRequest(
        request, timeout=timeout
    )
    assert response.HasField("status")
    assert response.status.error_code == 0


def labelled(server: Embedded, label: str) -> int:
    request = predict_request("cnn", {"images": IMAGE})
    request.model_spec.version_label = label
    return int(server.prediction.Predict(request, timeout=60).model_spec.version.value)


def test_a_reload_request_changes_models_policies_and_labels(models_folder: Path, tmp_path: Path):
    cnn = f'name: "cnn" base_path: "{models_folder}/cnn" model_platform: "tensorflow"'
    misc = f'config {{ name: "misc" base_path: "{models_folder}/misc" }}'
    stable_1 = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'
    stable_2 = 'version_labels { key: "stable" value: 2 } version_labels { key: "canary" value: 1 }'
    file = tmp_path / "models.txt"
    first = f"config {{ {cnn} model_version_policy {{ all {{}} }} {stable_1} }} {misc}"
    file.write_text(f"model_config_list {{ {first} }}")
    flags = [f"--model_config_file={file}", "--allow_version_labels_for_unavailable_models=true"]
    with running(tmp_path / "server", *flags, "--model_config_file_poll_wait_seconds=1") as server:
        assert (labelled(server, "stable"), labelled(server, "canary")) == (1, 2)

        # Labels move, and a new model is there when the call returns.
        other = f'config {{ name: "cnn_b" base_path: "{models_folder}/cnn" }}'
        reload(server, f"config {{ {cnn} model_version_policy {{ all {{}} }} {stable_2} }} {misc} {other}")
        assert (labelled(server, "stable"), labelled(server, "canary")) == (2, 1)
        assert states(server, "cnn_b") == {2: "AVAILABLE"}

        # What cannot be served is refused at once and changes nothing.
        for models, code, message in (
            (f"{misc} {misc}", "INVALID_ARGUMENT", "Illegal to list model misc multiple times in config list"),
            (f'{misc} config {{ name: "n" base_path: "{tmp_path}/none" }}', "NOT_FOUND", "Could not find base path"),
            (
                f'config {{ {cnn} version_labels {{ key: "stable" value: 9 }} }}',
                "FAILED_PRECONDITION",
                "Request to assign label to version 9 of model cnn, which is not currently available for inference",
            ),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                reload(server, models)
            assert (refused.value.code().name, refused.value.details()[: len(message)]) == (code, message)
        assert (labelled(server, "stable"), labelled(server, "canary")) == (2, 1)

        # A policy names the versions; one that it no longer names is unloaded.
        reload(server, f"config {{ {cnn} model_version_policy {{ specific {{ versions: 1 }} }} }}")
        until(lambda: states(server) == {2: "END", 1: "AVAILABLE"})
        with pytest.raises(grpc.RpcError, match=r"Servable not found for request: Specific\(cnn, 2\)"):
            server.prediction.Predict(versioned(2), timeout=60)
        assert states(server, "misc") == {1: "END"}
        with pytest.raises(grpc.RpcError, match=r"Servable not found for request: Latest\(misc\)"):
            server.predict("misc", {"x": np.zeros((1, 2), np.float32)})
        with pytest.raises(grpc.RpcError, match="Unrecognized servable version label: stable"):
            labelled(server, "stable")

        # The configuration file is followed, too; a broken one changes nothing.
        file.write_text("model_config_list { config { nome:")
        until(lambda: "Invalid protobuf file" in server.log.read_text())
        assert states(server) == {2: "END", 1: "AVAILABLE"}
        file.write_text(f"model_config_list {{ {first} }}")
        until(lambda: states(server) == {2: "AVAILABLE", 1: "AVAILABLE"} and states(server, "misc") == {1: "AVAILABLE"})
        until(lambda: "Unrecognized" not in str(server.http("POST", "/v1/models/cnn/labels/stable:predict", {})))
        assert (labelled(server, "stable"), labelled(server, "canary")) == (1, 2)


def versioned(number: int) -> Any:
    request = predict_request("cnn", {"images": IMAGE})
    request.model_spec.version.value = number
    return request
