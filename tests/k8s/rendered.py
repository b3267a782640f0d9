"""Every overlay with every sensible combination of components, built by the real Kustomize once a session."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from serving.profile import ServingProfile
from serving.runtimes.kubernetes.kubectl import program
from serving.runtimes.kubernetes.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
Object = dict[str, Any]

OPTIONAL_ENGINES = {
    "local": ((), ("loadtest",)),
    "cpu": (
        (),
        ("loadtest", "ingress"),
        ("autoscaling", "autoscaling/prometheus-adapter", "ingress", "prometheus-operator"),
    ),
    "gpu": ((), ("gpu/runtime-class", "loadtest"), ("autoscaling", "prometheus-operator")),
}
SCALING = ((), ("autoscaling",), ("autoscaling", "autoscaling/prometheus-adapter"), ("loadtest",))


class Combination(NamedTuple):
    """An overlay and the components added to it."""

    overlay: str
    components: tuple[str, ...]

    def __str__(self) -> str:
        return "+".join([self.overlay, *self.components])


def with_triton(overlay: str, *components: str) -> Combination:
    """The combination that `make deploy` makes of these components and an engine that is not in every overlay."""
    chosen = ("triton", *components)
    settings = Settings(overlay, chosen, "", "convnet", 1, (32, 32, 3), 10, ServingProfile())
    return Combination(overlay, settings.layers)


def _combinations() -> Iterator[Combination]:
    for overlay in ("local", "cpu", "gpu"):
        scalings = SCALING if overlay != "local" else ((), ("loadtest",))  # one node has nothing to scale to
        runtimes = ((), ("gpu/runtime-class",)) if overlay == "gpu" else ((),)
        for runtime, scaling, ingress, operator in itertools.product(
            runtimes, scalings, ((), ("ingress",)), ((), ("prometheus-operator",))
        ):
            yield Combination(overlay, (*runtime, *scaling, *ingress, *operator))
        yield Combination(overlay, ("pinned-images",))
        for components in OPTIONAL_ENGINES[overlay]:
            yield with_triton(overlay, *components)


COMBINATIONS = tuple(_combinations())


def kustomize(folder: Path) -> str:
    done = subprocess.run(
        [program(), "kustomize", str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{folder}: {done.stderr}"
    return done.stdout


def _build(combination: Combination) -> list[Object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        k8s = os.path.relpath(K8S, folder)
        content = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{k8s}/overlays/{combination.overlay}"],
            "components": [f"{k8s}/components/{component}" for component in combination.components],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
        return list(yaml.load_all(kustomize(folder), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


@functools.cache
def everything() -> dict[Combination, list[Object]]:
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return dict(zip(COMBINATIONS, pool.map(_build, COMBINATIONS), strict=True))


def find(objects: list[Object], kind: str, name: str | None = None) -> list[Object]:
    return [one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"])]


def the(objects: list[Object], kind: str, name: str) -> Object:
    (one,) = find(objects, kind, name)
    return one


def pod_specs(objects: list[Object]) -> dict[str, Object]:
    """Pod specs of everything that runs pods, by name."""
    kinds = ("Deployment", "DaemonSet", "StatefulSet", "Job")
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in objects if one["kind"] in kinds}
