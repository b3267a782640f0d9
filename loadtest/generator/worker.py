"""Locust workers for a run on another machine: they need nothing but the load generator's image.

python -m loadtest.generator.worker --master HOST
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time

from loadtest.experiment.generator_process import LOCUST, ROOT
from loadtest.experiment.verb import Verb
from models import child_environment
from serving.runtimes.process import open_files


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--master", required=True, metavar="HOST", help="the machine that runs the experiment")
    parser.add_argument("--port", type=int, default=5557, help="its generator.port")
    parser.add_argument("--processes", type=int, default=1, help="how many workers to be")


def _work(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as with Ctrl-C, the workers end, too
    serve_master(options.master, options.port, options.processes)
    return 0


def serve_master(host: str, port: int, processes: int) -> None:
    """Be `processes` workers for the master at host:port, run after run, until interrupted."""
    open_files.raise_limit()
    command = [*LOCUST, "--headless", "--worker"]
    command += ["--master-host", host, "--master-port", str(port)]
    while True:
        children: list[subprocess.Popen[bytes]] = []
        try:
            children += [
                subprocess.Popen(command, cwd=ROOT, env=child_environment.measured()) for _ in range(processes)
            ]
            for child in children:
                child.wait()
        finally:
            for child in children:
                child.terminate()
                child.wait()
        time.sleep(1)  # Locust ends where it finds no master for a while, and after each of a master's runs


VERB = Verb("worker", "put load on servers for a run on another machine, until Ctrl-C", _add_arguments, _work, __doc__)

if __name__ == "__main__":
    sys.exit(VERB.main(sys.argv[1:]))
