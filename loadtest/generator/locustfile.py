"""Tandem's load generator as a Locust test: one user that runs a plan's phases and quits.

    python -m locust -f loadtest/generator/locustfile.py --headless -u 1 -r 1 --only-summary --plan plan.json

With --processes N (and -u N -r N) Locust forks N workers that share the load; with --master and --worker they run on
several machines, and only the master needs the plan.

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
from locust.runners import MasterRunner, WorkerRunner

_FOLDER = Path(__file__).resolve().parent
# Locust puts this file's folder first on the path, where our modules would hide others of the same name.
sys.path[:] = [str(_FOLDER.parents[1]), *(entry for entry in sys.path if Path(entry or ".").resolve() != _FOLDER)]

from loadtest.experiment import phases  # noqa: E402
from loadtest.generator.distributed import Master, Worker  # noqa: E402
from loadtest.generator.loader import Rows  # noqa: E402
from loadtest.generator.locust_stats import LocustStats  # noqa: E402
from loadtest.generator.phase_runner import Generator  # noqa: E402
from loadtest.generator.workers import SingleProcess, Workers  # noqa: E402
from models.problem import Problem  # noqa: E402

STOPPED = 130


@events.init_command_line_parser.add_listener
def add_arguments(parser: Any) -> None:
    """Locust's hook for arguments of our own."""
    parser.add_argument("--plan", env_var="TANDEM_PLAN", default="", help="JSON file with the phases to run")


@events.init.add_listener
def prepare(environment: Any, **_: Any) -> None:
    """Make Ctrl-C end the run like SIGTERM does: through Locust's shutdown, not through an exception somewhere; and in
    Locust's distributed mode, have the master run the plan."""
    # A worker's status would only hide the master's.
    environment.process_exit_code = 0 if isinstance(environment.runner, WorkerRunner) else STOPPED
    gevent.signal_handler(signal.SIGINT, environment.runner.quit)
    if isinstance(environment.runner, MasterRunner):
        environment.events.test_start.add_listener(lambda **_: gevent.spawn(_run, environment))


class Tandem(User):
    """Runs the plan once; in Locust's distributed mode, a worker's share of each phase."""

    busy = False

    @task
    def run_plan(self) -> None:
        """Run all phases, then end Locust."""
        if Tandem.busy:  # more users than one: the generator is one for each process
            gevent.get_hub().join()
        Tandem.busy = True
        if isinstance(self.environment.runner, WorkerRunner):
            Worker(self.environment.runner, _rows(self.environment)).serve()
            gevent.sleep(60)  # the master ends this process
        else:
            _run(self.environment)


def _rows(environment: Any) -> Rows:
    return lambda protocol, name: LocustStats(environment.stats, protocol, name).add


def _run(environment: Any) -> None:
    try:
        options, runner = environment.parsed_options, environment.runner
        if not options.plan:
            raise Problem("no plan: give --plan FILE or set TANDEM_PLAN")
        plan = phases.load(Path(options.plan))
        if isinstance(runner, MasterRunner):
            workers: Workers = Master(plan, runner, runner.worker_count)
        else:
            workers = SingleProcess(plan, _rows(environment))
        Generator(plan, workers, sys.stdout).run()
        environment.process_exit_code = 0
    except Problem as problem:
        _fail(environment, str(problem))
    except Exception as failure:  # Locust would log it and run the plan again
        logging.getLogger(__name__).exception("the plan failed")
        _fail(environment, f"{type(failure).__name__}: {failure}")
    gevent.spawn(_quit, environment).join()


def _quit(environment: Any) -> None:
    environment.runner.quit()
    if environment.web_ui:  # it would keep Locust up
        environment.web_ui.stop()


def _fail(environment: Any, message: str) -> None:
    """Let Locust end with status 1 and say why on the last line, below its summary."""
    environment.process_exit_code = 1

    @environment.events.quit.add_listener
    def say(**_: Any) -> None:
        print(f"error: {message}", file=sys.stderr, flush=True)
