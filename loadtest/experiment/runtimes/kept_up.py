"""Servers that somebody else keeps up, and may start anew meanwhile: what takes a server's place is proven like it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

import numpy as np

from loadtest.experiment.records import ServerReplaced
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes import on_this_machine
from models.problem import Problem
from serving.client import Client, RequestFailed
from serving.replaced import Replaced, Successor
from serving.target import Target

READY_S = 120.0  # for a successor, which already listens
POLL_S = 0.2


class KeptUp:
    """The targets by name, each as it is now, as far as this machine can tell."""

    def __init__(
        self,
        folder: RunFolder,
        targets: Sequence[Target],
        forget: Callable[[str], None],
        answers: Callable[[Target], bool],
    ) -> None:
        """``forget``: is called with the name of a target whose server is another one, which nothing is proven of;
        ``answers``: whether a server answers predictions, by which a successor is awaited (a `Problem`: not yet)."""
        self.targets = {target.name: target for target in targets}
        self._folder, self._forget, self._answers = folder, forget, answers
        self._watch: on_this_machine.Watch | None = None
        self._in_use, self._told = "", False

    def use(self, name: str, now: Callable[[str], None]) -> Target:
        """The target that load is about to go to. One whose server was replaced since it was used last is awaited, and
        noted. Raises `Problem` where a successor does not answer."""
        self._follow(name)
        if self._told:
            now(f"{name}: its server was replaced; waiting until the new one answers")
            self._await(self.targets[name])
        self._told = False
        self._in_use = name
        self._watch = on_this_machine.Watch(self.targets[name])
        return self.targets[name]

    def check(self, *, fresh: bool = False) -> None:
        """Raise `Replaced` where the server in use is another one by now."""
        if self._watch is None:
            return
        try:
            self._watch.check(fresh=fresh)
        except Replaced:
            self._take(self._in_use)
            raise

    def leave(self) -> None:
        """None of them is in use."""
        self._watch = None

    def _follow(self, name: str) -> None:
        """Notice a replacement that no load has met."""
        before = self.targets[name]
        if self._take(name):
            what = Successor.PROCESS
            note = ServerReplaced(at=round(time.time(), 3), target=name, engine=before.engine, what=what)
            self._folder.note(note)

    def _take(self, name: str) -> bool:
        """Take what is in a server's place by now for the target; whether there is anything."""
        found = on_this_machine.successor(self.targets[name])
        if found is None:
            return False
        self.targets[name] = found
        self._told = True
        self._forget(name)
        return True

    def _await(self, target: Target) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(Problem):
                if self._answers(target):
                    return
            if time.monotonic() > deadline:
                raise Problem(f"target.{target.name}: its server was replaced, and the new one does not answer")
            time.sleep(POLL_S)


def predicts(target: Target, protocols: Sequence[str]) -> bool:
    """Whether a server answers one blank image over each of ``protocols``."""
    image = np.zeros((1, *target.input_shape), np.uint8)
    try:
        with Client(target) as client:
            return all(len(client.predict(protocol, image)) == 1 for protocol in protocols)
    except RequestFailed:
        return False
