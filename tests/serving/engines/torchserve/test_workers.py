"""How TorchServe's front end reaches its workers, read off what they say."""

from __future__ import annotations

import pytest

from serving.engines import registry
from serving.engines.engine import TRANSPORT, Switch, Transport

AT = "2026-11-30T03:23:12,043 [INFO ] W-9000-convnet_1-stdout MODEL_LOG - "
# As ts/model_service_worker.py of TorchServe 0.12 says them.
SOCKET = f"{AT}Listening on port: /tmp/tandem uzrej5d8/.ts.sock.9000\n"
PORT = f"{AT}Listening on addr:port: 127.0.0.1:9000\n"
OTHER = f"{AT}Torch worker started.\n2026-11-30 [INFO ] main ACCESS_LOG - Listening on port: 8080\n"


@pytest.mark.parametrize(
    ("log", "transport"),
    [
        (SOCKET + OTHER, Transport.UNIX_SOCKET),
        (PORT + OTHER, Transport.TCP),
        (SOCKET + SOCKET.replace("9000", "9001"), Transport.UNIX_SOCKET),
        (SOCKET + PORT, Transport.TCP),  # the newest
        (OTHER, None),
    ],
)
def test_it_is_what_the_newest_worker_said(log, transport):
    said = [one for one in registry.engine("torchserve").in_force(log) if one.name == TRANSPORT]
    assert said == ([] if transport is None else [Switch(TRANSPORT, transport)])
