"""Which engines run in containers, and which of them takes another's place. Imports the standard library only."""

from __future__ import annotations

from models.problem import Problem
from serving.engines import registry
from serving.engines.container import Container
from serving.engines.engine import Engine


def engines() -> tuple[Engine, ...]:
    """All that have an image."""
    return tuple(one for one in registry.all() if one.container)


def container_of(engine: Engine) -> Container:
    """An engine's container; raises `Problem` where it has none."""
    if engine.container is None:
        raise Problem(f'{engine.title} has no container image: use runtime = "process" (leave RUNTIME out)')
    return engine.container


def named(name: str) -> Container:
    """The container of the engine with this id; raises `Problem` that names those that have one."""
    engine = registry.find(name)
    if engine is None or engine.container is None:
        raise Problem(f"{name or 'no engine'}: use one of {', '.join(one.id for one in engines())}")
    return engine.container


def in_place_of(engine: Engine, *, embedded: bool) -> Engine:
    """What runs where this engine is asked for: ``embedded``, what stands in for it, if anything does."""
    return (registry.stand_in(engine) if embedded else None) or engine


def by_target(*, embedded: bool) -> dict[str, Engine]:
    """What a stack runs when no experiment says it: a server for each production engine, by the name of its target,
    but for those that have to be named."""
    production = (one for one in engines() if not one.stands_in_for and not container_of(one).optional)
    return {one.default_target: in_place_of(one, embedded=embedded) for one in production}
