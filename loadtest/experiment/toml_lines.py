"""Where a key stands in a TOML text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tomlkit.container import Container
    from tomlkit.items import Item

_MARK = "\N{NULL}"  # in no valid TOML


def line_of(text: str, dotted: str) -> int:
    """The line of a dotted key in a valid TOML text; its table's, or 1, where it is not there.

    Of several tables under one key ([[target]]) the one is meant whose name, or else whose number, comes next:
    "target.unbatched.engine", "target.2.name".
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
    except TOMLKitError:
        return 1
    candidates = [(path, item) for path, item in _items(document) if f"{dotted}.".startswith(f"{path}.")]
    for _, item in sorted(candidates, key=lambda one: len(one[0]), reverse=True):
        item.trivia.indent = f"{_MARK}{item.trivia.indent}"
        before, mark, _ = document.as_string().partition(_MARK)
        if mark:  # a table that only its subtables imply is not written
            return before.count("\n") + 1
    return 1


def _items(container: Container, above: str = "") -> Iterator[tuple[str, Item]]:
    """Every key and table of a document, with its dotted path."""
    from tomlkit.items import AbstractTable, AoT

    for key, item in container.body:
        if key is None:  # a comment or a blank line
            continue
        path = f"{above}{key.key}"
        found = [(path, item)]
        if isinstance(item, AoT):
            numbered = list(enumerate(item.body, start=1))
            found = [(f"{path}.{name}", table) for number, table in numbered for name in (number, table.get("name"))]
        for place, one in found:
            yield place, one
            if isinstance(one, AbstractTable):
                yield from _items(one.value, f"{place}.")
