"""Runtime "kubernetes": what `make deploy` brought up, one server at a time, loaded from inside the cluster."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from loadtest.experiment import phases
from loadtest.experiment.events import Event
from loadtest.experiment.file import Experiment
from loadtest.experiment.load_job import LoadJob
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.records import Environment, ServerReplaced
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes import cluster_nodes
from loadtest.experiment.runtimes.agent_client import AgentClient
from loadtest.experiment.runtimes.parity_gate import ParityGate
from models.bundle import Bundle
from models.problem import Problem
from serving.engines import registry
from serving.engines.engine import Engine
from serving.replaced import Replaced, Successor
from serving.runtimes.containers import program_line
from serving.runtimes.kubernetes import deploy, endpoints, load_generator, plan, pods, rollout
from serving.runtimes.kubernetes.cluster_prometheus import ClusterPrometheus
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster, Object
from serving.runtimes.kubernetes.port_forward import PortForward
from serving.runtimes.kubernetes.servers import deployment_of
from serving.runtimes.kubernetes.settings import Settings
from serving.target import Target

PROMETHEUS_PORT = 9090
READY_S = 900.0
CHECK_EVERY_S = 5.0
# At a block's end it must be known whether its server was replaced: so long the cluster may be away.
AWAY_S = 300.0


def deployed(cluster: Cluster, experiment: Experiment) -> Settings:
    """The deployment to measure. Raises `Problem` where there is none, or none that can be measured."""
    record = deploy.deployed(cluster)
    if record is None:
        raise Problem(f"nothing is deployed on {cluster.context}: make deploy COMPONENTS=loadtest first")
    settings = record.settings
    if "autoscaling" in settings.components:
        raise Problem("autoscaling is on, which changes what is measured: make deploy COMPONENTS=loadtest first")
    if settings.model != experiment.served:
        raise Problem(f"{settings.model} is deployed, the experiment is of {experiment.served}: make deploy MODEL=…")
    engines(experiment, settings)
    return settings


def on_its_device(experiment: Experiment, settings: Settings, asked: object = None) -> Experiment:
    """The experiment on the device that is deployed, which nobody need name. Raises `Problem` where it wants another
    one; ``asked``: what the command line says."""
    device = settings.serving_profile.device
    wanted = asked or (experiment.profile.device if experiment.profile.device != "cpu" else device)
    if wanted != device:
        raise Problem(
            f"profile.device = {wanted!r}, and overlay {settings.overlay} is deployed: leave it out, or make deploy "
            f"with another OVERLAY"
        )
    return replace(experiment, profile=replace(experiment.profile, device=device))


def require_same(experiment: Experiment, settings: Settings, bundle: Bundle) -> None:
    """Raise `Problem` where what is deployed is not ``bundle``, this machine's of that model and version, or not what
    the experiment is of."""
    if settings.version != bundle.version:
        raise Problem(
            f"version {settings.version} of {settings.model} is deployed, this machine's bundle is version "
            f"{bundle.version}: make rollout MODEL_VERSION={bundle.version}"
        )
    if settings.bundle and settings.bundle != bundle.digest:
        raise Problem(
            f"{bundle.folder}: not the bundle that is deployed as {settings.model} version {settings.version}, but "
            f"another of that number: make deploy MODEL={settings.model}, or bring that one here"
        )
    known = settings.dataset or bundle.dataset
    wanted = Path(experiment.images).name if experiment.images else experiment.dataset
    if known not in (wanted, experiment.dataset):
        raise Problem(
            f"dataset = {wanted!r}, and {settings.model} version {settings.version}, which is deployed, is of {known}: "
            f"make compare DATASET={known}, or make export DATASET={wanted} and make deploy"
        )
    has = settings.profile.precision.exported
    if experiment.profile.precision.exported is not has:
        raise Problem(
            f"profile.precision = {experiment.profile.precision.value!r}, and the graphs that are deployed compute in "
            f"{has}: make compare PRECISION={has}, or make export PRECISION={experiment.profile.precision} and deploy"
        )
    experiment.profile.require(bundle)


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
        require_same(experiment, settings, bundle)
        self._folder, self._cluster = folder, cluster
        self._before = settings
        profile = replace(experiment.profile, device=settings.profile.device)
        self._settings = replace(settings, profile=profile)
        self._engines = engines(experiment, settings)
        self._parity_gate = ParityGate(folder, [bundle], experiment.protocols)
        self._in_use: _InUse | None = None
        self._replicas: dict[str, int] = {}
        self._checked_at = 0.0

    def observe(self, prometheus: Prometheus | None) -> None:
        """The cluster's Prometheus finds the servers itself."""

    def use(self, name: str, now: Callable[[str], None], offset: int = 0) -> None:  # noqa: ARG002 - as the protocol has it
        """Scale all servers to none, and then this target's to one replica: a new pod; see `Targets`."""
        if not self._replicas:
            self._take_over(now)
        self._leave()
        engine = self._engines[name]
        own = deployment_of(engine).name
        for deployment in self._replicas:
            self._scale(deployment, 0)
        self._wait_until_gone()
        self._scale(own, 1)
        rollout.wait(self._cluster, rollout.deployments(self._replicas), timeout_s=READY_S, say=now)
        pod = pods.require(own, pods.of_servers(self._cluster))
        target = endpoints.inside(self._cluster, self._settings, name, engine)
        target = replace(self._as_it_says(target, engine, pod), instance=pods.instance(pod))
        folder = self._folder.new_folder("servers", name)
        folder.mkdir(parents=True)
        target.save(folder / "target.json")
        for file, text in pods.configuration(self._cluster, pod).items():
            (folder / Path(file).name).write_text(text, newline="")
        cluster_nodes.record(self._cluster, self._folder, name, pod)
        with endpoints.forwarded(self._cluster, target) as (local, _):
            self._parity_gate.prove(local, now)
        others = [known for known in self._folder.read("targets.json", []) if known["name"] != name]
        self._folder.write("targets.json", [*others, target.to_dict()])
        self._in_use = _InUse(target, pod, folder, pods.throttled(self._cluster, pod))

    def target(self, name: str) -> Target:  # noqa: ARG002 - as the protocol has it
        """The server in use, by its name in the cluster."""
        assert self._in_use is not None
        return self._in_use.target

    def check(self, *, fresh: bool = False) -> None:
        """Raise `Replaced` where the server's pod is another one, or is about to go, or its container was restarted;
        asks every few seconds, and where the cluster is away again later. ``fresh``: waits until it has answered."""
        if self._in_use is None or (not fresh and time.monotonic() - self._checked_at < CHECK_EVERY_S):
            return
        self._checked_at = time.monotonic()
        deadline = time.monotonic() + (AWAY_S if fresh else 0.0)
        while True:
            try:
                found = pods.of_servers(self._cluster)
                break
            except Problem as problem:
                if not fresh:
                    return
                if time.monotonic() > deadline:
                    name = self._in_use.target.name
                    raise Problem(f"target.{name}: whether its server was replaced is not known: {problem}") from None
                time.sleep(rollout.POLL_S)
        try:
            self._in_use.check(found, self._cluster)
        except Replaced:
            self._parity_gate.forget(self._in_use.target.name)
            raise

    def stop(self) -> None:
        """Put replicas and configuration back; without a connection, say how."""
        self._leave()
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

    def _leave(self) -> None:
        """Keep what the server has written, and how often its CPU limit stopped it."""
        if self._in_use is None:
            return
        in_use, self._in_use = self._in_use, None
        with contextlib.suppress(Problem):
            (in_use.folder / "server.log").write_text(pods.log(self._cluster, in_use.pod))
            after = pods.throttled(self._cluster, in_use.pod)
            cluster_nodes.record_throttling(self._folder, in_use.target.name, in_use.throttled, after)

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
        while left := pods.living(pods.of_servers(self._cluster)):
            if time.monotonic() > deadline:
                raise Problem(f"{', '.join(one['metadata']['name'] for one in left)}: not gone after {READY_S:g} s")
            time.sleep(rollout.POLL_S)

    def _as_it_says(self, target: Target, engine: Engine, pod: Object) -> Target:
        """The target with what its log says of its program's version and of its switches, where that may be read."""
        log = pods.log(self._cluster, pod)
        version = program_line.version(log) or target.engine_version
        return replace(target, engine_version=version, switches=(*engine.in_force(log), *target.switches))


class _InUse:
    """The server under load. `throttled`: how often and how long its CPU limit had stopped it before that."""

    def __init__(self, target: Target, pod: Object, folder: Path, throttled: tuple[int, float] | None) -> None:
        self.target, self.pod, self.folder, self.throttled = target, pod, folder, throttled

    def check(self, found: Sequence[Object], cluster: Cluster) -> None:
        """Raise `Replaced` where it is not among the pods that were ``found``, as it was."""
        name, where = self.pod["metadata"]["name"], f"target.{self.target.name}"
        same = next((one for one in found if one["metadata"]["uid"] == self.pod["metadata"]["uid"]), None)
        if same is None:
            raise Replaced(Successor.POD, f"{where}: its pod {name} is gone")
        if not pods.living([same]):
            reason = str(same["status"].get("reason", ""))
            raise Replaced(Successor.POD, f"{where}: its pod {name} has ended ({reason or 'no reason'})", reason=reason)
        if pods.is_going(same):
            raise Replaced(Successor.POD, f"{where}: somebody has deleted its pod {name}", reason="deleted")
        if pods.instance(same) != self.target.instance:
            reason, status = pods.ended(same)
            last = pods.log(cluster, same, previous=True).splitlines()[-15:]
            message = f"{where}: the container of {name} died under load and was restarted ({reason or 'no reason'})"
            raise Replaced(Successor.CONTAINER, message, last, reason=reason, exit_status=status)


class InCluster:
    """The load generator's pod and the cluster's Prometheus, by port-forwards that come back. A context manager."""

    settle_s = 6.5  # a scrape every five seconds

    def __init__(self, cluster: Cluster, folder: RunFolder) -> None:
        self._cluster, self._folder = cluster, folder
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> InCluster:
        forward = self._resources.enter_context(load_generator.forwarded(self._cluster))
        self.agent = AgentClient(forward.address(load_generator.PORT), self._folder.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def collect(self, say: Callable[[str], None]) -> int:
        """Bring home what was measured while nobody was connected; returns how many blocks. What was measured on a
        server that has been replaced since is put aside: nobody saw when that was. Raises `Problem`."""
        brought: list[str] = []
        count = self.agent.collect(say, brought.append)
        found = pods.of_servers(self._cluster) if brought else []
        for block in brought:
            path = self._folder.path / "generator" / block / "plan.json"
            if not path.exists():
                continue
            done = phases.load(path)
            target = done.target
            pod = pods.of(deployment_of(registry.engine(target.engine)).name, found)
            if target.instance and (pod is None or pods.is_going(pod) or pods.instance(pod) != target.instance):
                self._folder.put_aside(done.phases)
                trials = [one.trial if isinstance(one, phases.SearchPhase) else one for one in done.phases]
                start = next((one.repetition for one in trials if not isinstance(one, phases.WarmUpPhase)), 0)
                self._folder.note(
                    ServerReplaced(
                        at=round(time.time(), 3),
                        target=target.name,
                        engine=target.engine,
                        what=Successor.POD,
                        start=start,
                    )
                )
                say(f"{block}: the server was replaced meanwhile; what was measured on it is kept in replaced/")
        return count

    def environment(self, cores: tuple[int, ...]) -> Environment:  # noqa: ARG002 - as the protocol has it
        """The generator's pod; see `LoadOrigin`."""
        found = msgspec.structs.replace(self.agent.environment(), cluster=self._cluster.context)
        return msgspec.structs.replace(found, load_generator=cluster_nodes.of_load_generator(self._cluster))

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
        workers = self._cluster.find("deployment", load_generator.WORKERS)
        there = workers["spec"].get("replicas", 1) if workers else 0
        generator = replace(job.generator, remote_workers=there, processes=1)
        self.agent.run_phases(msgspec.structs.replace(job, generator=generator), on_event=on_event, check=check)
