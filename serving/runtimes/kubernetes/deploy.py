"""The verbs: plan, deploy, roll a model version out or back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.bundle import Bundle
from models.problem import Problem
from serving import wire_parity
from serving.client import Client, RequestFailed
from serving.runtimes.kubernetes import difference, endpoints, permissions, plan, preflight, rollout
from serving.runtimes.kubernetes.kubectl import MANAGER, NAMESPACE, Cluster, Forbidden, Object
from serving.runtimes.kubernetes.permissions import Permitted, optional
from serving.runtimes.kubernetes.preflight import Findings
from serving.runtimes.kubernetes.settings import Record, Settings, identity

Say = Callable[[str], None]
PROTOCOLS = ("grpc", "rest")
PARITY_SAMPLES = 256  # through a port-forward, which carries everything over one connection to the API server
OPTIONAL_S = 60.0  # once everything else is up


def show_plan(cluster: Cluster | None, chosen: Permitted, say: Say, note: Say) -> bool:
    """Print what an apply would change; touches nothing. Returns whether there is a difference. Raises `Problem`."""
    names = {one["metadata"]["name"] for one in chosen.objects if one["kind"] == "Namespace"}
    present = permissions.namespaces(cluster, names) if cluster else {}
    if cluster is None or NAMESPACE not in present:
        for one in chosen.objects:
            say(f"+ {one['kind']} {one['metadata']['name']}")
        return True
    known = [one for one in chosen.objects if _compared(one, present)]
    new = [one for one in chosen.objects if one not in known and one["metadata"]["name"] not in present]
    try:
        if chosen.missing:
            raise Forbidden("your user may not deploy")
        lines = difference.by_dry_run(cluster, known)
    except Forbidden as forbidden:
        note(f"note: compared by reading, which does not show what was taken away: {forbidden}")
        lines = difference.by_reading(cluster, known)
    lines += [f"- {kind} {name}" for kind, _, name in _gone(Record.load(cluster), chosen.all)]
    lines += [f"+ {one['kind']} {one['metadata']['name']}" for one in new]
    for line in lines:
        say(line)
    return bool(lines)


def _compared(one: Object, present: Mapping[str, Object]) -> bool:
    """Whether an apply could change an object that is there: of a namespace nothing but its labels is ours."""
    if one["kind"] == "Namespace":
        live = present.get(one["metadata"]["name"])
        return live is not None and not _labelled(live, one)
    return one["metadata"].get("namespace", NAMESPACE) in present


def _labelled(live: Object, wanted: Object) -> bool:
    return bool(wanted["metadata"].get("labels", {}).items() <= live["metadata"].get("labels", {}).items())


def deploy(cluster: Cluster, settings: Settings, chosen: Permitted, *, timeout_s: float, say: Say, note: Say) -> None:
    """Apply everything and return once it runs; ``note`` gets a line for what is optional and missing.

    Raises `Problem`; what was refused before the apply changed nothing.
    """
    before = deployed(cluster)
    previous = None
    if before and before.settings.serves_as(settings):
        there = before.settings.version
        previous = before.previous_version if there == settings.version else there
    # What may not be applied now may be there since somebody else's deploy: it still belongs to this one.
    kept = {identity(one) for one, _ in chosen.left_out} & set(before.inventory if before else ())
    record = Record(settings, previous, (*map(identity, chosen.objects), *sorted(kept)))
    needed = [one for one in chosen.objects if not optional(one)]
    extras = [one for one in chosen.objects if optional(one)]
    done = _apply(cluster, [*needed, record.to_object()], note)
    added, without = _apply_extras(cluster, extras, note)
    say(f"applied {done + len(added)} objects to {cluster.context}")
    rollout.wait(cluster, rollout.rolling(needed), timeout_s=timeout_s, say=say)
    _prune(cluster, before, chosen.all, note)
    for what in sorted({optional(one) for one in added} - without):
        workloads = rollout.rolling([one for one in added if optional(one) == what])
        try:
            rollout.wait(cluster, workloads, timeout_s=min(timeout_s, OPTIONAL_S), say=say)
        except Problem as problem:
            for line in problem.details:
                note(f"    {line}")
            note(f"note: no {what}: {problem}")


def deployed(cluster: Cluster) -> Record | None:
    """What the cluster remembers of a deployment; None where there is none. Raises `Problem`."""
    return Record.load(cluster) if permissions.namespaces(cluster, [NAMESPACE]) else None


def _apply(cluster: Cluster, objects: Sequence[Object], note: Say) -> int:
    """Apply what is needed; returns the number of objects."""
    names = [one["metadata"]["name"] for one in objects if one["kind"] == "Namespace"]
    others = [one for one in objects if one["kind"] != "Namespace"]
    present = permissions.namespaces(cluster, names)
    for one in objects:
        if one["kind"] == "Namespace":
            _have_namespace(cluster, one, present.get(one["metadata"]["name"]), note)
    try:
        for line in cluster.apply(others, dry_run=True):
            if "would violate PodSecurity" in line:
                raise Problem(f"Pod Security refuses it: {line.partition('would violate ')[2]}", [line])
    except Problem:
        for name in names:  # as it was before
            if name not in present:
                cluster.try_run("delete", "namespace", name, "--wait=false")
        raise
    cluster.apply(others)
    return len(objects)


def _apply_extras(cluster: Cluster, objects: Sequence[Object], note: Say) -> tuple[list[Object], set[str]]:
    """Apply what is optional, each kind of extra on its own; returns what was applied, and the extras that were not."""
    there, without = [], set()
    for what in sorted(set(map(optional, objects))):
        group = [one for one in objects if optional(one) == what]
        try:
            _apply(cluster, group, note)
            there += group
        except Problem as problem:
            without.add(what)
            note(f"note: no {what}: {problem}")
    return there, without


def _have_namespace(cluster: Cluster, wanted: Object, live: Object | None, note: Say) -> None:
    """Make a namespace, or give the one that is there our labels, where that is allowed. Raises `Problem`."""
    if live is not None and _labelled(live, wanted):
        return
    try:
        cluster.apply([wanted])
    except Forbidden:
        name = wanted["metadata"]["name"]
        if live is not None:
            note(f"note: namespace {name} keeps its own labels: your user may not change them")
            return
        # To apply takes leave to change namespaces as well; to make one does not.
        arguments = ("create", "--validate=false", f"--field-manager={MANAGER}", "--filename=-")
        cluster.run(*arguments, objects=[wanted], doing=f"making namespace {name}")


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


def prepare(
    cluster: Cluster,
    settings: Settings,
    folder: Path,
    check: Callable[[Cluster, Sequence[Object]], Findings] = preflight.check,
) -> tuple[Settings, Findings]:
    """What to apply for ``settings``, checked, and the settings as they fit the cluster; rendered into ``folder``.

    Raises `Problem`.
    """
    objects = plan.render(settings, folder)
    found = check(cluster, objects)
    fitting = preflight.fit(settings, objects, found.nodes)
    if fitting != settings:
        again = {identity(one): one for one in plan.render(fitting, folder)}
        chosen = tuple(again[identity(one)] for one in found.permitted.objects if identity(one) in again)
        found = replace(found, permitted=replace(found.permitted, objects=chosen))
    return fitting, found


def in_place_words(settings: Settings) -> list[str]:
    """A line on updates that take a pod away before they add one; none where there is room."""
    if not settings.in_place:
        return []
    names = ", ".join(settings.in_place)
    return [
        f"no node has room for one more pod of {names} beside what runs: an update takes each pod away before its "
        f"successor starts (maxUnavailable 1, maxSurge 0); a server of one replica does not answer meanwhile"
    ]


def roll(
    cluster: Cluster, record: Record, settings: Settings, folder: Path, *, timeout_s: float, say: Say, note: Say
) -> None:
    """Bring the servers to the model version of ``settings``; where that fails, back to the one before.

    Raises `Problem` where it failed; they then serve the old version again.
    """
    settings, found = prepare(cluster, settings, folder)
    for line in (*found.notes, *in_place_words(settings)):
        note(f"note: {line}")
    try:
        deploy(cluster, settings, found.permitted, timeout_s=timeout_s, say=say, note=note)
    except Problem as problem:
        old = record.settings
        say(f"rolling back to version {old.version}: {problem}")
        failed = f"version {settings.version} did not roll out"
        try:
            _back(cluster, record, found.permitted, folder, timeout_s=timeout_s, say=say)
        except Problem as second:
            both = f"{failed}: {problem}; and bringing {old.version} back failed: {second}"
            raise Problem(both, problem.details) from None
        raise Problem(
            f"{failed}, {old.all_servers} serve version {old.version} again: {problem}",
            problem.details,
        ) from None


def _back(cluster: Cluster, record: Record, chosen: Permitted, folder: Path, *, timeout_s: float, say: Say) -> None:
    """Apply what was deployed before a roll-out that failed."""
    old = record.settings
    refused = {identity(one) for one, _ in chosen.left_out}
    back = [one for one in plan.render(old, folder) if one["kind"] != "Namespace" and identity(one) not in refused]
    keep = Record(old, record.previous_version, record.inventory)
    cluster.apply([*back, keep.to_object()])
    rollout.wait(cluster, rollout.deployments(old.deployments), timeout_s=timeout_s, say=say)
