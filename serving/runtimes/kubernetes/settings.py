"""What a deployment was made from: kept in the cluster, so that a roll-out from another machine goes on from there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from models.problem import Problem
from serving.engines.engine import Engine
from serving.profile import ServingProfile
from serving.runtimes.kubernetes import servers
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster, Object

K8S = Path(__file__).resolve().parents[3] / "k8s"
NAME = "tandem-deployment"
EXCLUSIVE = ("loadtest", "autoscaling")  # one fixes the replicas, the other changes them


@dataclass(frozen=True)
class Settings:
    """Everything that decides what is applied.

    overlay, components  folders under k8s/overlays and k8s/components
    registry             prefix of our images, such as registry.example.com/team; empty: images are on the nodes
    model, version       the bundle
    input_shape          (H, W, C) of one image, for the probes; classes: probabilities in an answer
    profile              the servers' tuning; its device follows from overlay and components (see `serving_profile`)
    node_type            value of the label node.kubernetes.io/instance-type that servers must run on; empty: any
    embedded             the embedded server instead of TensorFlow Serving
    in_place             the Deployments whose pods are replaced one by one: no node has room for one more beside them
    storage_class        of the metrics' disk; empty: the cluster's default
    kubelet_root         the kubelet's folder on GPU nodes; empty: where Kubernetes has it
    dataset, bundle      the bundle's data set and digest (`Bundle.digest`); empty: not known
    """

    overlay: str
    components: tuple[str, ...]
    registry: str
    model: str
    version: int
    input_shape: tuple[int, int, int]
    classes: int
    profile: ServingProfile
    node_type: str = ""
    embedded: bool = False
    in_place: tuple[str, ...] = ()
    storage_class: str = ""
    kubelet_root: str = ""
    dataset: str = ""
    bundle: str = ""

    def __post_init__(self) -> None:
        _known("overlay", "OVERLAY", self.overlay, folders(K8S / "overlays"))
        for component in self.components:
            _known("component", "COMPONENTS", component, folders(K8S / "components"))
        if set(EXCLUSIVE) <= set(self.components):
            raise Problem(
                "components loadtest and autoscaling: one fixes the replicas, the other changes them; leave one out"
            )

    def with_version(self, version: int) -> Settings:
        """The same deployment of another model version, of whose bundle nothing more is known."""
        return replace(self, version=version, dataset="", bundle="")

    def serves_as(self, other: Settings) -> bool:
        """Whether both are of one model in one precision, so that a roll-out can bring either in place of the other."""
        precisions = {one.profile.precision.exported for one in (self, other)}
        return self.model == other.model and len(precisions) == 1

    @property
    def servers(self) -> dict[str, Engine]:
        """The engines that it deploys, by the names of their targets."""
        return servers.by_target(embedded=self.embedded, components=self.components)

    @property
    def deployments(self) -> tuple[str, ...]:
        """The names of its servers' Deployments."""
        return tuple(servers.deployment_of(one).name for one in self.servers.values())

    @property
    def all_servers(self) -> str:
        """Its servers together, in words."""
        return "both servers" if len(self.servers) == 2 else f"all {len(self.servers)} servers"

    @property
    def layers(self) -> tuple[str, ...]:
        """The components in the order in which they are applied: those that bring an engine first, and behind another
        one what an engine's own folder has under the same name."""
        optional = (servers.deployment_of(one).component for one in servers.optional())
        engines = [one for one in optional if one in self.components]
        if not engines:
            return self.components
        others = [one for one in self.components if one not in engines]
        if self.overlay == "gpu":
            others.insert(0, "gpu")  # once more: the overlay had it before the engines came in
        found = [*engines]
        for name in others:
            found += [name, *(f"{engine}/{name}" for engine in engines)]
        there = folders(K8S / "components")
        return tuple(dict.fromkeys(one for one in found if one in there))

    def runs(self, engine: Engine) -> Engine:
        """What it deploys where ``engine`` is asked for: that one, or what stands in for it. Raises `Problem`."""
        deployed = list(self.servers.values())
        found = next((one for one in deployed if engine.id in (one.id, one.stands_in_for)), None)
        if found is None:
            there = ", ".join(one.id for one in deployed)
            raise Problem(f"{engine.id} is not deployed, but {there}: make deploy, or name another engine")
        return found

    @property
    def serving_profile(self) -> ServingProfile:
        """The tuning that its servers are given."""
        return replace(self.profile, device="gpu" if self.gpu else "cpu")

    @property
    def gpu(self) -> bool:
        """Whether the servers compute on a GPU."""
        return self.overlay == "gpu" or "gpu" in self.components


def folders(parent: Path) -> list[str]:
    """The Kustomize folders below ``parent``."""
    return sorted(path.parent.relative_to(parent).as_posix() for path in parent.glob("**/kustomization.yaml"))


def _known(what: str, variable: str, value: str, known: Iterable[str]) -> None:
    if value not in (names := list(known)):
        raise Problem(f"{variable}={value}: no such {what}; use {', '.join(names)}")


@dataclass(frozen=True)
class Record:
    """What the cluster remembers: the settings in force, the model version before, and everything applied."""

    settings: Settings
    previous_version: int | None
    inventory: tuple[tuple[str, str, str], ...]  # (kind, namespace or "", name)

    def to_object(self) -> Object:
        """The ConfigMap that holds it."""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/part-of": "tandem"}},
            "data": {
                "settings": json.dumps(asdict(self.settings), indent=1),
                "previous-version": str(self.previous_version or ""),
                "inventory": "\n".join("/".join(one) for one in self.inventory),
            },
        }

    @classmethod
    def load(cls, cluster: Cluster) -> Record | None:
        """What this cluster remembers; None where nothing is deployed. Raises `Problem`."""
        found = cluster.find("configmap", NAME)
        if found is None:
            return None
        try:
            data = found["data"]
            values = json.loads(data["settings"])
            tuples = {key: tuple(values[key]) for key in ("components", "input_shape")}
            tuples["in_place"] = tuple(values.get("in_place", ()))
            inventory = tuple(_entry(line) for line in data["inventory"].splitlines())
            previous = int(data["previous-version"]) if data["previous-version"] else None
            profile = ServingProfile.from_dict(values["profile"])
            return cls(Settings(**{**values, **tuples, "profile": profile}), previous, inventory)
        except (KeyError, TypeError, ValueError) as error:
            raise Problem(
                f"ConfigMap {NAMESPACE}/{NAME}: not written by this program ({error!r}); make undeploy, then deploy"
            ) from None


def _entry(line: str) -> tuple[str, str, str]:
    kind, namespace, name = line.split("/")
    return kind, namespace, name


def identity(one: Object) -> tuple[str, str, str]:
    """An object's entry in the inventory."""
    return one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]
