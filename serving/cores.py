"""Which CPUs do what on a machine that serves and loads at the same time."""

from __future__ import annotations

from collections.abc import Sequence

MOST_FOR_GENERATOR = 2


def split_cores(available: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Divide CPUs between the server under test and everything else (generator, Prometheus, this program).

    Returns (server cores, generator cores): disjoint, the generator's at most two and at most half; on one CPU both
    are empty, which means not pinned.
    """
    if len(available) < 2:
        return (), ()
    generator = min(MOST_FOR_GENERATOR, len(available) // 2)
    return tuple(available[:-generator]), tuple(available[-generator:])
