"""A real HTTP proxy, Debian's tinyproxy, as people are given one: open, with a password, or for some servers alone."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving import ports
from tests.components import require

LOGIN = "someone:pr0xy-pass"


@dataclass(frozen=True)
class Proxy:
    """Where it listens; `log`: what it was asked."""

    address: str
    log: Path

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def asked(self) -> str:
        """What it has logged."""
        return self.log.read_text()


@contextmanager
def tinyproxy(folder: Path, *, login: str = "", tunnels_to: int = 0) -> Iterator[Proxy]:
    """A running proxy; it is gone afterwards. `login`: "user:password", without which it answers 407; `tunnels_to`: the
    only port that it opens tunnels to (0: any)."""
    require("tinyproxy")
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = ports.free(1)
    lines = [f"Port {port}", "Listen 127.0.0.1", "Allow 127.0.0.1", "Timeout 30", "MaxClients 200", "LogLevel Connect"]
    lines += [f'LogFile "{folder / "proxy.log"}"']
    lines += [f"BasicAuth {login.replace(':', ' ')}"] if login else []
    lines += [f"ConnectPort {tunnels_to}"] if tunnels_to else []
    (folder / "tinyproxy.conf").write_text("\n".join(lines) + "\n")
    command = ["tinyproxy", "-d", "-c", str(folder / "tinyproxy.conf")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not ports.answers("127.0.0.1", port):
            assert process.poll() is None, (folder / "proxy.log").read_text()
            assert time.monotonic() < deadline
        yield Proxy(f"127.0.0.1:{port}", folder / "proxy.log")
    finally:
        process.terminate()
        process.wait()
