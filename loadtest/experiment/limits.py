"""Checks of an experiment's values: each raises `Problem`, starting with the dotted key at fault."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from models.problem import Problem


def between(section: str, values: Any, **limits: tuple[float, float, str]) -> None:
    """Each named attribute of `values` must be from low to high; limits: key to (low, high, unit)."""
    for key, (low, high, unit) in limits.items():
        value = getattr(values, key)
        if not low <= value <= high:
            raise Problem(f"{section}.{key} = {value}: use {unit} from {low:g} to {high:g}")


def one_of(key: str, value: str, known: Iterable[str]) -> None:
    """A value must be one of those known."""
    if value not in known:
        raise Problem(f"{key} = {value!r}: use {', '.join(known)}")
