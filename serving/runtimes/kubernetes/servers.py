"""Which engines a deployment runs, and how they are called in the cluster."""

from __future__ import annotations

from models.problem import Problem
from serving.engines.container import Deployment
from serving.engines.engine import Engine
from serving.runtimes.containers import servers


def deployment_of(engine: Engine) -> Deployment:
    """An engine's Deployment; raises `Problem` where it has none."""
    if engine.deployment is None:
        raise Problem(f'{engine.title} has no Deployment in k8s/: use runtime = "process" (leave RUNTIME out)')
    return engine.deployment


def by_target(*, embedded: bool) -> dict[str, Engine]:
    """The engines of a deployment, by the names of their targets; ``embedded``: with what stands in for one."""
    return {name: one for name, one in servers.by_target(embedded=embedded).items() if one.deployment}


def deployments() -> tuple[str, ...]:
    """The names of all servers' Deployments: those of the production engines, whose stand-ins run in them."""
    return tuple(deployment_of(one).name for one in by_target(embedded=False).values())
