"""How TorchServe's front end reaches its worker processes, as these say in its log when they begin to listen.

It is Unix sockets where Java could load netty's library for them, else TCP ports from 9000 on, without a word of why.
"""

from __future__ import annotations

import re

from serving.engines.engine import TRANSPORT, Switch, Transport

# ts/model_service_worker.py of TorchServe 0.12
_LISTENS = re.compile(r"MODEL_LOG - Listening on (port|addr:port): ")
_KINDS = {"port": Transport.UNIX_SOCKET, "addr:port": Transport.TCP}


def transport(log: str) -> tuple[Switch, ...]:
    """What the newest worker said in a server's ``log``; empty where none did."""
    said = _LISTENS.findall(log)
    return (Switch(TRANSPORT, _KINDS[said[-1]]),) if said else ()
