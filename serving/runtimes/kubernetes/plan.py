"""Renders what will be applied: an overlay, its components, the images' tags and the servers' configuration."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from serving.runtimes.containers import images as containers
from serving.runtimes.kubernetes import images, kubectl, server_config
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Object
from serving.runtimes.kubernetes.servers import deployment_of, known
from serving.runtimes.kubernetes.settings import K8S, Settings

VERSION_ANNOTATION = "tandem.dev/model-version"


def render(settings: Settings, folder: Path) -> list[Object]:
    """The objects to apply, in an order in which they can be created.

    ``folder`` receives the Kustomize folder that they are made of, to read and to build by hand. Raises `Problem`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write_kustomization(settings, folder, {})
    names = server_config.write(
        settings.servers.values(),
        settings.serving_profile,
        folder,
        model=settings.model,
        version=settings.version,
        input_shape=settings.input_shape,
        classes=settings.classes,
        cores=cores(kubectl.build(folder)),
    )
    _write_kustomization(settings, folder, names)
    return sorted(kubectl.build(folder), key=lambda one: one["kind"] != "Namespace")


def image(settings: Settings, name: str) -> str:
    """The reference of one of our images, by the name that the manifests have: as it is built and pushed."""
    of_servers = {deployment_of(one).name: containers.of(one) for one in settings.servers.values()}
    return images.how(settings).tag(of_servers.get(name, containers.LOADTEST), settings.version)


def cores(objects: Iterable[Object]) -> int:
    """The CPUs that a server's configuration is rendered for: those that one replica of each may use."""
    return max(1, math.floor(cpu_limit(objects)))


def cpu_limit(objects: Iterable[Object]) -> float:
    """The CPUs that one replica of a server may use."""
    return min(quantity(container(one)["resources"]["limits"]["cpu"]) for one in servers(objects))


def servers(objects: Iterable[Object]) -> list[Object]:
    """The servers' Deployments."""
    names = known()
    return [one for one in objects if one["kind"] == "Deployment" and one["metadata"]["name"] in names]


def replicas(objects: Sequence[Object]) -> dict[str, int]:
    """The pods of each Deployment while nothing rolls out: what an autoscaler begins with, where one sets them."""
    minimum = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"]["minReplicas"]
        for one in objects
        if one["kind"] == "HorizontalPodAutoscaler"
    }
    return {
        one["metadata"]["name"]: int(one["spec"].get("replicas", minimum.get(one["metadata"]["name"], 1)))
        for one in objects
        if one["kind"] == "Deployment"
    }


def demand(objects: Sequence[Object]) -> dict[str, float]:
    """What everything asks for while nothing rolls out: CPUs, bytes of memory and GPUs by resource name."""
    total: dict[str, float] = {}
    counts = replicas(objects)
    for one in objects:
        if one["kind"] != "Deployment":
            continue
        for each in one["spec"]["template"]["spec"]["containers"]:
            for resource, text in each["resources"]["requests"].items():
                total[resource] = total.get(resource, 0) + counts[one["metadata"]["name"]] * quantity(text)
    return total


def container(deployment: Object) -> Object:
    """A server's container."""
    found: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return found


def quantity(text: str) -> float:
    """A Kubernetes quantity ("500m", "4Gi") as a number (of CPUs, of bytes)."""
    scale = {
        "": 1,
        "m": 1e-3,
        "k": 1e3,
        "M": 1e6,
        "G": 1e9,
        "T": 1e12,
        "Ki": 2**10,
        "Mi": 2**20,
        "Gi": 2**30,
        "Ti": 2**40,
    }
    found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)([A-Za-z]{0,2})", str(text))
    if found is None or found[2] not in scale:
        raise ValueError(f"{text!r} is no quantity")
    return float(found[1]) * scale[found[2]]


def _write_kustomization(settings: Settings, folder: Path, names: dict[str, list[str]]) -> None:
    k8s = os.path.relpath(K8S, folder.resolve())
    brought = {deployment_of(one).name for one in settings.servers.values() if deployment_of(one).component}
    for name in brought & names.keys():
        _write_component(folder / name, name, names[name])
    content: Object = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{k8s}/overlays/{settings.overlay}"],
        "components": [
            *(f"{k8s}/components/{component}" for component in settings.layers),
            *sorted(brought & names.keys()),
        ],
        "images": [_image(settings, name) for name in (*settings.deployments, containers.LOADTEST.name)],
        "configMapGenerator": [
            _config_map(name, [f"{name}/{file}" for file in files])
            for name, files in names.items()
            if name not in brought
        ],
        "patches": [_server_patch(settings), *_fitting_patches(settings)],
    }
    _write(folder, content)


def _write_component(folder: Path, name: str, files: list[str]) -> None:
    """The configuration of a server that a component brings: Kustomize makes a folder's own before those come."""
    component = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component"}
    _write(folder, {**component, "configMapGenerator": [_config_map(name, files)]})


def _write(folder: Path, content: Object) -> None:
    text = "# Rendered by make deploy; changes here are lost.\n" + yaml.safe_dump(content, sort_keys=False, width=120)
    (folder / "kustomization.yaml").write_text(text)


def _config_map(name: str, files: list[str]) -> Object:
    return {"name": f"{name}-config", "namespace": NAMESPACE, "behavior": "replace", "files": files}


def _image(settings: Settings, name: str) -> dict[str, str]:
    new_name, _, tag = image(settings, name).rpartition(":")
    # The key is the name as base/kustomization.yaml leaves it.
    return {"name": f"tandem/{name}", "newName": new_name, "newTag": tag}


def _server_patch(settings: Settings) -> Object:
    operations: list[Object] = [
        # JSON pointers write "/" as "~1".
        {
            "op": "add",
            "path": f"/spec/template/metadata/annotations/{VERSION_ANNOTATION.replace('/', '~1')}",
            "value": str(settings.version),
        }
    ]
    if settings.node_type:
        terms = [
            {
                "matchExpressions": [
                    {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": [settings.node_type]}
                ]
            }
        ]
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        operations.append({"op": "add", "path": "/spec/template/spec/affinity/nodeAffinity", "value": required})
    return {
        "target": {"kind": "Deployment", "labelSelector": "app.kubernetes.io/component=server"},
        "patch": yaml.safe_dump(operations, sort_keys=False),
    }


def _fitting_patches(settings: Settings) -> list[Object]:
    """What follows from the cluster: updates in place, the class of the disk, the kubelet's folder."""
    patches = []
    in_place = {"op": "replace", "path": "/spec/strategy/rollingUpdate", "value": {"maxUnavailable": 1, "maxSurge": 0}}
    for name in settings.in_place:
        patches.append({"target": {"kind": "Deployment", "name": name}, "patch": yaml.safe_dump([in_place])})
    if settings.storage_class:
        disk = {"op": "add", "path": "/spec/storageClassName", "value": settings.storage_class}
        patches.append({"target": {"kind": "PersistentVolumeClaim"}, "patch": yaml.safe_dump([disk])})
    if settings.kubelet_root:
        folder = {"name": "pod-resources", "hostPath": {"path": f"{settings.kubelet_root.rstrip('/')}/pod-resources"}}
        pods = {"spec": {"template": {"spec": {"volumes": [folder]}}}}
        exporter = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "dcgm-exporter"}, **pods}
        patches.append(
            {
                "target": {"kind": "DaemonSet", "name": "dcgm-exporter"},
                "patch": yaml.safe_dump(exporter, sort_keys=False),
            }
        )
    return patches
