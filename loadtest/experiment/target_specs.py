"""The targets of an experiment: what each is called, which engine serves it, and where its tuning is its own."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from models.problem import Problem
from serving.profile import ServingProfile

# What the experiment may call an engine's target without a table of its own.
SHORTHAND = {"pytorch": "torchserve", "tensorflow": "tensorflow-serving"}
ENGINES = (*SHORTHAND.values(), "embedded-tfserving")

Override = float | str


@dataclass(frozen=True)
class TargetSpec:
    """One target: its name in this experiment, its engine's id, and what of the shared profile is different for it.

    Raises `Problem`, starting with "target.NAME", for a name or an engine that cannot be.
    """

    name: str
    engine: str
    profile: Mapping[str, Override] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # It stands in file names, metric labels and command lines.
        if not re.fullmatch(r"[A-Za-z0-9]+([._-][A-Za-z0-9]+)*", self.name) or len(self.name) > 40:
            raise Problem(
                f"target.{self.name}.name = {self.name!r}: use 1 to 40 letters and digits, with '.', '_' or '-' between"
            )
        if self.engine not in ENGINES:
            raise Problem(f"target.{self.name}.engine = {self.engine!r}: {nearest(self.engine, ENGINES)}")
        known = [item.name for item in fields(ServingProfile)]
        for key in self.profile:
            if key not in known:
                raise Problem(f"target.{self.name}.profile.{key}: unknown key; {nearest(key, known)}")

    @property
    def is_shorthand(self) -> bool:
        """Whether its name says all."""
        return SHORTHAND.get(self.name) == self.engine and not self.profile

    @property
    def world(self) -> str:
        """The target that its engine runs by default."""  # until launching and timing a model take an engine
        return {engine: name for name, engine in SHORTHAND.items()}.get(self.engine, "tensorflow")

    def tuned(self, shared: ServingProfile) -> ServingProfile:
        """The shared profile with what is different for this target. Raises `Problem` for an impossible value."""
        overrides: dict[str, Any] = dict(self.profile)
        try:
            return replace(shared, **overrides)
        except Problem as problem:
            raise Problem(f"target.{self.name}.{problem}") from problem


def by_default() -> tuple[TargetSpec, ...]:
    """The targets of an experiment that names none."""
    return tuple(TargetSpec(name, engine) for name, engine in SHORTHAND.items())


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint at what may have been meant: the nearest of the known words, or all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"use {', '.join(known)}"


def parse(names: Sequence[str] | None, tables: Sequence[TargetSpec]) -> tuple[TargetSpec, ...]:
    """The targets in the order of their ``names``, each defined by its table or, as shorthand, by its name alone; all
    tables in their order where no names are given.

    Raises `Problem` for a name that says nothing, and for a table that is not named or that comes twice.
    """
    defined: dict[str, TargetSpec] = {}
    for table in tables:
        if table.name in defined:
            raise Problem(f"target.{table.name}: two tables have this name; use another name")
        defined[table.name] = table
    if names is None:
        return tuple(tables) or by_default()
    return tuple(defined.get(name) or _shorthand(name, list(defined)) for name in names)


def unnamed(names: Sequence[str], tables: Sequence[TargetSpec]) -> None:
    """Raise `Problem` where a table defines what the list of targets does not name."""
    for table in tables:
        if table.name not in names:
            raise Problem(f"target.{table.name}: a table, but targets does not name it; add it there, or delete this")


def values(targets: Sequence[TargetSpec]) -> dict[str, Any]:
    """The inverse of `parse`, as keys of a TOML file: the list of names, and a table for each that needs one."""
    tables = [
        {"name": one.name, "engine": one.engine, **({"profile": dict(one.profile)} if one.profile else {})}
        for one in targets
        if not one.is_shorthand
    ]
    return {"targets": [one.name for one in targets], **({"target": tables} if tables else {})}


def _shorthand(name: str, defined: Sequence[str]) -> TargetSpec:
    if name not in SHORTHAND:
        hint = nearest(name, [*defined, *SHORTHAND])
        raise Problem(f"targets = {name!r}: {hint}; or define it: [[target]] name = {name!r}, engine = …")
    return TargetSpec(name, SHORTHAND[name])
