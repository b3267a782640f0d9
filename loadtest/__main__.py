"""Command line of the load test: compare, run, worker, report, dashboards-check, and the benchmarks."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtest.experiment import file as experiments
from models import problem
from serving.engines import programs
from serving.runtimes.containers.command_line import build_arguments, build_of
from serving.target import STACKS


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run one verb; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    compare = verbs.add_parser("compare", help="from nothing to a measured comparison and its report")
    _experiment_arguments(compare)
    compare.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="folder of the bundles")
    programs.add_flags(compare)

    build_arguments(compare.add_argument_group("with runtime = container"))
    cluster = compare.add_argument_group("with runtime = kubernetes")
    cluster.add_argument("--context", help="the kubectl context (default: the current one)")

    run = verbs.add_parser("run", help="the same experiment against servers that are up already (make serve)")
    _experiment_arguments(run)
    run.add_argument(
        "--targets", type=Path, default=Path("results/serve/targets.json"), help="what make serve wrote of them"
    )
    run.add_argument("--bundle", type=Path, help="the bundle that they serve (default: found in --artifacts)")
    run.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="folder of the bundles")

    web = verbs.add_parser("web", help="Locust's web page beside the stack that make up keeps running")
    web.add_argument("stack", choices=STACKS, help="the server to load")
    web.add_argument("--rate", type=float, default=50.0, help="requests/s on each protocol (%(default)s)")
    web.add_argument("--seconds", type=float, default=60.0, help="seconds of load on each protocol (%(default)s)")
    web.add_argument("--bundle", type=Path, help="the bundle that it serves; default: the newest of --model")
    web.add_argument("--model", default="convnet", help="model name (%(default)s)")
    web.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="folder of the bundles")
    build_arguments(web)

    report = verbs.add_parser("report", help="build summary.json and report.html again from a run's saved data")
    report.add_argument("run", nargs="?", default="results/latest", help="the run's folder")
    report.add_argument("--against", metavar="RUN", help="compare the run with this one, the baseline, instead")

    collect = verbs.add_parser("collect", help="bring home what a run measured in a cluster after its client was gone")
    collect.add_argument("run", nargs="?", default="results/latest", help="the run's folder")
    collect.add_argument("--context", help="the kubectl context (default: the current one)")

    verbs.add_parser("agent", help="be the load generator of a cluster: run what a client sends, keep results")
    verbs.add_parser("worker", help="put load on servers for a run on another machine, until Ctrl-C")

    verbs.add_parser("bench-loadgen", help="the generator against a trivial server, beside other tools")
    verbs.add_parser("dashboards-check", help="every query of every Grafana dashboard, asked of a real Prometheus")
    verbs.add_parser("bench-aa", help="the same server against itself: no difference may be shown")
    verbs.add_parser("bench-ab", help="a server with a known delay against the same without")
    verbs.add_parser("bench-crosscheck", help="the generator beside k6 and wrk: do they measure the same?")
    verbs.add_parser("bench-drain", help="what clients lose when a server gets SIGTERM, and when it is replaced")
    verbs.add_parser("bench-embedded", help="the embedded server beside TensorFlow Serving's figures")

    arguments = sys.argv[1:] if argv is None else argv
    signal.signal(signal.SIGTERM, _interrupt)
    if arguments and arguments[0] in _PROGRAMS:  # they have command lines of their own
        return _PROGRAMS[arguments[0]](arguments[1:])
    options = parser.parse_args(arguments)
    return problem.run(lambda: _VERBS[options.verb](options))


def _experiment_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--experiment", default="default", help="default, smoke, or a TOML file's path")
    parser.add_argument("--model", help="overrides the experiment's model")
    parser.add_argument("--dataset", help="overrides the experiment's data set")
    parser.add_argument("--seed", type=int, help="overrides the experiment's seed")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="overrides any key, such as ladder.duration_s=10",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the runs")
    parser.add_argument("--fresh", action="store_true", help="start a new run even where an unfinished one could go on")


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    named = {key: getattr(options, key) for key in ("model", "dataset", "seed")}
    given = {key: value for key, value in named.items() if value is not None}
    return {**given, **dict(experiments.override(argument) for argument in options.set)}


def _compare(options: argparse.Namespace) -> int:
    from loadtest.experiment.compare import compare
    from serving.runtimes.containers.stack import Choice

    compare(
        options.experiment,
        _overrides(options),
        artifacts=options.artifacts,
        results=options.results,
        fresh=options.fresh,
        programs=programs.named(options),
        containers=Choice(embedded=options.embedded, gpu=options.gpu, build=build_of(options)),
        context=options.context,
    )
    return 0


def _run(options: argparse.Namespace) -> int:
    from loadtest.experiment.compare import load_running

    load_running(
        options.experiment,
        _overrides(options),
        targets_file=options.targets,
        bundle_folder=options.bundle,
        artifacts=options.artifacts,
        results=options.results,
        fresh=options.fresh,
    )
    return 0


def _report(options: argparse.Namespace) -> int:
    from loadtest import report
    from loadtest.analysis import summary
    from loadtest.experiment import run_folder
    from loadtest.report import terminal

    folder = run_folder.resolve(options.run)
    if options.against:
        from loadtest.report import against

        page, headlines = against.write(folder, run_folder.resolve(options.against))
        terminal.show_comparison(headlines, page)
        return 0
    terminal.show(summary.write(folder), report.write(folder))
    return 0


def _collect(options: argparse.Namespace) -> int:
    from loadtest.experiment.compare import collect

    found = collect(options.run, options.context)
    again = "; the same make compare goes on from there" if found else ""
    print(f"{found} block{'' if found == 1 else 's'} of trials brought home{again}")
    return 0


def _agent(arguments: Sequence[str]) -> int:
    from loadtest.generator import agent

    return agent.main(arguments)


def _worker(arguments: Sequence[str]) -> int:
    from loadtest.generator import worker

    return worker.main(arguments)


def _web(options: argparse.Namespace) -> int:
    from loadtest.experiment.runtimes import container_web
    from serving import serve
    from serving.runtimes.containers.stack import Choice

    bundle = serve.choose_bundle(options.bundle, options.artifacts, options.model)
    choice = Choice(embedded=options.embedded, gpu=options.gpu, build=build_of(options))
    url = container_web.start(bundle, choice, options.artifacts, options.stack, options.rate, options.seconds)
    print(f"{url}: start the load there; it ends by itself, and so does the container")
    return 0


def _bench_loadgen(arguments: Sequence[str]) -> int:
    from loadtest.bench import load_generator

    return load_generator.main(arguments)


def _bench_aa(arguments: Sequence[str]) -> int:
    from loadtest.bench import aa

    return aa.main(arguments)


def _bench_ab(arguments: Sequence[str]) -> int:
    from loadtest.bench import ab

    return ab.main(arguments)


def _bench_crosscheck(arguments: Sequence[str]) -> int:
    from loadtest.bench import crosscheck

    return crosscheck.main(arguments)


def _bench_embedded(arguments: Sequence[str]) -> int:
    from loadtest.bench import embedded

    return embedded.main(arguments)


def _bench_drain(arguments: Sequence[str]) -> int:
    from loadtest.bench import drain

    return drain.main(arguments)


def _dashboards_check(arguments: Sequence[str]) -> int:
    from loadtest.bench import dashboards_check

    return dashboards_check.main(arguments)


_VERBS = {
    "compare": _compare,
    "run": _run,
    "collect": _collect,
    "report": _report,
    "web": _web,
}
_PROGRAMS = {
    "agent": _agent,
    "worker": _worker,
    "bench-loadgen": _bench_loadgen,
    "bench-drain": _bench_drain,
    "bench-embedded": _bench_embedded,
    "bench-aa": _bench_aa,
    "bench-ab": _bench_ab,
    "bench-crosscheck": _bench_crosscheck,
    "dashboards-check": _dashboards_check,
}


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
