"""What a machine did to a measurement beside the server, in sentences: other programs, control groups, limits."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.experiment.own_errors import Lack
from loadtest.experiment.records import FirstError, OtherProcess
from loadtest.report import wording

LACKS = {
    Lack.FILES: "file descriptors (ulimit -n)",
    Lack.PORTS: "local ports (sysctl net.ipv4.ip_local_port_range)",
    Lack.MEMORY: "memory for sockets",
}
SHOWN = 120  # characters of what a server said


def who(programs: Sequence[OtherProcess]) -> str:
    """Programs with the CPUs that they used: "cc1 (0.9 CPUs, pid 42)"; empty where none is known."""
    named = [
        f"{wording.shorten(wording.isolated(one.name), 30)} ({wording.number(one.cpus, 2)} CPUs, pid {one.pid})"
        for one in programs
    ]
    return wording.listed(named) if named else ""


def used(share: float, programs: Sequence[OtherProcess]) -> str:
    """What others used of some cores, and who."""
    by = who(programs)
    return f"{wording.share(share)} of their time{f', most of all {by}' if by else ''}"


def held_up(periods: int, seconds: float) -> str:
    """How a control group stopped somebody."""
    return f"{wording.plural(periods, 'time')} for {wording.seconds(seconds)} in all, as their CPU quota was spent"


def out_of(lack: Lack, requests: int) -> str:
    """What the generator had none left of."""
    return f"the generator itself had no more {LACKS[lack]} for {wording.count(requests)} requests"


def first_error(found: FirstError, shown: int = SHOWN) -> str:
    """What a server said first of what it refused."""
    return (
        f"the first, {found.kind} after {found.after_s:.1f} s: “{wording.shorten(wording.isolated(found.said), shown)}”"
    )
