"""Which engines there are. Nothing else names them: whoever needs one asks here, by its id.

Further ones come from the environment variable TANDEM_ENGINES: names of modules, separated by commas, each with an
attribute `ENGINE`. A variable, so that the processes that Tandem starts see them, too.
"""

from __future__ import annotations

import importlib
import os
from functools import cache

from models.problem import Problem
from serving.engines.engine import Engine

# Imported one by one, when they are asked for: the containers' entrypoint needs a single one.
_BUILT_IN = {
    "torchserve": "serving.engines.torchserve",
    "tensorflow-serving": "serving.engines.tensorflow_serving",
    "embedded-tfserving": "serving.engines.embedded_tfserving",
    "triton": "serving.engines.triton",
    "triton-torchscript": "serving.engines.triton.torchscript",
    "open-inference": "serving.engines.open_inference",
    "http": "serving.engines.http",
}
VARIABLE = "TANDEM_ENGINES"
DEFAULT_TARGETS = ("pytorch", "tensorflow")
"""What is compared where the user names no targets, as engines' default targets."""


def engine(id: str) -> Engine:
    """The engine of this id; raises `Problem` that names the known ones."""
    found = find(id)
    if found is None:
        raise Problem(f"engine {id!r}: use one of {', '.join(ids())}")
    return found


def find(id: str) -> Engine | None:
    """The engine of this id, or None where there is none."""
    if id in _BUILT_IN:
        return _load(_BUILT_IN[id])
    return _further(os.environ.get(VARIABLE, "")).get(id)


def ids() -> tuple[str, ...]:
    """The ids of all engines, Tandem's own first."""
    return (*_BUILT_IN, *_further(os.environ.get(VARIABLE, "")))


def all() -> tuple[Engine, ...]:
    """All engines, Tandem's own first."""
    return tuple(engine(id) for id in ids())


def startable() -> tuple[Engine, ...]:
    """Those whose servers Tandem starts."""
    return tuple(one for one in all() if not one.endpoint_only)


def of_target(name: str) -> Engine:
    """The engine whose default target has this name; raises `Problem` that names the known ones."""
    engines = all()
    found = next((one for one in engines if one.default_target == name), None)
    if found is None:
        raise Problem(f"target {name!r}: use one of {', '.join(one.default_target for one in startable())}")
    return found


def stand_in(engine: Engine) -> Engine | None:
    """The engine that replaces this one where it is not at hand, or None."""
    return next((one for one in all() if one.stands_in_for == engine.id), None)


@cache
def _further(names: str) -> dict[str, Engine]:
    found: dict[str, Engine] = {}
    for name in filter(None, (one.strip() for one in names.split(","))):
        one = _load(name)
        if one.id in _BUILT_IN or one.id in found:
            raise Problem(
                f"{VARIABLE}: {name} calls its engine {one.id!r}, as another one is called: choose another id"
            )
        found[one.id] = one
    return found


@cache
def _load(module: str) -> Engine:
    try:
        found: Engine = importlib.import_module(module).ENGINE
    except (ImportError, AttributeError) as error:
        raise Problem(f"engine module {module}: {error}; is it on the PYTHONPATH, with an attribute ENGINE?") from None
    return found
