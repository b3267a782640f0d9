"""Waits until every Deployment has rolled out, says how far it is, and where it will not, why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.problem import Problem
from serving.kubernetes.kubectl import NAMESPACE, Cluster, Object, explain

POLL_S = 2.0
LINE_EVERY_S = 30.0  # in a log, while nothing changes
UNSCHEDULABLE_S = 90.0  # an autoscaler of nodes may add one meanwhile
CRASHES = 3
IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")

Say = Callable[[str], None]


@dataclass(frozen=True)
class State:
    """The Deployments waited for, their pods and their events, at one moment."""

    deployments: list[Object]
    replica_sets: list[Object]
    pods: list[Object]

    @property
    def done(self) -> bool:
        """Whether every Deployment runs its newest pods, and no old ones."""
        return all(_complete(one) for one in self.deployments)

    def __str__(self) -> str:
        return ", ".join(
            f"{one['metadata']['name']} {_ready(one)}/{one['spec'].get('replicas', 1)}" for one in self.deployments
        )


def wait(cluster: Cluster, names: Sequence[str], *, timeout_s: float, say: Say) -> None:
    """Return once all Deployments have rolled out; `say` gets a line whenever something changed, and now and then.

    Raises `Problem`, with the pod's last events and log lines, where an image cannot be pulled, a container keeps
    crashing, a quota or Pod Security refuses a pod, none of the nodes takes it, or the time is up.
    """
    started = time.monotonic()
    unschedulable: dict[str, float] = {}
    last, said_at = "", 0.0
    while True:
        state = look(cluster, names)
        now = time.monotonic()
        if (text := str(state)) != last or now - said_at > LINE_EVERY_S:
            say(f"{text} ready ({now - started:.0f} s)")
            last, said_at = text, now
        if state.done:
            return
        _raise_if_hopeless(cluster, state, unschedulable, now)
        if now - started > timeout_s:
            pod = next((one for one in state.pods if not _pod_ready(one)), None)
            raise _problem(
                cluster,
                f"not rolled out after {timeout_s:g} s ({text} ready): the pod's last events and log lines are above",
                pod,
            )
        time.sleep(POLL_S)


def look(cluster: Cluster, names: Sequence[str]) -> State:
    """The present state of these Deployments. Raises `Problem`."""
    found = cluster.get("deployments,replicasets,pods", f"--namespace={NAMESPACE}", doing="watching the roll-out")
    kinds: dict[str, list[Object]] = {"Deployment": [], "ReplicaSet": [], "Pod": []}
    for one in found:
        kinds[one["kind"]].append(one)
    deployments = [one for one in kinds["Deployment"] if one["metadata"]["name"] in names]
    missing = set(names) - {one["metadata"]["name"] for one in deployments}
    if missing:
        raise Problem(f"{', '.join(sorted(missing))}: gone from the cluster while it rolled out")
    owners = {one["metadata"]["uid"] for one in deployments}
    sets = [one for one in kinds["ReplicaSet"] if _owner(one) in owners]
    of_sets = {one["metadata"]["uid"] for one in sets}
    order = {name: position for position, name in enumerate(names)}
    deployments.sort(key=lambda one: order[one["metadata"]["name"]])
    return State(deployments, sets, [one for one in kinds["Pod"] if _owner(one) in of_sets])


def _owner(one: Object) -> str:
    return next((owner["uid"] for owner in one["metadata"].get("ownerReferences", [])), "")


def _ready(deployment: Object) -> int:
    status = deployment.get("status", {})
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        return 0
    return int(min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0)))


def _complete(deployment: Object) -> bool:
    wanted, status = deployment["spec"].get("replicas", 1), deployment.get("status", {})
    return _ready(deployment) >= wanted and status.get("replicas", 0) == status.get("updatedReplicas", 0)


def _pod_ready(pod: Object) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def _raise_if_hopeless(cluster: Cluster, state: State, unschedulable: dict[str, float], now: float) -> None:
    for one in [*state.deployments, *state.replica_sets]:
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


def _problem(cluster: Cluster, message: str, pod: Object | None) -> Problem:
    """A `Problem` with the pod's last events and log lines as evidence."""
    if pod is None:
        return Problem(message)
    name = pod["metadata"]["name"]
    selector = f"--field-selector=involvedObject.name={name}"
    events = cluster.get("events", f"--namespace={NAMESPACE}", selector, doing=f"reading the events of {name}")
    events.sort(key=lambda one: one.get("lastTimestamp") or one.get("eventTime") or "")
    lines = [f"event {one.get('reason', '')}: {one.get('message', '')}" for one in events[-5:]]
    for previous in (["--previous"], []):
        done = cluster.try_run("logs", name, f"--namespace={NAMESPACE}", "--tail=15", *previous)
        if done.returncode == 0 and done.stdout.strip():
            lines += [f"log   {line}" for line in done.stdout.splitlines()[-15:]]
            break
    return Problem(message, lines)
