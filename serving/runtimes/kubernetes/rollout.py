"""Waits until every Deployment and DaemonSet has rolled out, says how far it is, and where it will not, why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from models.problem import Problem
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster, Object, explain
from serving.runtimes.kubernetes.settings import identity

POLL_S = 2.0
LINE_EVERY_S = 30.0  # in a log, while nothing changes
UNSCHEDULABLE_S = 90.0  # an autoscaler of nodes may add one meanwhile
CRASHES = 3
IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")

Say = Callable[[str], None]
Identity = tuple[str, str, str]  # (kind, namespace, name)


@dataclass(frozen=True)
class State:
    """The Deployments and DaemonSets waited for, and their pods, at one moment."""

    workloads: list[Object]
    replica_sets: list[Object]
    pods: list[Object]

    @property
    def done(self) -> bool:
        """Whether each of them runs its newest pods, and no old ones."""
        return all(_complete(one) for one in self.workloads)

    def __str__(self) -> str:
        return ", ".join(f"{one['metadata']['name']} {_ready(one)}/{_wanted(one)}" for one in self.workloads)


def rolling(objects: Iterable[Object]) -> list[Identity]:
    """What there is to wait for among applied ``objects``: Deployments that want pods, and DaemonSets."""
    return [
        identity(one)
        for one in objects
        if one["kind"] == "DaemonSet" or (one["kind"] == "Deployment" and one["spec"].get("replicas", 1))
    ]


def deployments(names: Iterable[str]) -> list[Identity]:
    """Our Deployments of these names."""
    return [("Deployment", NAMESPACE, name) for name in names]


def wait(cluster: Cluster, workloads: Sequence[Identity], *, timeout_s: float, say: Say) -> None:
    """Return once all workloads have rolled out; `say` gets a line whenever something changed, and now and then.

    Raises `Problem`, with the pod's last events and log lines, where an image cannot be pulled, a container keeps
    crashing, a quota or Pod Security refuses a pod, none of the nodes takes it, or the time is up.
    """
    started = time.monotonic()
    unschedulable: dict[str, float] = {}
    last, said_at = "", 0.0
    while True:
        state = look(cluster, workloads)
        now = time.monotonic()
        if (text := str(state)) != last or now - said_at > LINE_EVERY_S:
            say(f"{text} ready ({now - started:.0f} s)")
            last, said_at = text, now
        if state.done:
            return
        _raise_if_hopeless(cluster, state, unschedulable, now)
        if now - started > timeout_s:
            pod = next((one for one in state.pods if not _pod_ready(one)), None)
            late = next(one for one in state.workloads if not _complete(one))
            raise _problem(
                cluster,
                f"not rolled out after {timeout_s:g} s ({text} ready): "
                f"the {'pod' if pod else late['kind']}'s last events and log lines are above",
                pod or late,
            )
        time.sleep(POLL_S)


def look(cluster: Cluster, workloads: Sequence[Identity]) -> State:
    """The present state of these workloads. Raises `Problem`."""
    found: list[Object] = []
    kinds = "deployments,replicasets,daemonsets,pods"
    for namespace in sorted({namespace for _, namespace, _ in workloads}):
        found += cluster.get(kinds, f"--namespace={namespace}", doing="watching the roll-out")
    known = {identity(one): one for one in found}
    if missing := [name for kind, namespace, name in workloads if (kind, namespace, name) not in known]:
        raise Problem(f"{', '.join(sorted(missing))}: gone from the cluster while it rolled out")
    waited_for = [known[one] for one in workloads]
    owners = {one["metadata"]["uid"] for one in waited_for}
    sets = [one for one in found if one["kind"] == "ReplicaSet" and _owner(one) in owners]
    owners |= {one["metadata"]["uid"] for one in sets}
    return State(waited_for, sets, [one for one in found if one["kind"] == "Pod" and _owner(one) in owners])


def _owner(one: Object) -> str:
    return next((owner["uid"] for owner in one["metadata"].get("ownerReferences", [])), "")


def _wanted(workload: Object) -> int:
    """The pods that it is to have: a DaemonSet's controller counts the nodes for it."""
    if workload["kind"] == "DaemonSet":
        return int(workload.get("status", {}).get("desiredNumberScheduled", 0))
    return int(workload["spec"].get("replicas", 1))


def _observed(workload: Object) -> bool:
    """Whether its controller has seen what was applied."""
    seen = workload.get("status", {}).get("observedGeneration", 0)
    return bool(seen >= workload["metadata"].get("generation", 0))


def _ready(workload: Object) -> int:
    if not _observed(workload):
        return 0
    status = workload.get("status", {})
    if workload["kind"] == "DaemonSet":
        return int(min(status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)))
    return int(min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0)))


def _complete(workload: Object) -> bool:
    if not _observed(workload) or _ready(workload) < _wanted(workload):
        return False
    status = workload.get("status", {})
    return bool(workload["kind"] == "DaemonSet" or status.get("replicas", 0) == status.get("updatedReplicas", 0))


def _pod_ready(pod: Object) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def _raise_if_hopeless(cluster: Cluster, state: State, unschedulable: dict[str, float], now: float) -> None:
    for one in [*state.workloads, *state.replica_sets]:
        for condition in one.get("status", {}).get("conditions", []):
            name = one["metadata"]["name"]
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                raise explain(f"{name}: no pod can be made", condition.get("message", ""))
            if condition.get("reason") == "ProgressDeadlineExceeded":
                pod = next((pod for pod in state.pods if not _pod_ready(pod)), None)
                raise _problem(cluster, f"{name}: no progress any more: {condition.get('message', '')}", pod)
    for pod in state.pods:
        _raise_if_pod_is_hopeless(cluster, pod, unschedulable, now)


def _raise_if_pod_is_hopeless(cluster: Cluster, pod: Object, unschedulable: dict[str, float], now: float) -> None:
    name = pod["metadata"]["name"]
    for condition in pod["status"].get("conditions", []):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            since = unschedulable.setdefault(name, now)
            if now - since > UNSCHEDULABLE_S:
                raise _problem(cluster, f"{name}: no node takes it: {condition.get('message', '')}", pod)
    for status in pod["status"].get("containerStatuses", []):
        waiting = status.get("state", {}).get("waiting", {})
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in IMAGE_REASONS:
            raise _problem(
                cluster,
                f"{name}: image {status['image']} cannot be pulled ({message or reason}): is it pushed "
                f"(make deploy does it), and may the nodes pull from that registry?",
                pod,
            )
        if reason in CONFIG_REASONS:
            raise _problem(cluster, f"{name}: its container cannot be started: {message or reason}", pod)
        if status.get("restartCount", 0) >= CRASHES and not status.get("ready"):
            ended = status.get("lastState", {}).get("terminated", {})
            why = f"{ended.get('reason', reason)}, exit status {ended.get('exitCode', '?')}"
            raise _problem(cluster, f"{name}: its container keeps dying ({why}): its log lines are above", pod)


def _problem(cluster: Cluster, message: str, culprit: Object | None) -> Problem:
    """A `Problem` with the last events of a pod (or of what has no pod yet), and the pod's log lines, as evidence."""
    if culprit is None:
        return Problem(message)
    name, namespace = culprit["metadata"]["name"], f"--namespace={culprit['metadata']['namespace']}"
    selector = f"--field-selector=involvedObject.name={name},involvedObject.kind={culprit['kind']}"
    events = cluster.get("events", namespace, selector, doing=f"reading the events of {name}")
    events.sort(key=lambda one: one.get("lastTimestamp") or one.get("eventTime") or "")
    lines = [f"event {one.get('reason', '')}: {one.get('message', '')}" for one in events[-5:]]
    for previous in (["--previous"], []) if culprit["kind"] == "Pod" else ():
        done = cluster.try_run("logs", name, namespace, "--tail=15", *previous)
        if done.returncode == 0 and done.stdout.strip():
            lines += [f"log   {line}" for line in done.stdout.splitlines()[-15:]]
            break
    return Problem(message, lines)
