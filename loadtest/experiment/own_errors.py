"""Errors of the load generator's own: what its machine refuses it says nothing of the server."""

from __future__ import annotations

import enum
import errno
from collections.abc import Mapping


class Lack(enum.Enum):
    """What the generator had none left of.

    FILES   file descriptors (EMFILE, ENFILE)
    PORTS   local ports for another connection to one address (EADDRNOTAVAIL)
    MEMORY  memory of the kernel's for a socket (ENOBUFS, ENOMEM)
    """

    FILES = "files"
    PORTS = "ports"
    MEMORY = "memory"


_LACKS = {
    errno.EMFILE: Lack.FILES,
    errno.ENFILE: Lack.FILES,
    errno.EADDRNOTAVAIL: Lack.PORTS,
    errno.ENOBUFS: Lack.MEMORY,
    errno.ENOMEM: Lack.MEMORY,
}
_PREFIX = "own_"
KINDS = tuple(f"{_PREFIX}{lack.value}" for lack in Lack)


def kind_of(number: int | None) -> str:
    """The kind of error of a connection that failed with this error number: the generator's own, or "connection"."""
    lack = _LACKS.get(number or 0)
    return f"{_PREFIX}{lack.value}" if lack else "connection"


def lacks(errors: Mapping[str, int]) -> dict[Lack, int]:
    """How many requests failed for want of what, of errors by kind."""
    return {lack: errors[kind] for lack in Lack if errors.get(kind := f"{_PREFIX}{lack.value}")}
