"""What a run needs of its servers, whatever runtime they live in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from loadtest.experiment.observation import Prometheus
from serving.target import Target


class Targets(Protocol):
    """The servers of a run: one at a time, started anew for each block, and proven over the wire before any load."""

    server_cores: tuple[int, ...]
    generator_cores: tuple[int, ...]

    def observe(self, prometheus: Prometheus | None) -> None:
        """Tell this Prometheus which server to scrape from now on."""

    def use(self, name: str, now: Callable[[str], None], offset: int = 0) -> None:
        """Have this target's server up, alone, started anew, and proven; raises `Problem` where it fails. `offset`:
        bytes of padding in its environment, where the runtime has a hand in that."""

    def target(self, name: str) -> Target:
        """The server in use, as clients see it."""

    def check(self, *, fresh: bool = False) -> None:
        """Raise `Problem`, with its last log lines, if the server in use has died, and `Replaced` if it is another one
        than `use` had up: one that nothing was proven of, and that nobody warmed up. Where asking takes long it is
        asked now and then, or (`fresh`) at once."""

    def stop(self) -> None:
        """Stop whatever runs."""
