"""The verbs: plan, deploy, roll a model version out or back, undeploy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from models.bundle import Bundle
from models.problem import Problem
from serving import wire_parity
from serving.client import Client, RequestFailed
from serving.runtimes.kubernetes import endpoints, plan, preflight, rollout
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster, Object, explain
from serving.runtimes.kubernetes.settings import Record, Settings, identity

Say = Callable[[str], None]
PROTOCOLS = ("grpc", "rest")
PARITY_SAMPLES = 256  # through a port-forward, which carries everything over one connection to the API server


def show_plan(cluster: Cluster | None, objects: Sequence[Object], say: Say) -> bool:
    """Print what an apply would change; touches nothing. Returns whether there is a difference. Raises `Problem`."""
    if cluster is None or cluster.find("namespace", NAMESPACE, None) is None:
        for one in objects:
            say(f"+ {one['kind']} {one['metadata']['name']}")
        return True
    arguments = ["diff", "--server-side", "--force-conflicts", f"--field-manager={NAMESPACE}", "--filename=-"]
    there = {one["metadata"]["name"] for one in cluster.get("namespaces", doing="looking at the namespaces")}
    known = [one for one in objects if one["metadata"].get("namespace", NAMESPACE) in there]
    done = cluster.try_run(*arguments, objects=known)
    if done.returncode > 1:  # 1 is diff's word for "they differ"
        raise explain("comparing with the cluster", done.stderr)
    for line in done.stdout.splitlines():
        say(line)
    record = Record.load(cluster)
    gone = _gone(record, objects)
    for kind, _, name in gone:
        say(f"- {kind} {name}")
    for one in objects:
        if one not in known:
            say(f"+ {one['kind']} {one['metadata']['name']}")
    return done.returncode == 1 or bool(gone) or len(known) != len(objects)


def deploy(cluster: Cluster, settings: Settings, objects: Sequence[Object], *, timeout_s: float, say: Say) -> None:
    """Apply everything and return once it runs. Raises `Problem`; what was refused before the apply changed nothing."""
    before = Record.load(cluster) if cluster.find("namespace", NAMESPACE, None) else None
    previous = None
    if before and before.settings.serves_as(settings):
        there = before.settings.version
        previous = before.previous_version if there == settings.version else there
    record = Record(settings, previous, tuple(map(identity, objects)))
    _apply(cluster, [*objects, record.to_object()], say)
    rollout.wait(cluster, rollout.rolling(objects), timeout_s=timeout_s, say=say)
    _prune(cluster, before, objects, say)


def _apply(cluster: Cluster, objects: Sequence[Object], say: Say) -> None:
    namespaces = [one for one in objects if one["kind"] == "Namespace"]
    others = [one for one in objects if one["kind"] != "Namespace"]
    new = [one for one in namespaces if cluster.find("namespace", one["metadata"]["name"], None) is None]
    cluster.apply(namespaces)
    try:
        for line in cluster.apply(others, dry_run=True):
            if "would violate PodSecurity" in line:
                raise Problem(f"Pod Security refuses it: {line.partition('would violate ')[2]}", [line])
    except Problem:
        for one in new:  # as it was before
            cluster.try_run("delete", "namespace", one["metadata"]["name"], "--wait=false")
        raise
    changed = [line for line in cluster.apply(others) if line.strip()]
    say(f"applied {len(changed) + len(namespaces)} objects to {cluster.context}")


def _gone(record: Record | None, objects: Sequence[Object]) -> list[tuple[str, str, str]]:
    """What was applied before and is no more; old ConfigMaps stay, for what `kubectl rollout undo` would bring back."""
    kept = {identity(one) for one in objects}
    return [
        one
        for one in (record.inventory if record else ())
        if one not in kept and one[0] not in ("ConfigMap", "Namespace")
    ]


def _prune(cluster: Cluster, before: Record | None, objects: Sequence[Object], say: Say) -> None:
    for kind, namespace, name in _gone(before, objects):
        where = (f"--namespace={namespace}",) if namespace else ()
        cluster.run("delete", kind, name, *where, "--ignore-not-found", "--wait=false", doing=f"removing {kind} {name}")
        say(f"removed {kind} {name}, which is no longer part of it")


def prove(cluster: Cluster, settings: Settings, bundle: Bundle, say: Say) -> None:
    """One prediction on each protocol of every server, then wire parity, through a port-forward. Raises `Problem`."""
    for name, engine in settings.servers.items():
        with endpoints.forwarded(cluster, endpoints.inside(cluster, settings, name, engine)) as (target, _):
            image = np.zeros((1, *bundle.input_shape), np.uint8)
            with Client(target, timeout_s=30) as client:
                for protocol in PROTOCOLS:
                    try:
                        best = int(client.predict(protocol, image)[0].argmax())
                    except RequestFailed as error:
                        raise Problem(f"{name} runs, but does not answer a {protocol} prediction: {error}") from None
                    say(f"{name}: {protocol} answers (a black image is class {bundle.class_names[best]!r})")
            with _some_samples(bundle) as reference:
                figures = wire_parity.check(target, reference, protocols=PROTOCOLS)
            worst = max(one.max_abs_diff for one in figures.values())
            samples = next(iter(figures.values())).samples
            say(f"{name}: wire parity over {samples} test images, largest difference {worst:.1e}")


@contextlib.contextmanager
def _some_samples(bundle: Bundle) -> Iterator[Path]:
    """The first samples of the bundle's reference, as a file."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, np.load(bundle.reference) as saved:
        path = Path(folder) / "reference.npz"
        np.savez(path, **{key: saved[key][:PARITY_SAMPLES] for key in ("images", "probabilities")})
        yield path


def roll(cluster: Cluster, record: Record, settings: Settings, folder: Path, *, timeout_s: float, say: Say) -> None:
    """Bring the servers to the model version of ``settings``; where that fails, back to the one before.

    Raises `Problem` where it failed; they then serve the old version again.
    """
    objects = plan.render(settings, folder)
    preflight.check(cluster, objects)
    try:
        deploy(cluster, settings, objects, timeout_s=timeout_s, say=say)
    except Problem as problem:
        old = record.settings
        say(f"rolling back to version {old.version}: {problem}")
        back = plan.render(old, folder)
        keep = Record(old, record.previous_version, tuple(map(identity, back)))
        cluster.apply([*back, keep.to_object()])
        rollout.wait(cluster, rollout.deployments(old.deployments), timeout_s=timeout_s, say=say)
        raise Problem(
            f"version {settings.version} did not roll out, {old.all_servers} serve version {old.version} again: "
            f"{problem}",
            problem.details,
        ) from None


def undeploy(cluster: Cluster, *, timeout_s: float, say: Say) -> bool:
    """Remove everything, the namespaces too; returns whether there was anything. Raises `Problem`."""
    ours = []
    for name in (NAMESPACE, "tandem-dcgm"):
        found = cluster.find("namespace", name, None)
        if found is None:
            continue
        if found["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") != "tandem":
            raise Problem(
                f"namespace {name} on {cluster.context} was not made by make deploy: delete it yourself if it is yours"
            )
        ours.append(name)
    for name in ours:
        cluster.run("delete", "namespace", name, "--wait=false", doing=f"removing namespace {name}")
    started = time.monotonic()
    while left := [name for name in ours if cluster.find("namespace", name, None)]:
        if time.monotonic() - started > timeout_s:
            raise Problem(
                f"namespace {', '.join(left)} is still there after {timeout_s:g} s: "
                f"kubectl get namespace {left[0]} --output=yaml says what holds it"
            )
        say(f"removing {', '.join(left)} ({time.monotonic() - started:.0f} s)")
        time.sleep(rollout.POLL_S)
    return bool(ours)
