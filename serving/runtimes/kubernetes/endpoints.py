"""The deployed servers as clients see them: through a port-forward from here, and by name inside the cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from models.problem import Problem
from serving.engines.tensorflow_serving import config as tensorflow_serving
from serving.engines.torchserve import config as torchserve
from serving.profile import ServingProfile
from serving.runtimes.kubernetes import server_config
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster
from serving.runtimes.kubernetes.port_forward import PortForward
from serving.runtimes.kubernetes.settings import Settings
from serving.target import Target


def inside(cluster: Cluster, settings: Settings, stack: str) -> Target:
    """The target of ``stack`` as the cluster's own pods reach it: its headless Service's name. Raises `Problem`."""
    name = server_config.SERVERS[stack]
    deployment = cluster.find("deployment", name)
    if deployment is None:
        raise Problem(f"{name} is not deployed on {cluster.context}: make deploy")
    ports = server_config.ports(stack)
    host = f"{name}.{NAMESPACE}.svc"
    path = torchserve.METRICS_PATH if stack == "pytorch" else tensorflow_serving.METRICS_PATH
    profile = ServingProfile.from_dict(settings.profile)
    engine = "torchserve" if stack == "pytorch" else "tensorflow-serving"
    if stack == "tensorflow" and settings.embedded:
        engine = "embedded-tfserving"
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    return Target(
        name=stack,
        engine=engine,
        engine_version=f"image {image}",
        runtime="kubernetes",
        model=settings.model,
        version=settings.version,
        input_shape=settings.input_shape,
        classes=settings.classes,
        grpc=f"{host}:{ports.grpc}",
        rest=f"{host}:{ports.rest}",
        metrics=f"http://{host}:{ports.metrics}{path}",
        settings=profile.to_dict(),
    )


@contextlib.contextmanager
def forwarded(cluster: Cluster, target: Target) -> Iterator[tuple[Target, PortForward]]:
    """``target`` (as `inside` gives it) on local ports for the length of a ``with`` block. Raises `Problem`."""
    name = server_config.SERVERS[target.name]
    ports = server_config.ports(target.name)
    with PortForward(cluster, f"deployment/{name}", (ports.grpc, ports.rest)) as forward:
        yield replace(target, grpc=forward.address(ports.grpc), rest=forward.address(ports.rest), metrics=None), forward
