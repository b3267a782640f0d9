"""Locust's web page in a container beside the stack: somebody starts a short load by hand and watches it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from loadtest.experiment.phases import OpenLoopPhase, Plan
from loadtest.experiment.verb import Verb
from models.bundle import Bundle
from models.problem import Problem
from serving import serve
from serving.runtimes.containers import docker_cli, images, layout
from serving.runtimes.containers.command_line import build_arguments, build_of
from serving.runtimes.containers.servers import by_target, container_of
from serving.runtimes.containers.stack import Choice, Stack

SERVICE = "loadtest"
EXPORTER_PORT = 9646
PORT = "TANDEM_LOCUST_PORT"


def start(bundle: Bundle, choice: Choice, artifacts: Path, which: str, rate: float, seconds: float) -> str:
    """Start the container with a plan for one server of a running stack; returns the page's address.

    ``rate`` in requests/s, ``seconds`` of load on each protocol. Raises `Problem` where that server is not up.
    """
    stack = Stack(bundle, choice, artifacts)
    if which not in choice.servers:
        raise Problem(f"{which}: no server of that name; use one of {', '.join(choice.servers)}")
    engine = choice.servers[which]
    container = container_of(engine)
    if stack.address(container.image) is None:
        raise Problem(f"{engine.id} is not up: make up first (with the same ARGS)")
    name = choice.build.tag(images.LOADTEST, bundle.version)
    if not docker_cli.images_present(name) or not stack.holds_bundle(name):
        images.build(bundle, [images.LOADTEST], choice.build, artifacts)
    # Inside Compose's network, by the service's name.
    profile = stack.default_profile
    target = replace(
        stack.target(which, engine, profile, stack.configure(engine, profile)),
        grpc=f"{container.image}:{container.ports.grpc}",
        rest=f"{container.image}:{container.ports.rest}",
    )
    phases = [
        OpenLoopPhase(
            id=f"{which}-{protocol}",
            folder=Path(layout.SCRATCH) / protocol,
            protocol=protocol,
            seed=0,
            rate=rate,
            duration_s=seconds,
        )
        for protocol in ("grpc", "rest")
    ]
    folder = stack.config / SERVICE
    folder.mkdir(parents=True, exist_ok=True)
    reference = layout.MANIFEST.parent / bundle.reference.name
    plan = Plan(target=target, reference=reference, phases=tuple(phases), exporter_port=EXPORTER_PORT)
    plan.write(folder / "plan.json")
    stack.compose.run("up", "-d", "--no-deps", "--force-recreate", SERVICE, doing="docker compose up")
    stack.wait_until_healthy([SERVICE])
    return f"http://localhost:{stack.ports[PORT]}"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", choices=list(by_target(embedded=False)), help="the server to load")
    parser.add_argument("--rate", type=float, default=50.0, help="requests/s on each protocol (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of load on each protocol (%(default)s)")
    parser.add_argument("--bundle", type=Path, help="the bundle that it serves; default: the newest of --model")
    parser.add_argument("--model", default="convnet", help="model name (%(default)s)")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="folder of the bundles")
    build_arguments(parser)


def _web(options: argparse.Namespace) -> int:
    bundle = serve.choose_bundle(options.bundle, options.artifacts, options.model)
    choice = Choice(embedded=options.embedded, gpu=options.gpu, build=build_of(options))
    url = start(bundle, choice, options.artifacts, options.target, options.rate, options.seconds)
    print(f"{url}: start the load there; it ends by itself, and so does the container")
    return 0


VERB = Verb("web", "Locust's web page beside the stack that make up keeps running", _add_arguments, _web)
