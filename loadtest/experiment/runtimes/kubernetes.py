"""Runtime "kubernetes": what `make deploy` brought up, one server at a time, loaded from inside the cluster."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from loadtest.experiment.events import Event
from loadtest.experiment.file import Experiment
from loadtest.experiment.load_job import LoadJob
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.records import DifferentNodes, Environment, Node
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes.agent_client import AgentClient
from loadtest.experiment.runtimes.parity_gate import ParityGate
from models.bundle import Bundle
from models.problem import Problem
from serving.engines import registry
from serving.engines.engine import Engine
from serving.runtimes.containers import program_line
from serving.runtimes.kubernetes import endpoints, plan, rollout
from serving.runtimes.kubernetes.cluster_prometheus import ClusterPrometheus
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster, Object
from serving.runtimes.kubernetes.port_forward import PortForward
from serving.runtimes.kubernetes.servers import deployment_of
from serving.runtimes.kubernetes.settings import Record, Settings
from serving.target import Target

AGENT_PORT = 9647
PROMETHEUS_PORT = 9090
READY_S = 900.0
CHECK_EVERY_S = 5.0


def deployed(cluster: Cluster, experiment: Experiment) -> Settings:
    """The deployment to measure. Raises `Problem` where there is none, or none that can be measured."""
    record = Record.load(cluster) if cluster.find("namespace", NAMESPACE, None) else None
    if record is None:
        raise Problem(f"nothing is deployed on {cluster.context}: make deploy COMPONENTS=loadtest first")
    settings = record.settings
    if "autoscaling" in settings.components:
        raise Problem("autoscaling is on, which changes what is measured: make deploy COMPONENTS=loadtest first")
    if settings.model != experiment.served:
        raise Problem(f"{settings.model} is deployed, the experiment is of {experiment.served}: make deploy MODEL=…")
    device = "gpu" if settings.gpu else "cpu"
    if experiment.profile.device != device:
        raise Problem(
            f"profile.device = {experiment.profile.device!r}, and overlay {settings.overlay} is deployed: "
            f'ARGS="--set profile.device={device}", or make deploy with another OVERLAY'
        )
    engines(experiment, settings)
    return settings


def engines(experiment: Experiment, settings: Settings) -> dict[str, Engine]:
    """What is deployed for each target of an experiment. Raises `Problem` where one server of each engine, all of them
    under one profile, cannot be these targets."""
    found: dict[str, Engine] = {}
    for spec in experiment.targets:
        engine = settings.runs(registry.engine(spec.engine))
        if engine in found.values():
            raise Problem(f"target.{spec.name}: the cluster has one server of {engine.id}; leave one target of it out")
        if experiment.profile_of(spec.name) != experiment.profile:
            raise Problem(f"target.{spec.name}.profile: the cluster's servers share one: use [profile] alone")
        found[spec.name] = engine
    return found


class KubernetesTargets:
    """The deployed servers: the one in use alone, with one replica, under the experiment's profile.

    Replicas and configuration are afterwards what they were before.
    """

    server_cores: tuple[int, ...] = ()
    generator_cores: tuple[int, ...] = ()

    def __init__(
        self,
        folder: RunFolder,
        bundle: Bundle,
        experiment: Experiment,
        cluster: Cluster,
        settings: Settings,
    ) -> None:
        if settings.version != bundle.version:
            raise Problem(
                f"version {settings.version} of {settings.model} is deployed, this machine's bundle is version "
                f"{bundle.version}: make rollout MODEL_VERSION={bundle.version}"
            )
        self._folder, self._cluster = folder, cluster
        self._before = settings
        self._settings = replace(settings, profile=replace(experiment.profile, device="cpu"))
        self._engines = engines(experiment, settings)
        self._parity_gate = ParityGate(folder, [bundle], experiment.protocols)
        self._target: Target | None = None
        self._replicas: dict[str, int] = {}
        self._restarts = 0
        self._checked_at = 0.0

    def observe(self, prometheus: Prometheus | None) -> None:
        """The cluster's Prometheus finds the servers itself."""

    def use(self, name: str, now: Callable[[str], None], offset: int = 0) -> None:  # noqa: ARG002 - as the protocol has it
        """Scale all servers to none, and then this target's to one replica: a new pod; see `Targets`."""
        if not self._replicas:
            self._take_over(now)
        engine = self._engines[name]
        for deployment in self._replicas:
            self._scale(deployment, 0)
        self._wait_until_gone()
        self._scale(deployment_of(engine).name, 1)
        rollout.wait(self._cluster, rollout.deployments(self._replicas), timeout_s=READY_S, say=now)
        target = self._as_it_says(endpoints.inside(self._cluster, self._settings, name, engine), engine)
        folder = self._folder.new_folder("servers", name)
        folder.mkdir(parents=True)
        target.save(folder / "target.json")
        self._record_node(target)
        with endpoints.forwarded(self._cluster, target) as (local, _):
            self._parity_gate.prove(local, now)
        others = [known for known in self._folder.read("targets.json", []) if known["name"] != name]
        self._folder.write("targets.json", [*others, target.to_dict()])
        self._target = target
        self._restarts = self._pod(target)[1]

    def target(self, name: str) -> Target:  # noqa: ARG002 - as the protocol has it
        """The server in use, by its name in the cluster."""
        assert self._target is not None
        return self._target

    def check(self) -> None:
        """Raise `Problem` where the server's container was restarted; asks every few seconds."""
        if self._target is None or time.monotonic() - self._checked_at < CHECK_EVERY_S:
            return
        self._checked_at = time.monotonic()
        with contextlib.suppress(_Away):
            pod, restarts = self._pod(self._target)
            if restarts > self._restarts:
                name = pod["metadata"]["name"]
                done = self._cluster.try_run("logs", name, f"--namespace={NAMESPACE}", "--previous", "--tail=15")
                raise Problem(f"{name} died under load and was restarted", done.stdout.splitlines())

    def stop(self) -> None:
        """Put replicas and configuration back; without a connection, say how."""
        if not self._replicas:
            return
        try:
            if self._settings.profile != self._before.profile:
                self._apply(self._before)
            for name, count in self._replicas.items():
                self._scale(name, count)
        except Problem as problem:
            raise Problem(f"the servers' replicas could not be put back ({problem}): make deploy does it") from None
        self._replicas = {}
        self._target = None

    def _take_over(self, now: Callable[[str], None]) -> None:
        for name in self._settings.deployments:
            deployment = self._cluster.find("deployment", name)
            if deployment is None:
                raise Problem(f"{name} is gone from {self._cluster.context}: make deploy")
            self._replicas[name] = deployment["spec"].get("replicas", 1)
        if self._settings.profile != self._before.profile:
            now("giving the servers the experiment's profile")
            self._apply(self._settings)

    def _apply(self, settings: Settings) -> None:
        objects = plan.render(settings, self._folder.path / "servers" / "kubernetes")
        names = set(settings.deployments)
        chosen = [
            one
            for one in objects
            if (one["kind"] == "Deployment" and one["metadata"]["name"] in names)
            or (one["kind"] == "ConfigMap" and one["metadata"]["name"].rpartition("-config-")[0] in names)
        ]
        self._cluster.apply(chosen)

    def _scale(self, name: str, replicas: int) -> None:
        patch = json.dumps({"spec": {"replicas": replicas}})
        arguments = ["patch", "deployment", name, f"--namespace={NAMESPACE}", "--type=merge", f"--patch={patch}"]
        self._cluster.run(*arguments, doing=f"scaling {name} to {replicas}")

    def _wait_until_gone(self) -> None:
        """A pod that stops still drains: it would share a node's CPUs, and old pods would answer."""
        deadline = time.monotonic() + READY_S
        while pods := self._pods():
            if time.monotonic() > deadline:
                raise Problem(f"{', '.join(one['metadata']['name'] for one in pods)}: not gone after {READY_S:g} s")
            time.sleep(rollout.POLL_S)

    def _pods(self) -> list[Object]:
        selector = "--selector=app.kubernetes.io/component=server"
        return self._cluster.get("pods", f"--namespace={NAMESPACE}", selector, doing="looking for the servers' pods")

    def _pod(self, target: Target) -> tuple[Object, int]:
        """The server's pod and how often its container was restarted. Raises `_Away` where the cluster is."""
        try:
            pods = self._pods()
        except Problem as problem:
            raise _Away(str(problem)) from None
        name = deployment_of(registry.engine(target.engine)).name
        for pod in pods:
            if pod["metadata"]["labels"].get("app.kubernetes.io/name") == name:
                statuses = pod["status"].get("containerStatuses", [])
                return pod, sum(status.get("restartCount", 0) for status in statuses)
        raise Problem(f"{name} has no pod any more: kubectl --namespace={NAMESPACE} get pods,events")

    def _as_it_says(self, target: Target, engine: Engine) -> Target:
        """The target with what its log says of its program's version and of its switches, where that may be read."""
        pod, _ = self._pod(target)
        done = self._cluster.try_run("logs", pod["metadata"]["name"], f"--namespace={NAMESPACE}")
        log = "" if done.returncode else done.stdout
        version = program_line.version(log) or target.engine_version
        return replace(target, engine_version=version, switches=(*engine.in_force(log), *target.switches))

    def _record_node(self, target: Target) -> None:
        """Node and GPU model into environment.json; different node types spoil the comparison, which is noted."""
        pod, _ = self._pod(target)
        node = self._cluster.find("node", pod["spec"]["nodeName"], None) or {"metadata": {}, "status": {}}
        labels, info = node["metadata"].get("labels", {}), node["status"].get("nodeInfo", {})
        images = [status.get("imageID", "") for status in pod["status"].get("containerStatuses", [])]
        found = Node(
            node=pod["spec"]["nodeName"],
            instance_type=labels.get("node.kubernetes.io/instance-type"),
            gpu=labels.get("nvidia.com/gpu.product"),
            capacity=node["status"].get("capacity", {}),
            kernel=info.get("kernelVersion"),
            kubelet=info.get("kubeletVersion"),
            image=next(iter(images), ""),
        )
        known = self._folder.environment()
        nodes = {**known.nodes, target.name: found}
        self._folder.save_environment(msgspec.structs.replace(known, nodes=nodes))
        if len({(one.instance_type, one.gpu) for one in nodes.values()}) > 1:
            self._folder.note(DifferentNodes())


class _Away(Problem):
    """The cluster does not answer just now."""


class InCluster:
    """The load generator's pod and the cluster's Prometheus, by port-forwards that come back. A context manager."""

    settle_s = 6.5  # a scrape every five seconds

    def __init__(self, cluster: Cluster, folder: RunFolder) -> None:
        self._cluster, self._folder = cluster, folder
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> InCluster:
        forward = self._resources.enter_context(PortForward(self._cluster, "deployment/locust-master", (AGENT_PORT,)))
        self.agent = AgentClient(forward.address(AGENT_PORT), self._folder.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def environment(self, cores: tuple[int, ...]) -> Environment:  # noqa: ARG002 - as the protocol has it
        """The generator's pod; see `LoadOrigin`."""
        return msgspec.structs.replace(self.agent.environment(), cluster=self._cluster.context)

    def prometheus(self, folder: Path, cores: tuple[int, ...]) -> Prometheus | None:  # noqa: ARG002 - as the protocol has it
        """The cluster's own, where there is one; see `LoadOrigin`."""
        if self._cluster.find("service", "prometheus") is None:
            return None
        forward = self._resources.enter_context(PortForward(self._cluster, "service/prometheus", (PROMETHEUS_PORT,)))
        return ClusterPrometheus(f"http://{forward.address(PROMETHEUS_PORT)}")

    def meters(self, *, on_gpu: bool) -> None:
        """The nodes' cannot be read from here; see `LoadOrigin`."""

    def run_phases(self, job: LoadJob, *, on_event: Callable[[Event], None], check: Callable[[], None]) -> None:
        """By the agent and as many Locust workers as the cluster has. Of one model: images hold one."""
        assert not job.mix
        workers = self._cluster.find("deployment", "locust-worker")
        there = workers["spec"].get("replicas", 1) if workers else 0
        generator = replace(job.generator, remote_workers=there, processes=1)
        self.agent.run_phases(msgspec.structs.replace(job, generator=generator), on_event=on_event, check=check)
