"""Wire parity of a run's servers, before any load."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadtest.run_folder import RunFolder
from models.bundle import Bundle
from serving import wire_parity
from serving.target import Target


class Proven:
    """Wire parity once for each stack, and the list of targets, both kept in the run's folder."""

    def __init__(self, folder: RunFolder, bundle: Bundle, protocols: Sequence[str]) -> None:
        self._folder, self._bundle, self._protocols = folder, bundle, protocols

    def prove(self, target: Target, now: Callable[[str], None]) -> None:
        """Record the target, and send the whole test split through it unless that has been done in this run."""
        others = [known for known in self._folder.read("targets.json", []) if known["stack"] != target.stack]
        self._folder.write("targets.json", [*others, target.to_dict()])
        known = self._folder.read("wire-parity.json", {"targets": {}})
        if target.stack in known["targets"]:
            return
        now(f"{target.stack}: wire parity over the whole test split")
        figures = wire_parity.check(target, self._bundle.reference, protocols=self._protocols)
        samples = next(iter(figures.values()))["samples"]
        wire_parity.save_examples(self._bundle.reference, self._folder.path / "wire-samples.npz")
        proven = {**known["targets"], target.stack: figures}
        self._folder.write(
            "wire-parity.json", {"samples": samples, "tolerance": wire_parity.TOLERANCE, "targets": proven}
        )
