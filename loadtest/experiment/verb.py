"""A verb of the command line: its name, its arguments and what it runs, registered beside the latter."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models import problem


@dataclass(frozen=True)
class Verb:
    """One of `python -m loadtest VERB`.

    help           one line for the list of verbs
    add_arguments  declares its arguments
    run            does it; returns the exit status, or the folder of a run that is to be summarised and reported. Its
                   options have `words` beside their own: how the terminal says what a run does (see `steps`)
    description    for its own --help
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | Path]
    description: str | None = None

    def main(self, arguments: Sequence[str]) -> int:
        """Run it alone and return the exit status (0 where it returns a folder, which stays unreported)."""
        parser = argparse.ArgumentParser(prog=f"python -m loadtest {self.name}", description=self.description)
        self.add_arguments(parser)
        parser.set_defaults(words=str)
        options = parser.parse_args(arguments)

        def status() -> int:
            done = self.run(options)
            return done if isinstance(done, int) else 0

        return problem.run(status)


def no_arguments(parser: argparse.ArgumentParser) -> None:
    """For a verb that takes none."""
