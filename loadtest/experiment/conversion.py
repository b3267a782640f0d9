"""Plain values of a TOML table as the fields of a settings class; what does not fit is a `Problem` that starts with the
dotted key at fault."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from loadtest.experiment.limits import nearest
from models.problem import Problem

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number without a unit (the key's suffix names it)",
    str: "text",
}


def arguments(kind: type, values: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """The values with the types of ``kind``'s fields; ``kind`` is a dataclass, whose fields may be dataclasses, too.

    A field whose type is annotated with `msgspec.Meta` is described by that where a value does not fit.
    """
    hints = get_type_hints(kind, include_extras=True)
    known = [item.name for item in dataclasses.fields(kind)]
    found = {}
    for key, value in values.items():
        shown = key if re.fullmatch(r"[\w-]+", key) else repr(key)
        dotted = f"{section}.{shown}" if section else shown
        if key not in known:
            raise Problem(f"{dotted}: unknown key; {nearest(key, known, otherwise='known keys:')}")
        found[key] = _converted(dotted, value, hints[key])
    return found


def _converted(dotted: str, value: Any, wanted: Any) -> Any:
    described, (kind, *metas) = "", get_args(wanted) if get_origin(wanted) is Annotated else (wanted,)
    for meta in metas:
        described = meta.description or ""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise Problem(f"{dotted}: use a table, [{dotted}]")
        return kind(**arguments(kind, value, dotted))
    if get_origin(kind) in (dict, Mapping):
        if not isinstance(value, dict):
            raise Problem(f"{dotted} = {value!r}: use {described or 'a table'}")
        return {key: _converted(f"{dotted}.{key}", item, get_args(kind)[1]) for key, item in value.items()}
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        items = f" of {_WORDS[get_args(kind)[0]]} each" if isinstance(value, list) and get_args(kind) else ""
        raise Problem(f"{dotted} = {value!r}: use {_words(kind) or f'a list{items}'}") from error


def _words(kind: Any) -> str:
    """What a value may be; empty where that is a list."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return " or ".join(filter(None, map(_words, get_args(kind))))
    if origin is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return " or ".join(repr(one.value) for one in kind)
    return _WORDS.get(kind, "")
