"""Which engines a deployment runs, and how they are called in the cluster."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from models.problem import Problem
from serving.engines import registry
from serving.engines.container import Deployment
from serving.engines.engine import Engine
from serving.runtimes.containers import servers


def deployment_of(engine: Engine) -> Deployment:
    """An engine's Deployment; raises `Problem` where it has none."""
    if engine.deployment is None:
        raise Problem(f'{engine.title} has no Deployment in k8s/: use runtime = "process" (leave RUNTIME out)')
    return engine.deployment


def by_target(*, embedded: bool, components: Collection[str] = ()) -> dict[str, Engine]:
    """The engines of a deployment with these ``components``, by the names of their targets; ``embedded``: with what
    stands in for one."""
    return {
        one.default_target: servers.in_place_of(one, embedded=embedded)
        for one in _production()
        if deployment_of(one).component in ("", *components)
    }


def known() -> tuple[str, ...]:
    """The names of all servers' Deployments: those of the production engines, whose stand-ins run in them."""
    return tuple(deployment_of(one).name for one in _production())


def optional() -> tuple[Engine, ...]:
    """The engines that run only where a component brings them."""
    return tuple(one for one in _production() if deployment_of(one).component)


def named(ids: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """What the engines of these ids, which a user wants deployed, take: components, and whether a stand-in is among
    them. Raises `Problem` where one has no Deployment, or where one that is in every overlay is missing."""
    engines = [registry.engine(id) for id in ids]
    components = tuple(filter(None, (deployment_of(one).component for one in engines)))
    chosen = {one.stands_in_for or one.id for one in engines}
    missing = [one.id for one in _production() if not deployment_of(one).component and one.id not in chosen]
    if missing:
        always = ", ".join(one.id for one in by_target(embedded=False).values())
        raise Problem(f"ENGINES={','.join(ids)}: {always} are part of every deployment; name them, too")
    return components, any(one.stands_in_for for one in engines)


def _production() -> Iterable[Engine]:
    return (one for one in servers.engines() if one.deployment and not one.stands_in_for)
