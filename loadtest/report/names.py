"""What targets are called in a sentence: the product that was measured, and in whose place it stood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loadtest.analysis.records import TargetInfo
from loadtest.report import wording

LONGEST = 40


def of(targets: Sequence[TargetInfo]) -> dict[str, str]:
    """For each target's name what it is called: its product where no other target is the same one, else its own name
    with the product; a stand-in as what it is."""
    products = [product(target) for target in targets]
    return {
        target.name: name if products.count(name) == 1 else _own(target, name)
        for target, name in zip(targets, products, strict=True)
    }


def product(target: TargetInfo) -> str:
    """The product that answered, without its version, and the backend where that is not the product's own for such a
    model; where nothing did, what the experiment calls the target."""
    if target.stands_in_for:
        return f"the embedded stand-in for {wording.shorten(wording.product(target.stands_in_for), LONGEST)}"
    if target.engine is None:
        return _called(target.name)
    return wording.shorten(wording.answered(target), LONGEST)


def of_two_runs(targets: Sequence[TargetInfo], called: Mapping[str, str]) -> dict[str, str]:
    """As `of` where the targets are the runs of one target: what these are ``called``, with product and precision only
    where they differ."""
    products, precisions = {product(target) for target in targets}, {target.precision for target in targets}

    def apart(target: TargetInfo) -> str:
        known = [product(target)] if len(products) > 1 else []
        known += [target.precision] if len(precisions) > 1 else []
        return f"{called[target.name]} ({', '.join(known)})" if known else called[target.name]

    return {target.name: apart(target) for target in targets}


def opening(sentence: str) -> str:
    """A sentence with a capital at its start where that is no name's own spelling."""
    return sentence[0].upper() + sentence[1:] if sentence.startswith(("the ", "this ", "over ", "at ")) else sentence


def _own(target: TargetInfo, product: str) -> str:
    return f"{_called(target.name)} ({product})" if target.engine else _called(target.name)


def _called(name: str) -> str:
    return wording.shorten(wording.target_name(name), LONGEST)
