"""The replacement of a server under load: nobody loses a request; and the pieces that it is measured with."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import grpc
import pytest

from loadtest.bench import drain
from loadtest.bench.name_server import Endpoints, NameServer, answer
from loadtest.bench.switching_load import FLOWS, Outcome
from serving.engines import registry
from tests.components import require_program

pytestmark = pytest.mark.slow


def test_a_replacement_as_the_deployment_does_it_loses_nothing(bundle, tmp_path, monkeypatch, capsys):
    """The embedded server, in a fortieth of the time; for TorchServe there is the bench itself."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # without a real server
    monkeypatch.setattr(drain, "WAYS", drain.WAYS[-1:])
    monkeypatch.setattr(drain, "BEFORE_S", 0.5)
    monkeypatch.setenv("TANDEM_DRAIN_S", "0.5")
    file = tmp_path / "rows.json"
    options = ["--target", "tensorflow", "--rate", "20", "--scale", "0.025", "--json", str(file)]
    assert drain.VERB.main(["--bundle", str(bundle.folder), *options]) == 0
    rows = json.loads(file.read_text())
    assert [row["flow"] for row in rows] == list(map(str, FLOWS))
    for row in rows:
        assert (row["lost"], row["refused"], row["failures"]) == (0, 0, [])
        assert row["sent"] > 40
        assert row["ended_s"] > 0.5
    assert "replaced, entry point, preStop" in capsys.readouterr().out


@pytest.fixture
def program(tmp_path) -> Path:
    """A server that listens on every address and dies of SIGTERM at once, as TensorFlow Serving does, and says that it
    is it: the embedded server with what it would do otherwise taken away."""
    path = tmp_path / "tensorflow_model_server"
    path.write_text(
        f"""#!/bin/sh
if [ "$1" = --version ]; then echo "TensorFlow ModelServer: 2.20.0+dev.sha.bc7e9d2"; exit; fi
{sys.executable} -m serving.engines.embedded_tfserving "$@" &
trap "kill -9 $!" TERM
wait
"""
    )
    path.chmod(0o755)
    return path


@pytest.mark.exhaustive
def test_the_real_server_is_measured_where_it_is_named_though_it_listens_everywhere(
    bundle, program, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(drain, "WAYS", (drain.WAYS[0], drain.WAYS[2], drain.WAYS[-1]))
    monkeypatch.setattr(drain, "BEFORE_S", 0.5)
    monkeypatch.setenv("TANDEM_DRAIN_S", "0.5")
    file = tmp_path / "rows.json"
    options = ["--target", "tensorflow", "--rate", "40", "--batch-timeout-ms", "400"]
    options += ["--scale", "0.025", "--json", str(file)]
    named = ["--tensorflow-model-server", str(program)]
    assert drain.VERB.main(["--bundle", str(bundle.folder), *options, *named]) == 0
    rows = json.loads(file.read_text())
    assert {row["engine"] for row in rows} == {"tensorflow-serving"}
    by_way = {way.name: [row for row in rows if row["way"] == way.name] for way in drain.WAYS}
    alone, bare, paused = (by_way[way.name] for way in drain.WAYS)
    assert sum(row["lost"] + row["refused"] for row in alone) > 0  # it answers nothing that is under way
    assert sum(row["lost"] + row["refused"] for row in bare) > 0
    assert [(row["lost"], row["refused"], row["failures"]) for row in paused] == [(0, 0, [])] * len(FLOWS)
    assert all(row["ended_s"] < 0.5 for row in (*alone, *bare))
    assert "TensorFlow Serving: replaced, bare, no pause" in capsys.readouterr().err


@pytest.mark.exhaustive
def test_tritons_server_loses_nothing_when_it_is_replaced(bundle, tmp_path, monkeypatch, capsys):
    """The real tritonserver of the wheel, with its Python backend."""
    require_program(registry.engine("triton"))
    monkeypatch.setattr(drain, "WAYS", (drain.WAYS[0], drain.WAYS[-1]))
    monkeypatch.setattr(drain, "BEFORE_S", 0.5)
    monkeypatch.setenv("TANDEM_DRAIN_S", "0.5")
    file = tmp_path / "rows.json"
    options = ["--engines", "triton", "--rate", "20", "--scale", "0.025", "--json", str(file)]
    assert drain.VERB.main(["--bundle", str(bundle.folder), *options]) == 0
    rows = json.loads(file.read_text())
    assert {row["engine"] for row in rows} == {"triton"}
    alone, paused = ([row for row in rows if row["way"] == way.name] for way in drain.WAYS)
    assert [row["flow"] for row in paused] == list(map(str, FLOWS))
    assert [(row["lost"], row["refused"], row["failures"]) for row in paused] == [(0, 0, [])] * len(FLOWS)
    assert sum(row["refused"] for row in alone) > 0  # nobody else is there
    assert "Triton: replaced, entry point, preStop" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--engines=triton-torchscript", "has no container image"),
        ("--engines=,", "--engines names none"),
        ("--engines=torch", "engine 'torch': use one of torchserve, "),
        ("--rate=0", "--rate 0: use 1 to 200"),
        ("--batch-timeout-ms=5000", "--batch-timeout-ms 5000: use 1 to 1000"),
    ],
)
def test_impossible_options_are_refused(option, message, capsys):
    assert drain.VERB.main([option]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("protocol", "failure", "verdict"),
    [
        ("rest", "", "answered"),
        ("rest", "HTTP 503: this server is stopping", "refused"),
        ("rest", "ConnectionRefusedError: [Errno 111] Connection refused", "refused"),
        ("rest", "RemoteDisconnected: Remote end closed connection without response", "lost"),
        ("rest", "HTTP 500: worker died", "lost"),
        ("grpc", "UNAVAILABLE: last error: Failed to connect to remote host: Connection refused", "refused"),
        (
            "grpc",
            "UNAVAILABLE: [request id: <id_unknown>] Server is stopping, scheduler for model has stopped",
            "refused",
        ),
        ("grpc", "UNAVAILABLE: Socket closed", "lost"),
        ("grpc", "DEADLINE_EXCEEDED: Deadline Exceeded", "lost"),
    ],
)
def test_a_refusal_is_no_loss(protocol, failure, verdict):
    (flow, *_) = (flow for flow in FLOWS if flow.protocol == protocol)
    outcome = Outcome(flow, 0.0, 0.0, failure)
    assert ("refused" if outcome.refused else "lost" if outcome.lost else "answered") == verdict


def test_clients_see_a_change_later():
    endpoints = Endpoints(["127.0.0.2"], 0.2)
    changed = time.monotonic()
    endpoints.replace(["127.0.0.3"])
    assert endpoints.seen() == ("127.0.0.2",)
    while endpoints.seen() != ("127.0.0.3",):
        assert time.monotonic() < changed + 10
    assert time.monotonic() - changed >= 0.2


def test_the_name_server_answers_grpcs_own_resolver():
    with NameServer(Endpoints(["127.0.0.2", "127.0.0.3"], 0)) as names:
        channel = grpc.insecure_channel(f"dns://{names.address}/server.test:1", [("grpc.use_local_subchannel_pool", 1)])
        with channel, pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/a.B/C")(b"", timeout=10)
    assert "127.0.0." in raised.value.details()  # it found the addresses, where nobody listens
    query = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x01a\x00\x00\x1c\x00\x01"  # an IPv6 address is asked for
    assert answer(query, ["127.0.0.2"]) == b"\x12\x34\x85\x80\x00\x01" + bytes(6) + query[12:]
