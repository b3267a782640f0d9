"""What a serving container runs: prove that the model is the exported one, and the server's program what it is called,
start it, and drain it on SIGTERM.

    python -m serving.runtimes.containers.entrypoint ENGINE

Exit status: 0 after a signal, 1 where the model is not the one of the manifest, the program another one, or the
environment contradicts the configuration, else the server's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.problem import Problem, run
from serving.engines import tf32
from serving.engines.container import Container, Inside
from serving.engines.engine import ARGUMENTS
from serving.runtimes.containers import layout, program_line, servers

# After SIGTERM the server goes on for this long, unready: whoever routes requests needs the time to notice.
DRAIN_S = 2.0


def main(arguments: Sequence[str]) -> int:
    """Run one engine's server until it ends."""
    name = " ".join(arguments)
    container = servers.named(name)
    verify(container)
    for flag in (layout.DRAINING, layout.REFUSING):  # a container that is started again keeps its /tmp, unless tmpfs
        flag.unlink(missing_ok=True)
    inside = find()
    if container.identify:
        print(program_line.line(container.identify(inside)), flush=True)
    variables = {**container.environment(inside), **rendered_environment()}
    tf32.require(os.environ, forbidden=tf32.OVERRIDE in variables)
    return Supervisor(name, container.command(inside), variables).run()


def verify(container: Container, manifest: Path = layout.MANIFEST, models: Path = layout.MODELS) -> None:
    """Compare the SHA-256 of every file that is served with the bundle's manifest; raises `Problem`."""
    try:
        known = json.loads(manifest.read_text())
        model, files = known["model"], known["files"]
    except (OSError, ValueError, KeyError) as error:
        raise Problem(f"{manifest}: no bundle's manifest ({error}); build the image again") from None
    part, folder = f"{container.part}/", container.model_path(models, model)
    wanted = {name.removeprefix(part): digest for name, digest in files.items() if name.startswith(part)}
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if not wanted:
        raise Problem(f"{manifest}: names no file under {part}; export again and build the image again")
    for name in sorted(wanted.keys() | present):
        if name not in present:
            raise Problem(f"{folder / name}: missing; build the image again")
        if name not in wanted:
            raise Problem(f"{folder / name}: not part of the bundle; build the image again")
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != wanted[name]:
                raise Problem(f"{folder / name}: changed since the export; build the image again")
    print(f"{model} version {known['version']}: {len(wanted)} files are as exported", flush=True)


def find(configuration: Path = layout.CONFIG) -> Inside:
    """The container that this process is in, with its configuration in ``configuration``; raises `Problem`."""
    flags = configuration / ARGUMENTS  # an engine that takes everything from files has none
    arguments = _lines(flags) if flags.exists() else []
    return Inside(configuration, layout.MODELS, layout.SCRATCH, arguments)


def rendered_environment(configuration: Path = layout.CONFIG) -> dict[str, str]:
    """The variables that the configuration sets for the server; raises `Problem`."""
    pairs = (line.partition("=") for line in _lines(configuration / layout.ENVIRONMENT))
    return {name: value for name, _, value in pairs}


class Supervisor:
    """The parent of an engine's server (process 1 of the container): passes signals on after draining, and reaps
    orphans.

    ``scratch``: the folder that it works in, where it says to the health check and to the handler how far it is.
    """

    def __init__(
        self, engine: str, arguments: Sequence[str], variables: Mapping[str, str], scratch: Path = layout.SCRATCH
    ) -> None:
        self._engine, self._asked = engine, False
        self._refuse_s = servers.named(engine).refuse_s
        self._draining, self._refusing = scratch / layout.DRAINING.name, scratch / layout.REFUSING.name
        inherited = {**os.environ, **variables, "TANDEM_REFUSING": str(self._refusing)}
        try:
            self._server = subprocess.Popen(arguments, env=inherited, cwd=scratch)
        except OSError as error:
            raise Problem(f"{arguments[0]}: cannot be started ({error.strerror})") from None

    def run(self) -> int:
        """Wait for the server to end; returns the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._drain)
        while True:
            process, status = os.wait()
            if process == self._server.pid:
                break
        self._server.returncode = os.waitstatus_to_exitcode(status)
        if self._asked:
            return 0
        code = self._server.returncode
        print(f"{self._engine} ended with {code} though nobody asked", file=sys.stderr, flush=True)
        return code if code > 0 else 128 - code

    def _drain(self, number: int, _: Any) -> None:
        if self._asked:
            return
        self._asked = True
        wait = float(os.environ.get("TANDEM_DRAIN_S", DRAIN_S))
        print(f"{signal.Signals(number).name}: unready, serving for {wait:g} s more", flush=True)
        self._draining.touch()
        time.sleep(wait)
        if self._refuse_s:
            self._refusing.touch()
            time.sleep(self._refuse_s)
        self._server.send_signal(signal.SIGTERM)


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text().splitlines() if line]
    except OSError as error:
        raise Problem(f"{path}: {error.strerror}; mount the rendered configuration at {path.parent}") from None


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
