"""The verb undeploy: the namespaces go, or where they are somebody else's to remove, all that was put into them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.problem import Problem
from serving.runtimes.kubernetes import permissions, preflight, rollout
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster, Forbidden, Object
from serving.runtimes.kubernetes.settings import NAME, Record

Say = Callable[[str], None]
NAMESPACES = (NAMESPACE, "tandem-dcgm")
OURS = "app.kubernetes.io/part-of=tandem"
HELD_S = 30.0  # then it is said what holds a namespace


@dataclass(frozen=True)
class Removed:
    """Whether there was anything, and what stays there, in words: the user may not remove it."""

    there: bool
    left: tuple[str, ...] = ()


def undeploy(cluster: Cluster, *, timeout_s: float, say: Say) -> Removed:
    """Remove everything, the namespaces too where the user may. Raises `Problem`."""
    present = permissions.namespaces(cluster, NAMESPACES)
    record = Record.load(cluster) if NAMESPACE in present else None
    gone, left = [], []
    for name, namespace in present.items():
        ours = namespace["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "tandem"
        if not ours and record is None:
            raise Problem(
                f"namespace {name} on {cluster.context} was not made by make deploy: delete it yourself if it is yours"
            )
        if ours and _removes(cluster, name):
            gone.append(name)
        else:
            left += [f"namespace {name}", *_empty(cluster, name, record, say)]
    _wait(cluster, gone, [name for name in present if name not in gone], timeout_s=timeout_s, say=say)
    return Removed(bool(gone or left), tuple(left))


def _removes(cluster: Cluster, name: str) -> bool:
    """Begin to remove a namespace; False where the user may not."""
    try:
        cluster.run("delete", "namespace", name, "--wait=false", doing=f"removing namespace {name}")
    except Forbidden:
        return False
    return True


def _empty(cluster: Cluster, namespace: str, record: Record | None, say: Say) -> list[str]:
    """Remove what we put into a namespace; returns what the user may not remove."""
    entries = [(kind, name) for kind, where, name in (record.inventory if record else ()) if where == namespace]
    if namespace == NAMESPACE:  # old configurations are kept for a roll-out back, and are not in the record
        where = (f"--namespace={namespace}", f"--selector={OURS}")
        maps = cluster.get("configmaps", *where, doing="looking for configurations")
        entries += [("ConfigMap", one["metadata"]["name"]) for one in maps if one["metadata"]["name"] != NAME]
    say(f"removing {len(entries)} objects from namespace {namespace}")
    left = _delete(cluster, namespace, list(dict.fromkeys(entries)))
    if record and namespace == NAMESPACE:  # last: what is left is known by it
        left += _delete(cluster, namespace, [("ConfigMap", NAME)])
    return [f"{kind} {name}" for kind, name in left]


def _delete(cluster: Cluster, namespace: str, entries: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Delete these objects, (kind, name); returns those that the user may not delete. Raises `Problem`."""
    if not entries:
        return []
    arguments = ("delete", f"--namespace={namespace}", "--ignore-not-found", "--wait=false")
    try:
        names = [f"{kind}/{name}" for kind, name in entries]
        cluster.run(*arguments, *names, doing=f"emptying namespace {namespace}")
    except Forbidden:
        if len(entries) == 1:
            return list(entries)
        return [one for entry in entries for one in _delete(cluster, namespace, [entry])]
    return []


def _wait(cluster: Cluster, gone: Sequence[str], emptied: Sequence[str], *, timeout_s: float, say: Say) -> None:
    """Until the namespaces are gone, and nothing of ours runs in those that stay."""
    started = time.monotonic()
    while True:
        there = permissions.namespaces(cluster, gone)
        pods = [pod for name in emptied for pod in _pods(cluster, name)]
        if not there and not pods:
            return
        passed = time.monotonic() - started
        held = [line for one in there.values() for line in preflight.leaving(one)]
        what = ", ".join([*there, *(pod["metadata"]["name"] for pod in pods)])
        if passed > timeout_s:
            raise Problem(
                f"{what} {'is' if len(there) + len(pods) == 1 else 'are'} still there after {timeout_s:g} s"
                + (f": kubectl get namespace {next(iter(there))} --output=yaml says what holds it" if there else ""),
                held,
            )
        because = f": {'; '.join(held)}" if passed > HELD_S and held else ""
        say(f"removing {what} ({passed:.0f} s){because}")
        time.sleep(rollout.POLL_S)


def _pods(cluster: Cluster, namespace: str) -> list[Object]:
    return cluster.get("pods", f"--namespace={namespace}", f"--selector={OURS}", doing="looking at what still runs")
