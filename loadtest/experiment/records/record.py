"""What all records are made of."""

from __future__ import annotations

import msgspec

Errors = dict[str, int]
"""How often each kind of error was seen."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Something that stands in a file. Unknown keys of a newer version are ignored."""
