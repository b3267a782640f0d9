"""``python -m serving serve|parity|obtain|images|pin-images|up|down``, or an engine of our own; heavy imports lie
inside the verbs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from models import in_use, problem
from serving.cores import split_cores
from serving.engines import programs, registry
from serving.engines.engine import Ports
from serving.profile import DEVICES, ServingProfile, parser_of
from serving.runtimes.containers import command_line as container_verbs
from serving.target import Target

if TYPE_CHECKING:
    from models.bundle import Bundle
    from serving.wire_parity import Agreement

PORTS = ("grpc", "rest", "metrics")
PATIENCE_S = 30.0  # with a registry, of one who asked for nothing else


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    server = registry.find(arguments[0]) if arguments else None
    if server and server.module:  # it has flags and conventions of its own
        status: int = importlib.import_module(server.module).main(arguments[1:])
        return status
    options = _parser().parse_args(arguments)
    return problem.run(lambda: options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving", description="Serve a bundle's models.")
    verbs = parser.add_subparsers(dest="verb", required=True)

    serve = verbs.add_parser("serve", help="servers up until Ctrl-C, endpoints printed with a curl line each")
    _common(serve)
    serve.add_argument("--folder", type=Path, default=Path("results/serve"), help="configs and logs (%(default)s)")
    for engine in registry.startable():
        for name in PORTS:
            flag = f"--{engine.default_target}-{name}-port"
            serve.add_argument(flag, type=_port, default=0, metavar="PORT", help="default: free")
    serve.set_defaults(run=_serve)

    parity = verbs.add_parser("parity", help="the whole test split through each server and protocol")
    _common(parity)
    parity.add_argument("--targets", type=Path, help="targets.json of running servers; default: start them")
    parity.add_argument("--folder", type=Path, default=Path("results/parity"), help="configs and logs (%(default)s)")
    parity.set_defaults(run=_parity)

    obtain = verbs.add_parser("obtain", help="fetch an engine's own program, once, so that runs have it")
    obtainable = [engine.id for engine in registry.all() if engine.download]
    obtain.add_argument("engine", choices=obtainable, help=f"one of {', '.join(obtainable)}")
    obtain.set_defaults(run=_obtain)

    container_verbs.add_verbs(verbs)
    for engine in registry.all():
        if engine.module:
            verbs.add_parser(engine.id, help="that server itself, with flags of its own")
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle", type=Path, action="append", help="an exported bundle's folder; default: the newest of --model"
    )
    parser.add_argument(
        "--model",
        action="append",
        help="model name (convnet); repeat it, or --bundle, for servers of several models",
    )
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="where bundles lie (%(default)s)")
    parser.add_argument(
        *("--target", "--stack"),
        action="append",
        choices=[engine.default_target for engine in registry.startable()],
        help=f"repeatable; default: {' and '.join(registry.DEFAULT_TARGETS)}",
    )
    programs.add_flags(parser)
    parser.add_argument(
        "--cores",
        type=_cores,
        metavar="0,1",
        help="CPUs to pin each server to, or all (default of serve: all but those that it leaves to a load generator)",
    )
    for key, default in asdict(ServingProfile()).items():
        parser.add_argument(
            f"--{key.replace('_', '-')}",
            type=parser_of(key),
            default=None if key == "precision" else default,
            choices=DEVICES if key == "device" else None,
            help="the bundle's" if key == "precision" else "%(default)s",
        )


def _ports(options: argparse.Namespace, target: str) -> Ports:
    given = vars(options)
    return Ports(**{name: given[f"{target}-{name}-port".replace("-", "_")] for name in PORTS})


def _distinct(given: Mapping[str, Ports]) -> None:
    """Raise `Problem` where two flags give one port; only a server's metrics may be where its REST API is."""
    flags: dict[int, str] = {}
    for target, own in given.items():
        for name in PORTS:
            port, flag = getattr(own, name), f"--{target}-{name}-port"
            if not port or (name == "metrics" and port == own.rest):
                continue
            if port in flags:
                raise problem.Problem(f"{flag} {port}: {flags[port]} is the same port; choose another for one of them")
            flags[port] = flag


def _profile(options: argparse.Namespace, bundle: Bundle) -> ServingProfile:
    given = {key: getattr(options, key) for key in asdict(ServingProfile())}
    return ServingProfile.from_dict({**given, "precision": given["precision"] or bundle.precision})


def _bundles(options: argparse.Namespace) -> list[Bundle]:
    from serving import serve

    return serve.choose_bundles(options.bundle or [], options.artifacts, options.model or ["convnet"])


def _serve(options: argparse.Namespace) -> int:
    from serving import serve

    targets = options.target or registry.DEFAULT_TARGETS
    ports = {target: _ports(options, target) for target in targets}
    _distinct(ports)
    bundles = _bundles(options)
    with in_use.alone(options.folder, "its servers are up", "stop those with Ctrl-C, or name another --folder"):
        return serve.run(
            bundles,
            _profile(options, bundles[0]),
            options.folder,
            targets=targets,
            ports=ports,
            cores=split_cores(sorted(os.sched_getaffinity(0)))[0] if options.cores is None else options.cores,
            programs=programs.named(options),
        )


def _parity(options: argparse.Namespace) -> int:
    from serving import serve, wire_parity
    from serving.runtimes.process import launch

    bundles = _bundles(options)
    if options.targets:
        for target in serve.load_targets(options.targets):
            bundle = next((one for one in bundles if one.model == target.model), bundles[0])
            _print_parity(target, wire_parity.check(target, bundle.reference))
        return 0
    targets = options.target or registry.DEFAULT_TARGETS
    named = programs.named(options)
    launch.require([registry.of_target(name) for name in targets], named)
    for name in targets:
        with serve.started(
            bundles[0],
            _profile(options, bundles[0]),
            options.folder,
            beside=bundles[1:],
            targets=[name],
            cores=options.cores or (),
            programs=named,
        ) as [running]:
            for bundle in bundles:
                target = running.target.asked_for(bundle)
                _print_parity(target, wire_parity.check(target, bundle.reference))
    return 0


def _obtain(options: argparse.Namespace) -> int:
    from serving.engines.engine import Wheel
    from serving.runtimes.process import obtain, obtain_words, wheels

    engine = registry.engine(options.engine)
    if isinstance(engine.download, Wheel):
        print(wheels.obtain(engine))
        return 0
    try:
        print(obtain.obtain(engine, patience_s=PATIENCE_S))
    except obtain.NotObtained as reason:
        raise problem.Problem(
            f"{engine.title} cannot be had: {obtain_words.why(reason.why, reason.detail)}; "
            f"{obtain_words.remedy(reason.why, engine, fetching=True)}"
        ) from None
    return 0


def _print_parity(target: Target, found: Mapping[str, Agreement]) -> None:
    for protocol, one in found.items():
        print(
            f"{target.name:<10} {target.engine:<18} {target.model:<10} {protocol:<11} {one.samples} samples, "
            f"max |dp| {one.max_abs_diff:.1e}, same top-1 {one.top1_agreement:.2%}"
        )


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port: use 0 (a free one) to 65535")
    return port


def _cores(text: str) -> tuple[int, ...]:
    if text == "all":
        return ()
    return tuple(int(core) for core in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
