"""Whether an engine's library can compute a bundle's precision on a CPU, as the bundle's parity gate found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.problem import Problem

if TYPE_CHECKING:
    from models.bundle import Bundle
    from serving.engines.engine import Engine
    from serving.profile import ServingProfile


def require(engine: Engine, bundle: Bundle, profile: ServingProfile) -> None:
    """Raise `Problem` where a server of ``engine`` could not load what it serves of ``bundle``."""
    if profile.device == "cpu" and engine.export in bundle.left_out:
        raise Problem(
            f"profile.precision = {profile.precision.value!r}: {engine.title} computes with {engine.framework}, which "
            f"has no kernels for it on a CPU ({bundle.folder}/manifest.json: parity.left_out.{engine.export}); leave "
            "that target out, or use another precision"
        )
