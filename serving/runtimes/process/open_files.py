"""How many files, connections among them, a process may have open (getrlimit(2), RLIMIT_NOFILE)."""

from __future__ import annotations

import resource

# No more, where the hard limit is endless: programs look through as many descriptors as they may have.
MOST = 1_048_576


def allowed() -> int:
    """How many this user's processes may have at most: the hard limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)


def raise_limit() -> None:
    """Let this process, and those that it starts, have that many. The usual soft limit, 1,024, is for programs that use
    select(2), which none here does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < allowed():
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed(), hard))
