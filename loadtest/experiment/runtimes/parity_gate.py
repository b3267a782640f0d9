"""Wire parity of a run's servers, before any load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from loadtest.experiment.records import RightAnswers
from loadtest.experiment.run_folder import RunFolder
from models.bundle import Bundle
from serving import batch_sizes, wire_parity
from serving.target import Target
from serving.wire_parity import Agreement

FILE = "wire-parity.json"
_Proof = TypeVar("_Proof", bound="Proof")


class Proof(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What wire-parity.json says of one model.

    samples    of the test split, or of a run without a bundle, all of which were compared
    tolerance  of a probability
    right      which answers are right
    targets    target → protocol → how its answers agreed
    """

    samples: int = 0
    tolerance: float = 0.0
    right: RightAnswers = RightAnswers.REFERENCE
    targets: dict[str, dict[str, Agreement]] = {}


class Proofs(Proof, frozen=True, kw_only=True, omit_defaults=True):
    """wire-parity.json: of the only model, or of each of several by its name."""

    models: dict[str, Proof] = {}


class ParityGate:
    """Wire parity once for each target and model, and the list of targets, both kept in the run's folder."""

    def __init__(self, folder: RunFolder, bundles: Sequence[Bundle], protocols: Sequence[str]) -> None:
        self._folder, self._bundles, self._protocols = folder, bundles, protocols

    def prove(self, target: Target, now: Callable[[str], None]) -> None:
        """Record the target, and send the whole test split through each of its models unless that has been done in this
        run. Raises `Problem` where it answers what the model does not."""
        others = [known for known in self._folder.read("targets.json", []) if known["name"] != target.name]
        self._folder.write("targets.json", [*others, target.to_dict()])
        known = msgspec.convert(self._folder.read(FILE, {}), Proofs, strict=False)  # samples are keys, and so text
        first, *beside = self._bundles
        if beside:
            models = {one.model: known.models.get(one.model, Proof()) for one in self._bundles}
            proven = {one.model: self._prove(models[one.model], target, one, now) for one in self._bundles}
            self._write(Proofs(models=proven))
        else:
            self._write(self._prove(known, target, first, now))
        if batch_sizes.sizes(target):
            now(f"{target.name}: every batch size up to {target.max_batch_size} once")
            for one in self._bundles:
                batch_sizes.touch(target.asked_for(one), one.reference, self._protocols[0])
        samples = self._folder.path / "wire-samples.npz"
        if not samples.exists():
            wire_parity.save_examples(first.reference, samples)

    def forget(self, name: str) -> None:
        """Prove the target of that name again when it is used next: its server is another one."""
        known = msgspec.convert(self._folder.read(FILE, {}), Proofs, strict=False)
        models = {model: _without(name, proof) for model, proof in known.models.items()}
        self._write(msgspec.structs.replace(_without(name, known), models=models))

    def _prove(self, known: Proof, target: Target, bundle: Bundle, now: Callable[[str], None]) -> Proof:
        """What is known of one model, with this target's figures."""
        if target.name in known.targets:
            return known
        what = f" of {bundle.model}" if len(self._bundles) > 1 else ""
        now(f"{target.name}: wire parity{what} over the whole test split")
        figures = wire_parity.check(target.asked_for(bundle), bundle.reference, protocols=self._protocols)
        samples = next(iter(figures.values())).samples
        return Proof(
            samples=samples,
            tolerance=max(known.tolerance, target.asked_for(bundle).tolerance),
            targets={**known.targets, target.name: figures},
        )

    def _write(self, proof: Proof) -> None:
        self._folder.write(FILE, msgspec.to_builtins(proof, str_keys=True))


def _without(name: str, proof: _Proof) -> _Proof:
    return msgspec.structs.replace(proof, targets={other: one for other, one in proof.targets.items() if other != name})
