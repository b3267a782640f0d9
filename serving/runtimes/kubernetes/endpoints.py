"""The deployed servers as clients see them: through a port-forward from here, and by name inside the cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from models.problem import Problem
from serving.engines import registry, variables
from serving.engines.engine import Engine
from serving.runtimes.containers.servers import container_of
from serving.runtimes.kubernetes import plan, server_config
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster, Object
from serving.runtimes.kubernetes.port_forward import PortForward
from serving.runtimes.kubernetes.servers import deployment_of
from serving.runtimes.kubernetes.settings import Settings
from serving.target import Target


def inside(cluster: Cluster, settings: Settings, name: str, engine: Engine) -> Target:
    """The server of ``engine`` as the cluster's own pods reach it, by its headless Service's name, as a target called
    ``name``. Raises `Problem`."""
    deployed = _deployed(cluster, settings)
    own = deployment_of(engine).name
    profile = settings.serving_profile
    # What was applied: the same profile, for the same number of CPUs.
    rendering = server_config.render(
        engine,
        profile,
        model=settings.model,
        version=settings.version,
        cores=plan.cores(deployed.values()),
        input_shape=settings.input_shape,
        classes=settings.classes,
    )
    ports = container_of(engine).ports
    host = f"{own}.{NAMESPACE}.svc"
    return Target(
        name=name,
        engine=engine.id,
        engine_version=f"image {plan.container(deployed[own])['image']}",
        runtime="kubernetes",
        model=settings.model,
        version=settings.version,
        input_shape=settings.input_shape,
        classes=settings.classes,
        grpc=f"{host}:{ports.grpc}",
        rest=f"{host}:{ports.rest}",
        metrics=f"http://{host}:{ports.metrics}{engine.metrics_path}",
        backend=rendering.backend,
        knobs=rendering.knobs,
        switches=variables.in_force(rendering.environment),
        max_batch_size=profile.max_batch_size,
        precision=profile.precision,
    )


def _deployed(cluster: Cluster, settings: Settings) -> dict[str, Object]:
    """The servers' Deployments as the cluster has them, by name. Raises `Problem` where one is missing."""
    found = {}
    for engine in settings.servers.values():
        name = deployment_of(engine).name
        deployment = cluster.find("deployment", name)
        if deployment is None:
            raise Problem(f"{name} is not deployed on {cluster.context}: make deploy")
        found[name] = deployment
    return found


@contextlib.contextmanager
def forwarded(cluster: Cluster, target: Target) -> Iterator[tuple[Target, PortForward]]:
    """``target`` (as `inside` gives it) on local ports for the length of a ``with`` block. Raises `Problem`."""
    engine = registry.engine(target.engine)
    ports = container_of(engine).ports
    with PortForward(cluster, f"deployment/{deployment_of(engine).name}", (ports.grpc, ports.rest)) as forward:
        yield replace(target, grpc=forward.address(ports.grpc), rest=forward.address(ports.rest), metrics=None), forward
