"""The verbs images (which pushes them, too), pin-images, up and down of ``python -m serving``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from models.problem import Problem
from serving.runtimes.containers import base_images, compose_project, images, registry, stack, wheels
from serving.runtimes.containers.images import Build
from serving.runtimes.containers.stack import Choice, Stack


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to a command line."""
    build = verbs.add_parser("images", help="build the container images of a bundle and print their sizes")
    _bundle_arguments(build)
    build_arguments(build)
    build.add_argument("--push", action="store_true", help="push them to --registry, and print each one's digest")
    build.set_defaults(run=_images)

    pin = verbs.add_parser("pin-images", help="ask the registries for every base image's digest, and write them down")
    pin.set_defaults(run=_pin)

    up = verbs.add_parser("up", help="the whole stack on Docker Compose, healthy when this returns")
    _bundle_arguments(up)
    build_arguments(up)
    up.add_argument("--without", action="append", default=[], choices=stack.MONITORING, help="leave a service out")
    up.add_argument("--memory", default="4g", help="each server's memory limit (%(default)s)")
    up.set_defaults(run=_up)

    down = verbs.add_parser("down", help="stop the stack and remove its containers, networks and volumes")
    down.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="where bundles lie (%(default)s)")
    down.set_defaults(run=_down)


def _bundle_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, help="an exported bundle's folder; default: the newest of --model")
    parser.add_argument("--model", default="convnet", help="model name (%(default)s)")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="where bundles lie (%(default)s)")


def build_arguments(parser: argparse._ActionsContainer) -> None:
    """The arguments that say which images, and how they are built."""
    parser.add_argument("--embedded", action="store_true", help="the embedded server instead of TensorFlow Serving")
    parser.add_argument("--gpu", action="store_true", help="images and devices for NVIDIA GPUs")
    parser.add_argument("--torch", choices=wheels.TORCH_BUILDS, help="PyTorch's build (cpu; with --gpu: cu130)")
    parser.add_argument("--no-digests", action="store_true", help="base images by tag: whatever this machine has")
    parser.add_argument("--registry", default="", help="prefix of our images' names, such as registry.example.org/")


def build_of(options: argparse.Namespace) -> Build:
    """How to build, from `build_arguments`; raises `Problem`."""
    torch = options.torch or ("cu130" if options.gpu else "cpu")
    if options.gpu and torch == "cpu":
        raise Problem("--gpu --torch cpu: a CPU build of PyTorch finds no GPU; use cu126 or cu130")
    prefix = registry.prefix(options.registry)
    return Build(gpu=options.gpu, torch=torch, digests=not options.no_digests, registry=prefix)


def _images(options: argparse.Namespace) -> int:
    if options.push and not options.registry:
        raise Problem("push to which registry? make images push REGISTRY=registry.example.com/team")
    build = build_of(options)
    from serving import serve  # numpy comes with it: not for --help

    bundle = serve.choose_bundle(options.bundle, options.artifacts, options.model)
    names = images.build(bundle, images.chosen(embedded=options.embedded), build, options.artifacts)
    if not options.push:
        print(images.sizes(names))
        return 0
    for name in names:
        print(f"pushed {registry.push(name)}", flush=True)
    return 0


def _pin(_: argparse.Namespace) -> int:
    from serving.runtimes.containers import pins  # requests comes with it: not for --help

    missing = []
    for found in pins.pin(base_images.FILE):
        if not found.digest:
            missing.append(found.image)
        state = "there is no such tag" if not found.digest else "as before" if found.digest == found.before else "new"
        print(f"{found.image:<52} {found.digest or '-':<71} {state}", flush=True)
    if missing:
        raise Problem(f"{', '.join(missing)}: no such tag, or none for linux/amd64; correct {base_images.FILE}")
    return 0


def _up(options: argparse.Namespace) -> int:
    from serving import serve  # numpy comes with it: not for --help

    bundle = serve.choose_bundle(options.bundle, options.artifacts, options.model)
    choice = Choice(
        embedded=options.embedded,
        gpu=options.gpu,
        without=tuple(options.without),
        memory=options.memory,
        build=build_of(options),
    )
    running = Stack(bundle, choice, options.artifacts)
    running.up()
    print(f"{bundle.model} version {bundle.version} is up and healthy; make down removes everything\n")
    print(stack.describe(running))
    return 0


def _down(options: argparse.Namespace) -> int:
    gone = compose_project.down(options.artifacts)
    print(f"removed {len(gone)}: {', '.join(gone)}" if gone else "nothing was up", file=sys.stderr)
    return 0
