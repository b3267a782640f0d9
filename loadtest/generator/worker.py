"""Locust workers for a run on another machine: they need nothing but the load generator's image.

python -m loadtest.generator.worker --master HOST
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence

from loadtest.experiment.generator_process import LOCUSTFILE, ROOT
from models import problem


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and work; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest worker", description=__doc__)
    parser.add_argument("--master", required=True, metavar="HOST", help="the machine that runs the experiment")
    parser.add_argument("--port", type=int, default=5557, help="its generator.port")
    parser.add_argument("--processes", type=int, default=1, help="how many workers to be")
    options = parser.parse_args(argv)
    return problem.run(lambda: serve_master(options.master, options.port, options.processes))


def serve_master(host: str, port: int, processes: int) -> None:
    """Be `processes` workers for the master at host:port, run after run, until interrupted."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--worker"]
    command += ["--master-host", host, "--master-port", str(port)]
    while True:
        members: list[subprocess.Popen[bytes]] = []
        try:
            members += [subprocess.Popen(command, cwd=ROOT) for _ in range(processes)]
            for member in members:
                member.wait()
        finally:
            for member in members:
                member.terminate()
                member.wait()
        time.sleep(1)  # Locust ends where it finds no master for a while, and after each of a master's runs


if __name__ == "__main__":
    sys.exit(main())
