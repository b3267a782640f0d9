"""The load test. Each verb has its own --help."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtest.experiment.steps import Step
from loadtest.experiment.verb import Verb
from models import problem

# Where each verb is registered. Only the one that is called is imported.
MODULES = {
    "compare": "loadtest.experiment.compare",
    "run": "loadtest.experiment.load_running",
    "web": "loadtest.experiment.runtimes.container_web",
    "report": "loadtest.report.rebuild",
    "gate": "loadtest.report.gate",
    "plan-run": "loadtest.report.plan_run",
    "schema": "loadtest.analysis.write_schema",
    "collect": "loadtest.experiment.collect",
    "agent": "loadtest.generator.agent",
    "worker": "loadtest.generator.worker",
    "dashboards-check": "loadtest.bench.dashboards_check",
    "bench-loadgen": "loadtest.bench.load_generator",
    "bench-aa": "loadtest.bench.aa",
    "bench-ab": "loadtest.bench.ab",
    "bench-restarts": "loadtest.bench.restarts",
    "bench-crosscheck": "loadtest.bench.crosscheck",
    "bench-decisions": "loadtest.bench.decisions",
    "bench-drain": "loadtest.bench.drain",
    "bench-embedded": "loadtest.bench.embedded",
    "gpu-check": "loadtest.bench.gpu_check",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run one verb; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for verb in _verbs(arguments):
        own = verbs.add_parser(verb.name, help=verb.help, description=verb.description)
        verb.add_arguments(own)
        own.set_defaults(verb=verb, words=_words)
    options = parser.parse_args(arguments)
    return problem.run(lambda: _finish(options.verb.run(options)))


def _verbs(arguments: Sequence[str]) -> list[Verb]:
    """The one that is called, or all, to say which there are."""
    chosen = [name for name in arguments[:1] if name in MODULES] or list(MODULES)
    return [importlib.import_module(MODULES[name]).VERB for name in chosen]


def _words(step: Step) -> str:
    from loadtest.report import progress_words

    return progress_words.line(step)


def _finish(done: int | Path) -> int:
    """The exit status; of a run that was measured, after its report."""
    if isinstance(done, int):
        return done
    from loadtest.report.rebuild import rebuild

    rebuild(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
