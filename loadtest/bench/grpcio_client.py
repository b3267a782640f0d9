"""grpcio with its gevent support as a closed loop, to compare with: prints calls/s.

python -m loadtest.bench.grpcio_client HOST:PORT METHOD FILE SECONDS CONNECTIONS
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402
import grpc  # noqa: E402
from grpc.experimental import gevent as grpc_gevent  # noqa: E402


def main(address: str, method: str, message: bytes, seconds: float, greenlets: int) -> float:
    """Calls/s of `greenlets` callers that each wait for their answer before the next call."""
    grpc_gevent.init_gevent()
    count = 0
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(method)  # no serializers: bytes in, bytes out
        call(message, timeout=5)
        began = time.monotonic()

        def caller() -> None:
            nonlocal count
            while time.monotonic() - began < seconds:
                call(message, timeout=5)
                count += 1

        gevent.joinall([gevent.spawn(caller) for _ in range(greenlets)], raise_error=True)
        return count / (time.monotonic() - began)


if __name__ == "__main__":
    where, name, file, duration, callers = sys.argv[1:]
    print(main(where, name, Path(file).read_bytes(), float(duration), int(callers)))
