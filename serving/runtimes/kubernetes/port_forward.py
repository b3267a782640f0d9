"""A port-forward that comes back: the same local ports, whatever happens to the connection behind them."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from models import child_environment
from models.problem import Problem
from serving import ports
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster, explain

START_S = 30.0
PAUSE_S = 1.0


class PortForward:
    """Forwards local ports to a Service or Deployment; a context manager that stops it.

    ``local`` maps each remote port to the local one, which stays the same when kubectl has to be started again (the pod
    was replaced, the network was away).
    """

    def __init__(self, cluster: Cluster, what: str, remote: tuple[int, ...]) -> None:
        self._cluster, self._what = cluster, what
        self.local: Mapping[int, int] = dict(zip(remote, ports.free(len(remote)), strict=True))
        self.reconnections = 0
        self._folder = tempfile.TemporaryDirectory(prefix="tandem-port-forward-", ignore_cleanup_errors=True)
        self._log = Path(self._folder.name) / "kubectl.log"
        self._stopping = threading.Event()
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep, name=f"port-forward {what}", daemon=True)

    def __enter__(self) -> PortForward:
        try:
            self._wait_until_listening()
        except BaseException:
            self.stop()
            raise
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def address(self, remote: int) -> str:
        """The local "host:port" of a remote port."""
        return f"{ports.LOOPBACK}:{self.local[remote]}"

    def stop(self) -> None:
        """End it. Idempotent."""
        self._stopping.set()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._keeper.is_alive():
            self._keeper.join(5)
        self._folder.cleanup()

    def _start(self) -> subprocess.Popen[bytes]:
        pairs = [f"{local}:{remote}" for remote, local in self.local.items()]
        command = self._cluster.command("port-forward", f"--namespace={NAMESPACE}", "--address=127.0.0.1", self._what)
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C is for this program, which then ends the port-forward.
            return subprocess.Popen(
                [*command, *pairs],
                env=child_environment.tool(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + START_S
        while len(re.findall(r"Forwarding from 127\.0\.0\.1", self._log.read_text(errors="replace"))) < len(self.local):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise explain(f"the port-forward to {self._what}", self._log.read_text(errors="replace"))
            time.sleep(0.05)

    def _keep(self) -> None:
        while not self._stopping.is_set():
            if self._process.poll() is None and "lost connection to pod" not in self._log.read_text(errors="replace"):
                self._stopping.wait(0.2)
                continue
            self._process.kill()
            self._process.wait()
            if self._stopping.wait(PAUSE_S):
                return
            self.reconnections += 1
            self._process = self._start()
            with contextlib.suppress(Problem):
                self._wait_until_listening()
