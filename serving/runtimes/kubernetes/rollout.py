"""Waits until every Deployment and DaemonSet has rolled out, says how far it is, and where it will not, why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from models.problem import Problem
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster, Object, explain
from serving.runtimes.kubernetes.settings import identity

POLL_S = 2.0
LINE_EVERY_S = 30.0  # in a log, while nothing changes
EVENTS_AFTER_S = 30.0  # of waiting, what the cluster says of each pod is shown
UNSCHEDULABLE_S = 90.0  # an autoscaler of nodes may add one meanwhile
PULL_S = 60.0  # a registry may be away for a moment
ENDED_LATE_S = 60.0  # beyond its grace period: then nobody waits any longer for a pod to end
CRASHES = 3
SHOWN = 5  # pods, in an error
PULL_REASONS = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError")
IMAGE_REASONS = ("InvalidImageName", "ErrImageNeverPull")
CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
REVISION = "deployment.kubernetes.io/revision"
GENERATION = "deprecated.daemonset.template.generation"
POD_GENERATION = "pod-template-generation"

Say = Callable[[str], None]
Identity = tuple[str, str, str]  # (kind, namespace, name)


@dataclass(frozen=True)
class State:
    """The Deployments and DaemonSets waited for, their pods, and all pods there that are ending, at one moment."""

    workloads: list[Object]
    replica_sets: list[Object]
    pods: list[Object]
    ending: list[Object]

    @property
    def done(self) -> bool:
        """Whether each of them runs its newest pods, and no old ones."""
        return all(self._complete(one) for one in self.workloads)

    def __str__(self) -> str:
        return ", ".join(
            f"{one['metadata']['name']} {self._ready(one)}/{_wanted(one)}{self._old(one)}" for one in self.workloads
        )

    @property
    def waiting(self) -> list[Object]:
        """The newest pods that are not ready, of what is not complete."""
        late = [one for one in self.workloads if not self._complete(one)]
        return [pod for one in late for pod in self.newest(one) if not _pod_ready(pod)]

    @property
    def late(self) -> Object:
        """The first of them that is not complete."""
        return next(one for one in self.workloads if not self._complete(one))

    def newest(self, workload: Object) -> list[Object]:
        """The pods of the revision that was applied last, without those that are ending."""
        annotations = workload["metadata"].get("annotations", {})
        owner = workload["metadata"]["uid"]
        if workload["kind"] == "Deployment":
            sets = [one for one in self.replica_sets if _owner(one) == owner]
            owners = {
                one["metadata"]["uid"]
                for one in sets
                if _same(one["metadata"].get("annotations", {}).get(REVISION), annotations.get(REVISION))
            }
            found = [pod for pod in self.pods if _owner(pod) in owners]
        else:
            found = [
                pod
                for pod in self.pods
                if _owner(pod) == owner
                and _same(pod["metadata"].get("labels", {}).get(POD_GENERATION), annotations.get(GENERATION))
            ]
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def _ready(self, workload: Object) -> int:
        return sum(map(_pod_ready, self.newest(workload))) if _observed(workload) else 0

    def _old(self, workload: Object) -> str:
        status = workload.get("status", {})
        old = int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))
        return f" and {old} old" if workload["kind"] == "Deployment" and _observed(workload) and old > 0 else ""

    def _complete(self, workload: Object) -> bool:
        wanted, status = _wanted(workload), workload.get("status", {})
        if not _observed(workload) or self._ready(workload) < wanted:
            return False
        if workload["kind"] == "DaemonSet":
            return int(min(status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0))) >= wanted
        updated, available = int(status.get("updatedReplicas", 0)), int(status.get("availableReplicas", 0))
        return updated >= wanted and available >= wanted and int(status.get("replicas", 0)) == updated


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
    """Return once all workloads have rolled out; `say` gets a line whenever something changed, and now and then, with
    the newest warning of each pod that waits.

    Raises `Problem`, with the pods' last events and log lines, where an image cannot be pulled for a minute, a
    container keeps crashing, a quota or Pod Security refuses a pod, none of the nodes takes it, or the time is up.
    """
    if workloads:
        _Waiting(cluster, workloads, timeout_s, say).wait()


@dataclass
class _Waiting:
    """One roll-out that is waited for, and what was seen of it."""

    cluster: Cluster
    workloads: Sequence[Identity]
    timeout_s: float
    say: Say
    started: float = field(default_factory=time.monotonic)
    since: dict[tuple[str, str], float] = field(default_factory=dict)  # (pod, what is wrong with it): when it began
    seen: str = ""  # what was wrong when it was last looked at

    def wait(self) -> None:
        last, said_at = "", 0.0
        while True:
            state = self._look()
            now = time.monotonic()
            passed = now - self.started
            room = self._makes_room(state, now)
            if (shown := f"{state}{room}") != last or now - said_at > LINE_EVERY_S:
                why = self._warnings(state.waiting) if passed > EVENTS_AFTER_S else []
                self.say("\n".join([f"{state} ready ({passed:.0f} s){room}", *(f"    {line}" for line in why)]))
                last, said_at = shown, now
            if state.done:
                return
            self.seen = "; ".join(f"{one['metadata']['name']}: {_why(one)}" for one in state.waiting[:SHOWN])
            self._raise_if_hopeless(state, bool(room), now)
            if passed > self.timeout_s:
                raise self._late(state)
            time.sleep(POLL_S)

    def _look(self) -> State:
        try:
            return look(self.cluster, self.workloads)
        except Problem as problem:
            if not self.seen:
                raise
            raise Problem(f"{problem} (before that: {self.seen})", problem.details) from None

    def _makes_room(self, state: State, now: float) -> str:
        """The pods whose end others wait for, in words; empty where no pod waits for room, or none is ending."""
        waiting = [pod["metadata"]["name"] for pod in state.waiting if _unschedulable(pod)]
        ending = []
        for pod in state.ending:
            grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
            name = pod["metadata"]["name"]
            if now - self.since.setdefault((name, "ending"), now) < grace + ENDED_LATE_S:
                ending.append(f"{name} (up to {grace:.0f} s)")
        return f"; {', '.join(waiting)} will get the room of {', '.join(ending)}" if waiting and ending else ""

    def _late(self, state: State) -> Problem:
        waiting = state.waiting
        pods = ", ".join(f"{one['metadata']['name']} ({_why(one)})" for one in waiting[:SHOWN])
        culprit = waiting[0] if waiting else state.late
        whose = f"the {'pod' if waiting else culprit['kind']}'s last events and log lines are above"
        return self._problem(
            f"not rolled out after {self.timeout_s:g} s ({state} ready){f'; waiting: {pods}' if pods else ''}: {whose}",
            culprit,
            self._warnings(waiting[1:SHOWN]),
        )

    def _raise_if_hopeless(self, state: State, makes_room: bool, now: float) -> None:
        observed = [one for one in state.workloads if _observed(one)]  # of others it is still said what was before
        owners = {one["metadata"]["uid"] for one in observed}
        for one in [*observed, *(one for one in state.replica_sets if _owner(one) in owners)]:
            for condition in one.get("status", {}).get("conditions", []):
                name = one["metadata"]["name"]
                if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                    raise explain(f"{name}: no pod can be made", condition.get("message", ""))
                if condition.get("reason") == "ProgressDeadlineExceeded":
                    pod = next(iter(state.waiting), None)
                    raise self._problem(f"{name}: no progress any more: {condition.get('message', '')}", pod)
        for pod in (pod for one in observed for pod in state.newest(one)):
            self._raise_if_pod_is_hopeless(pod, makes_room, now)

    def _raise_if_pod_is_hopeless(self, pod: Object, makes_room: bool, now: float) -> None:
        name = pod["metadata"]["name"]
        # A pod that is ending makes room: the time without any begins when none is.
        if self._lasts(name, "no room", _unschedulable(pod) is not None and not makes_room, now, UNSCHEDULABLE_S):
            raise self._problem(f"{name}: no node takes it: {_unschedulable(pod)}", pod)
        for status in _container_statuses(pod):
            waiting = status.get("state", {}).get("waiting", {})
            reason, message = waiting.get("reason", ""), waiting.get("message", "")
            pulls = reason in PULL_REASONS
            if self._lasts(name, f"pull {status.get('name')}", pulls, now, PULL_S) or reason in IMAGE_REASONS:
                raise self._problem(
                    f"{name}: image {_image(pod, status)} cannot be pulled ({message or reason}): is it pushed "
                    f"(make deploy does it), and may the nodes pull from that registry?",
                    pod,
                )
            if reason in CONFIG_REASONS:
                raise self._problem(f"{name}: its container cannot be started: {message or reason}", pod)
            if status.get("restartCount", 0) >= CRASHES and not status.get("ready"):
                ended = status.get("lastState", {}).get("terminated", {})
                why = f"{ended.get('reason', reason)}, exit status {ended.get('exitCode', '?')}"
                raise self._problem(f"{name}: its container keeps dying ({why}): its log lines are above", pod)

    def _lasts(self, name: str, what: str, wrong: bool, now: float, limit_s: float) -> bool:
        """Whether that has been wrong with a pod for longer than ``limit_s``, without an end in between."""
        if not wrong:
            self.since.pop((name, what), None)
            return False
        return now - self.since.setdefault((name, what), now) > limit_s

    def _warnings(self, pods: Sequence[Object]) -> list[str]:
        """The newest warning of each of these pods, else why it waits, a line each."""
        newest: dict[str, Object] = {}
        for namespace in sorted({pod["metadata"]["namespace"] for pod in pods}):
            for event in self._events(f"--namespace={namespace}", "--field-selector=type=Warning"):
                newest[event["involvedObject"]["name"]] = event
        lines = []
        for pod in pods:
            name = pod["metadata"]["name"]
            said = newest.get(name)
            lines.append(f"{name}: {f'{_reason(said)}: {_message(said)}' if said else _why(pod)}")
        return lines

    def _events(self, *arguments: str) -> list[Object]:
        """Events, the newest last; none where they cannot be had: what is known otherwise must not be lost for it."""
        try:
            found = self.cluster.get("events", *arguments, doing="reading events")
        except Problem:
            return []
        return sorted(found, key=_time)

    def _problem(self, message: str, culprit: Object | None, others: Sequence[str] = ()) -> Problem:
        """A `Problem` with the last events of a pod (or of what has no pod yet), and its log lines, as evidence."""
        if culprit is None:
            return Problem(message, others)
        name, namespace = culprit["metadata"]["name"], f"--namespace={culprit['metadata']['namespace']}"
        selector = f"--field-selector=involvedObject.name={name},involvedObject.kind={culprit['kind']}"
        lines = [f"event {_reason(one)}: {_message(one)}" for one in self._events(namespace, selector)[-5:]]
        for previous in (["--previous"], []) if culprit["kind"] == "Pod" else ():
            done = self.cluster.try_run("logs", name, namespace, "--tail=15", *previous)
            if done.returncode == 0 and done.stdout.strip():
                lines += [f"log   {line}" for line in done.stdout.splitlines()[-15:]]
                break
        return Problem(message, [*others, *lines])


def look(cluster: Cluster, workloads: Sequence[Identity]) -> State:
    """The present state of these workloads. Raises `Problem`."""
    found: list[Object] = []
    for namespace in sorted({namespace for _, namespace, _ in workloads}):
        kinds = {"Deployment": "deployments,replicasets", "DaemonSet": "daemonsets"}
        asked = sorted({kinds[kind] for kind, where, _ in workloads if where == namespace})
        found += cluster.get(",".join([*asked, "pods"]), f"--namespace={namespace}", doing="watching the roll-out")
    known = {identity(one): one for one in found}
    if missing := [name for kind, namespace, name in workloads if (kind, namespace, name) not in known]:
        raise Problem(f"{', '.join(sorted(missing))}: gone from the cluster while it rolled out")
    waited_for = [known[one] for one in workloads]
    owners = {one["metadata"]["uid"] for one in waited_for}
    sets = [one for one in found if one["kind"] == "ReplicaSet" and _owner(one) in owners]
    owners |= {one["metadata"]["uid"] for one in sets}
    pods = [one for one in found if one["kind"] == "Pod"]
    return State(
        waited_for,
        sets,
        [one for one in pods if _owner(one) in owners],
        [one for one in pods if one["metadata"].get("deletionTimestamp")],
    )


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


def _same(given: str | None, wanted: str | None) -> bool:
    """Whether a revision is the wanted one; where one of them is not known, it is."""
    return None in (given, wanted) or given == wanted


def _pod_ready(pod: Object) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def _unschedulable(pod: Object) -> str | None:
    """What the scheduler says of a pod that no node has room for; None of any other."""
    for condition in pod["status"].get("conditions", []):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return str(condition.get("message", ""))
    return None


def _container_statuses(pod: Object) -> list[Object]:
    status = pod["status"]
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _image(pod: Object, status: Object) -> str:
    """A container's image as we named it: the kubelet may not know, or have another name for it."""
    containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    named = [one["image"] for one in containers if one["name"] == status.get("name")]
    return str(next(iter(named), "") or status.get("image") or containers[0]["image"])


def _why(pod: Object) -> str:
    """Why a pod is not ready, in a few words."""
    if (message := _unschedulable(pod)) is not None:
        return f"no node has room: {message}" if message else "no node has room"
    for status in _container_statuses(pod):
        waiting = status.get("state", {}).get("waiting", {})
        if reason := waiting.get("reason"):
            image = f" of image {_image(pod, status)}" if reason in (*PULL_REASONS, *IMAGE_REASONS) else ""
            return f"{reason}{image}" + (f": {waiting['message']}" if waiting.get("message") else "")
    return f"{pod['status'].get('phase', 'Pending')}, not ready"


def _time(event: Object) -> str:
    series = (event.get("series") or {}).get("lastObservedTime")
    times = (series, event.get("lastTimestamp"), event.get("eventTime"), event["metadata"].get("creationTimestamp"))
    return max(str(one or "") for one in times)


def _reason(event: Object) -> str:
    return str(event.get("reason", ""))


def _message(event: Object) -> str:
    return " ".join(str(event.get("message", "")).split())
