"""Wire parity of a run's servers, before any load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from loadtest.experiment.run_folder import RunFolder
from models.bundle import Bundle
from serving import wire_parity
from serving.target import Target


class ParityGate:
    """Wire parity once for each target and model, and the list of targets, both kept in the run's folder."""

    def __init__(self, folder: RunFolder, bundles: Sequence[Bundle], protocols: Sequence[str]) -> None:
        self._folder, self._bundles, self._protocols = folder, bundles, protocols

    def prove(self, target: Target, now: Callable[[str], None]) -> None:
        """Record the target, and send the whole test split through each of its models unless that has been done in this
        run."""
        others = [known for known in self._folder.read("targets.json", []) if known["name"] != target.name]
        self._folder.write("targets.json", [*others, target.to_dict()])
        known = self._folder.read("wire-parity.json", {})
        first, *beside = self._bundles
        if beside:
            models = known.get("models", {})
            proven = {one.model: self._proven(models.get(one.model, {}), target, one, now) for one in self._bundles}
            self._folder.write("wire-parity.json", {"models": proven})
        else:
            self._folder.write("wire-parity.json", self._proven(known, target, first, now))
        samples = self._folder.path / "wire-samples.npz"
        if not samples.exists():
            wire_parity.save_examples(first.reference, samples)

    def _proven(
        self, known: dict[str, Any], target: Target, bundle: Bundle, now: Callable[[str], None]
    ) -> dict[str, Any]:
        """What is known of one model, this target's figures included."""
        targets = known.get("targets", {})
        if target.name in targets:
            return known
        what = f" of {bundle.model}" if len(self._bundles) > 1 else ""
        now(f"{target.name}: wire parity{what} over the whole test split")
        figures = wire_parity.check(target.asked_for(bundle), bundle.reference, protocols=self._protocols)
        samples = next(iter(figures.values())).samples
        proven = {**targets, target.name: msgspec.to_builtins(figures, str_keys=True)}
        return {"samples": samples, "tolerance": wire_parity.TOLERANCE, "targets": proven}
