"""JSON Pointer: where in a document a value is, such as "/outputs/0/data". https://www.rfc-editor.org/rfc/rfc6901

Fifteen lines rather than a package: those on PyPI bring relative pointers, patches and command lines.
"""

from __future__ import annotations

import re
from typing import Any

_INDEX = re.compile(r"0|[1-9][0-9]*")


def parse(pointer: str) -> tuple[str, ...]:
    """The names and places that lead to the value; none: the whole document. ValueError where it is no pointer."""
    if pointer and not pointer.startswith("/"):
        raise ValueError(f"{pointer!r} is no JSON Pointer: start it with '/', such as '/outputs/0/data'")
    if re.search("~(?![01])", pointer):
        raise ValueError(f"{pointer!r} is no JSON Pointer: write '~' as '~0', and '/' in a name as '~1'")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def find(document: Any, pointer: str) -> Any:
    """The value; ValueError that says how far the document goes where it is not there."""
    value, gone = document, ""
    for part in parse(pointer):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and _INDEX.fullmatch(part) and int(part) < len(value):
            value = value[int(part)]
        else:
            raise ValueError(f"{pointer}: {_there(value)} at {gone or 'the top'}, no {part!r}")
        gone += f"/{part}"
    return value


def _there(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object of {', '.join(map(repr, list(value)[:10])) or 'nothing'}"
    return f"a list of {len(value)}" if isinstance(value, list) else f"{str(value)[:50]!r}"
