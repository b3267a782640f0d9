"""Checks of an experiment's values: each raises `Problem`, starting with the dotted key at fault."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from models.problem import Problem


def between(section: str, values: object, **limits: tuple[float, float, str]) -> None:
    """Each named attribute of `values` must be from low to high; limits: key to (low, high, unit)."""
    for key, (low, high, unit) in limits.items():
        value = getattr(values, key)
        if not low <= value <= high:
            raise Problem(f"{section}.{key} = {value}: use {unit} from {low:g} to {high:g}")


def one_of(key: str, value: str, known: Iterable[str]) -> None:
    """A value must be one of those known."""
    if value not in known:
        raise Problem(f"{key} = {value!r}: use {', '.join(known)}")


def nearest(word: str, known: Sequence[str], otherwise: str = "use") -> str:
    """A hint at what may have been meant: the nearest of the known words, else all of them, after `otherwise`."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"{otherwise} {', '.join(known)}"
