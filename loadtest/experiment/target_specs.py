"""The targets of an experiment: what each is called, which engine serves it, and where its tuning is its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtest.experiment import conversion, endpoint_specs
from loadtest.experiment.endpoint_specs import EndpointSpec
from loadtest.experiment.limits import nearest
from models.problem import Problem
from serving.engines import registry
from serving.profile import ServingProfile

Override = int | float | str


@dataclass(frozen=True)
class TargetSpec:
    """One target: its name in this experiment, its engine's id, and either what of the shared profile is different for
    it, or where it is up already (`endpoint`).

    Raises `Problem`, starting with "target.NAME", for a name or an engine that cannot be.
    """

    name: str
    engine: str
    profile: Mapping[str, Override] = field(default_factory=dict)
    endpoint: EndpointSpec | None = None

    def __post_init__(self) -> None:
        _check_name(self.name, f"target.{self.name}")
        if registry.find(self.engine) is None:
            raise Problem(f"target.{self.name}.engine = {self.engine!r}: {nearest(self.engine, registry.ids())}")
        conversion.arguments(ServingProfile, self.profile, f"target.{self.name}.profile")
        if self.endpoint and self.profile:
            raise Problem(
                f"target.{self.name}.profile: whoever keeps the server up tunes it; leave it out, or the address"
            )
        if self.endpoint and self.endpoint.metrics and registry.engine(self.engine).dialect is None:
            known = ", ".join(one.id for one in registry.all() if one.dialect and not one.stands_in_for)
            raise Problem(
                f"target.{self.name}.metrics: what a server of engine {self.engine} calls its metrics is not known; "
                f"leave it out, or name the engine itself: {known}"
            )
        if self.endpoint is None and registry.engine(self.engine).endpoint_only:
            raise Problem(f"target.{self.name}: Tandem starts no server of engine {self.engine}: give it a url")

    @property
    def is_shorthand(self) -> bool:
        """Whether its name says all."""
        return registry.engine(self.engine).default_target == self.name and not self.profile and not self.endpoint

    def tuned(self, shared: ServingProfile) -> ServingProfile:
        """The shared profile with what is different for this target. Raises `Problem` for an impossible value."""
        try:
            return ServingProfile.from_dict({**shared.to_dict(), **self.profile})
        except Problem as problem:
            raise Problem(f"target.{self.name}.{problem}") from problem


def by_default() -> tuple[TargetSpec, ...]:
    """The targets of an experiment that names none."""
    return tuple(TargetSpec(name, registry.of_target(name).id) for name in registry.DEFAULT_TARGETS)


def parse(names: Any, tables: Any, *, chosen: bool = False) -> tuple[TargetSpec, ...]:
    """The targets of a file, from its list of ``names`` (None: it has none) and its tables [[target]].

    They come in the order of the names, each defined by its table or, as shorthand, by its name alone; without names,
    in that of the tables. ``chosen``: the names are somebody's choice among those that the file defines.

    Raises `Problem` for a name that says nothing, and for a table that is not named or that comes twice.
    """
    defined = {}
    for table in _tables(tables):
        if table.name in defined:
            raise Problem(f"target.{table.name}: two tables have this name; use another name")
        if names is not None and not chosen and table.name not in names:
            raise Problem(f"target.{table.name}: a table, but targets does not name it; add it there, or delete this")
        defined[table.name] = table
    if names is None:
        return tuple(defined.values()) or by_default()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Problem(f"targets = {names!r}: use a list of names, such as {list(registry.DEFAULT_TARGETS)}")
    return tuple(defined.get(name) or _shorthand(name, list(defined)) for name in names)


def _tables(tables: Any) -> Iterator[TargetSpec]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise Problem("target: use tables, [[target]], each with a name, an engine and what is different of [profile]")
    for number, table in enumerate(tables, start=1):
        where = f"target.{number}"
        if "name" not in table:
            raise Problem(f"{where}: give it a name")
        _check_name(table["name"], where)
        where = f"target.{table['name']}"
        if "engine" not in table:
            raise Problem(f"{where}: name its engine, one of {', '.join(registry.ids())}")
        own = {key: value for key, value in table.items() if key not in endpoint_specs.KEYS}
        known = ["name", "engine", "profile", *endpoint_specs.KEYS]
        for key in own:
            if key not in known:
                raise Problem(f"{where}.{key}: unknown key; {nearest(key, known, otherwise='known keys:')}")
        given = conversion.arguments(TargetSpec, {**own, "profile": {}}, where)
        profile = table.get("profile", {})
        if not isinstance(profile, dict):
            raise Problem(f"{where}.profile = {profile!r}: use a table of what is different, {{max_batch_size = 1}}")
        yield TargetSpec(
            **{**given, "profile": conversion.arguments(ServingProfile, profile, f"{where}.profile")},
            endpoint=endpoint_specs.parse({key: table[key] for key in table if key in endpoint_specs.KEYS}, where),
        )


def values(targets: Sequence[TargetSpec]) -> dict[str, object]:
    """The inverse of `parse`, as keys of a TOML file: the list of names, and a table for each that needs one."""
    tables = [
        {
            "name": one.name,
            "engine": one.engine,
            **({"profile": dict(one.profile)} if one.profile else {}),
            **(one.endpoint.values() if one.endpoint else {}),
        }
        for one in targets
        if not one.is_shorthand
    ]
    return {"targets": [one.name for one in targets], **({"target": tables} if tables else {})}


def _check_name(name: Any, where: str) -> None:
    """It stands in file names, metric labels and command lines."""
    if not isinstance(name, str) or len(name) > 40 or not re.fullmatch(r"[A-Za-z0-9]+([._-][A-Za-z0-9]+)*", name):
        raise Problem(f"{where}.name = {name!r}: use 1 to 40 letters and digits, with '.', '_' or '-' between")


def _shorthand(name: str, defined: Sequence[str]) -> TargetSpec:
    known = {engine.default_target: engine.id for engine in registry.all()}
    if name not in known:
        hint = nearest(name, [*defined, *known])
        raise Problem(f"targets = {name!r}: {hint}; or define it: [[target]] name = {name!r}, engine = …")
    return TargetSpec(name, known[name])
