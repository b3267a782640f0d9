"""Tandem's load generator as a Locust test: one user that runs a plan's phases and quits.

    python -m locust -f loadtest/locustfile.py --headless -u 1 -r 1 --only-summary --plan plan.json

Progress goes to stdout, one JSON object a line; Locust's own log and summary go to stderr. Exit status: 0 when all
phases ended, 130 when stopped before that, 1 with one line on stderr otherwise.
"""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Any

import gevent
from locust import User, events, task

_FOLDER = Path(__file__).resolve().parent
# Locust puts this file's folder first on the path, where our modules would hide others of the same name.
sys.path[:] = [str(_FOLDER.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != _FOLDER)]

from loadtest.generator import phases  # noqa: E402
from loadtest.generator.crew import Alone  # noqa: E402
from loadtest.generator.phase_runner import Generator  # noqa: E402
from models.problem import Problem  # noqa: E402

STOPPED = 130


@events.init_command_line_parser.add_listener
def add_arguments(parser: Any) -> None:
    """Locust's hook for arguments of our own."""
    parser.add_argument("--plan", env_var="TANDEM_PLAN", default="", help="JSON file with the phases to run")


@events.init.add_listener
def handle_signals(environment: Any, **_: Any) -> None:
    """Make Ctrl-C end the run like SIGTERM does: through Locust's shutdown, not through an exception somewhere."""
    environment.process_exit_code = STOPPED
    gevent.signal_handler(signal.SIGINT, environment.runner.quit)


class Tandem(User):
    """Runs the plan once."""

    fixed_count = 1

    @task
    def run_plan(self) -> None:
        """Run all phases, then end Locust."""
        environment = self.environment
        try:
            if not environment.parsed_options.plan:
                raise Problem("no plan: give --plan FILE or set TANDEM_PLAN")
            plan = phases.load(Path(environment.parsed_options.plan))
            Generator(plan, Alone(plan, environment.stats), sys.stdout).run()
            environment.process_exit_code = 0
        except Problem as problem:
            self.fail(str(problem))
        except Exception as failure:  # Locust would log it and run the plan again
            logging.getLogger(__name__).exception("the plan failed")
            self.fail(f"{type(failure).__name__}: {failure}")
        gevent.spawn(environment.runner.quit).join()

    def fail(self, message: str) -> None:
        """Let Locust end with status 1 and say why on the last line, below its summary."""
        self.environment.process_exit_code = 1

        @self.environment.events.quit.add_listener
        def say(**_: Any) -> None:
            print(f"error: {message}", file=sys.stderr, flush=True)
