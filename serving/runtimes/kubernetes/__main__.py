"""Command line of the deployment: plan, deploy, rollout, undeploy, manifests."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from models import bundle as bundles
from models.bundle import Bundle
from models.problem import Problem, run
from serving.engines import kernels
from serving.profile import ServingProfile, parser_of
from serving.runtimes.kubernetes import (
    deploy,
    images,
    load_generator,
    operator_rules,
    optional_engines,
    pinned_images,
    plan,
    preflight,
    removal,
    server_config,
    servers,
)
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster
from serving.runtimes.kubernetes.permissions import Permitted
from serving.runtimes.kubernetes.progress import Steps
from serving.runtimes.kubernetes.settings import K8S, Settings

RENDERED = Path("artifacts/kubernetes")


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run one verb; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m serving.runtimes.kubernetes", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    for name, text in (
        ("plan", "render, and show what would change; touches nothing"),
        ("deploy", "apply, wait, prove"),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("--overlay", default="local", help="a folder of k8s/overlays: local, cpu or gpu")
        verb.add_argument("--components", default="", help="folders of k8s/components, separated by spaces or commas")
        verb.add_argument(
            "--engines",
            default="",
            help="ids of all engines to run, separated by commas; empty: those of every overlay",
        )
        verb.add_argument(
            "--registry", default="", help="where images are pushed; empty: they are loaded into the nodes"
        )
        verb.add_argument("--model", default="convnet", help="name of the bundle")
        verb.add_argument("--model-version", type=int, help="version of the bundle (default: the newest)")
        verb.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="folder of the bundles")
        verb.add_argument("--node-type", default="", help="instance type (node label) that the servers must run on")
        verb.add_argument("--embedded", action="store_true", help="the embedded server instead of TensorFlow Serving")
        verb.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the serving profile"
        )
        verb.add_argument("--storage-class", default="", help="of the metrics' disk (default: the cluster's default)")
        verb.add_argument(
            "--kubelet-root", default="", help="the kubelet's folder on GPU nodes (default: by their kind)"
        )
        _images_argument(verb)
        _cluster_arguments(verb)

    roll = verbs.add_parser("rollout", help="bring the servers to another model version")
    roll.add_argument("--model-version", type=int, help="the version to roll out")
    roll.add_argument("--back", action="store_true", help="back to the version before")
    roll.add_argument("--even-so", action="store_true", help="also where the load generator has a job, which that ends")
    roll.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="folder of the bundles")
    _images_argument(roll)
    _cluster_arguments(roll)

    undo = verbs.add_parser("undeploy", help="remove all of it")
    _cluster_arguments(undo)

    verbs.add_parser(
        "manifests", help="write the files in k8s/ that are rendered from the serving profile and from monitoring/"
    )

    options = parser.parse_args(argv)
    return run(lambda: _VERBS[options.verb](options))


def _images_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-images", action="store_true", help="the images are where the nodes find them already")
    parser.add_argument(
        "--no-digests", action="store_true", help="build on base images by tag: whatever this machine has"
    )


def _cluster_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--context", help="the kubectl context (default: the current one; KUBECONFIG is honoured)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds to wait for roll-outs (default: 900)")


def _settings(options: argparse.Namespace, bundle: Bundle) -> Settings:
    components = options.components.replace(",", " ").split()
    device = "gpu" if "gpu" in (options.overlay, *components) else "cpu"
    values = ServingProfile(device=device, precision=bundle.precision).to_dict()
    for argument in options.set:
        key, _, text = argument.partition("=")
        try:
            values[key] = parser_of(key)(text)
        except ValueError:
            raise Problem(f"--set {argument}: use KEY=VALUE, such as max_batch_size=64") from None
    profile = ServingProfile.from_dict(values)
    profile.require(bundle)
    ids = options.engines.replace(",", " ").split()
    brought, stand_in = servers.named(ids) if ids else ((), False)
    settings = Settings(
        overlay=options.overlay,
        components=tuple(dict.fromkeys([*brought, *components])),
        registry=options.registry,
        model=bundle.model,
        version=bundle.version,
        input_shape=bundle.input_shape,
        classes=bundle.classes,
        dataset=bundle.dataset,
        bundle=bundle.digest,
        profile=profile,
        node_type=options.node_type,
        embedded=options.embedded or stand_in,
        storage_class=options.storage_class,
        kubelet_root=options.kubelet_root,
    )
    _require_kernels(settings, bundle)
    return settings


def _require_kernels(settings: Settings, bundle: Bundle) -> None:
    for engine in settings.servers.values():
        kernels.require(engine, bundle, settings.serving_profile)


def _bundle(artifacts: Path, model: str, version: int | None) -> Bundle:
    known = bundles.versions(artifacts, model)
    if not known:
        raise Problem(f"{artifacts}/{model}: no bundle there; make export first")
    if version is not None and version not in known:
        raise Problem(f"{artifacts}/{model}/{version}: no such bundle; there are versions {', '.join(map(str, known))}")
    return bundles.load(artifacts / model / str(version or known[-1]))


def _plan(options: argparse.Namespace) -> int:
    settings = _settings(options, _bundle(options.artifacts, options.model, options.model_version))
    folder = RENDERED / settings.overlay
    cluster: Cluster | None = None
    try:
        cluster = Cluster(options.context)
    except Problem as problem:
        if options.context:
            raise
        _note(f"note: nothing to compare with: {problem}")
        chosen = Permitted(tuple(plan.render(settings, folder)), (), ())
    else:
        settings, found = deploy.prepare(cluster, settings, folder, preflight.look)
        chosen = found.permitted
        for line in (*found.notes, *deploy.in_place_words(settings)):
            _note(f"note: {line}")
    need = plan.demand(chosen.objects)
    gpus = f", {need['nvidia.com/gpu']:g} GPUs" if "nvidia.com/gpu" in need else ""
    _note(f"asks for {need['cpu']:.1f} CPUs, {need['memory'] / 2**30:.1f} GiB of memory{gpus}")
    differs = deploy.show_plan(cluster, chosen, print, _note)
    where = f"kubectl kustomize {os.path.relpath(folder)}"
    _note(f"{'to apply this: make deploy' if differs else 'nothing would change'}; all of it: {where}")
    return 0


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _deploy(options: argparse.Namespace) -> int:
    bundle = _bundle(options.artifacts, options.model, options.model_version)
    settings = _settings(options, bundle)
    cluster = Cluster(options.context)
    with Steps() as steps:
        cluster.say = steps.now
        steps.say(f"cluster  {cluster.context}, Kubernetes {preflight.check_version(cluster)}")
        settings, found = deploy.prepare(cluster, settings, RENDERED / settings.overlay)
        for line in (*found.notes, *deploy.in_place_words(settings)):
            steps.say(f"note: {line}")
        if not options.no_images:
            _publish(cluster, settings, bundle, options, steps)
        waiting = {"say": steps.now, "note": steps.say}
        deploy.deploy(cluster, settings, found.permitted, timeout_s=options.timeout, **waiting)
        deploy.prove(cluster, settings, bundle, steps.say)
    if "prometheus-operator" not in settings.components:
        forward = f"kubectl --context={cluster.context} --namespace={NAMESPACE} port-forward service/grafana 3000"
        print(f"\nGrafana: {forward}")
        print("         then open http://localhost:3000 (no password: whoever may forward a port may look)")
    print("measure: make compare RUNTIME=kubernetes      remove: make undeploy")
    return 0


def _publish(cluster: Cluster, settings: Settings, bundle: Bundle, options: argparse.Namespace, steps: Steps) -> None:
    digests = not options.no_digests
    images.publish(cluster.context, settings, bundle, options.artifacts, steps.say, digests=digests)


def _rollout(options: argparse.Namespace) -> int:
    cluster = Cluster(options.context)
    record = deploy.deployed(cluster)
    if record is None:
        raise Problem(f"nothing is deployed on {cluster.context}: make deploy first")
    if options.back == bool(options.model_version):
        raise Problem("which version? MODEL_VERSION=N, or BACK=1 for the one before")
    version = record.previous_version if options.back else options.model_version
    if version is None:
        raise Problem("there is no version before: this deployment has served one version only")
    if version == record.settings.version:
        raise Problem(f"version {version} is what {record.settings.all_servers} serve already")
    if not options.even_so:
        load_generator.require_idle(cluster)
    settings = record.settings.with_version(version)
    have_bundle = version in bundles.versions(options.artifacts, settings.model)
    with Steps() as steps:
        cluster.say = steps.now
        steps.say(f"rollout  {settings.model} {record.settings.version} -> {version} on {cluster.context}")
        if have_bundle or not options.back:
            bundle = _bundle(options.artifacts, settings.model, version)
            _same_signature(record.settings, bundle)
            _same_precision(record.settings, bundle)
            _require_kernels(settings, bundle)
            settings = replace(settings, dataset=bundle.dataset, bundle=bundle.digest)
            if not options.no_images and not options.back:
                _publish(cluster, settings, bundle, options, steps)
        folder = RENDERED / settings.overlay
        waiting = {"say": steps.now, "note": steps.say}
        deploy.roll(cluster, record, settings, folder, timeout_s=options.timeout, **waiting)
        if have_bundle:
            deploy.prove(cluster, settings, bundle, steps.say)
        else:
            steps.say(f"note: {options.artifacts}/{settings.model}/{version} is not here, so parity was not checked")
    print(f"{settings.all_servers} serve {settings.model} version {version}; back: make rollout BACK=1")
    return 0


def _same_signature(settings: Settings, bundle: Bundle) -> None:
    if (bundle.input_shape, bundle.classes) != (settings.input_shape, settings.classes):
        raise Problem(
            f"version {bundle.version} takes {bundle.input_shape} images and gives {bundle.classes} classes, version "
            f"{settings.version} does not: clients would break; make undeploy, then make deploy"
        )


def _same_precision(settings: Settings, bundle: Bundle) -> None:
    deployed = settings.profile.precision
    if bundle.precision is not deployed.exported:
        raise Problem(
            f"version {bundle.version} computes in {bundle.precision}, and what is deployed serves {deployed}: a "
            f"roll-out changes the version alone; roll out one of {deployed.exported} (make export "
            f"PRECISION={deployed.exported}), or make deploy MODEL_VERSION={bundle.version}"
        )


def _undeploy(options: argparse.Namespace) -> int:
    cluster = Cluster(options.context)
    with Steps() as steps:
        cluster.say = steps.now
        removed = removal.undeploy(cluster, timeout_s=options.timeout, say=steps.now)
    if removed.left:
        print(f"all else is removed from {cluster.context}; your user may not remove {', '.join(removed.left)}")
    else:
        print(f"{'everything is removed from' if removed.there else 'nothing was deployed on'} {cluster.context}")
    return 0


def _manifests(_: argparse.Namespace) -> int:
    parts = (server_config, operator_rules, optional_engines, pinned_images)
    rendered = {path: content for part in parts for path, content in part.checked_in().items()}
    for path, content in rendered.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(path.relative_to(K8S.parent))
    return 0


_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "plan": _plan,
    "deploy": _deploy,
    "rollout": _rollout,
    "undeploy": _undeploy,
    "manifests": _manifests,
}

if __name__ == "__main__":
    sys.exit(main())
