"""Whether servers that are up already are what an experiment is of: model, version, data set, and their profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.bundle import Bundle
from models.problem import Problem
from serving.profile import ServingProfile
from serving.target import Target

KEYS = tuple(ServingProfile().to_dict())


def profile(targets: Sequence[Target], whose: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """The profile that servers were started with, by dotted keys, as far as they tell: what a run of them is recorded
    with. ``whose``: where they are named; ``said``: what somebody says themselves (see `file.said`). Raises `Problem`
    where the servers differ, or somebody says otherwise."""
    found: dict[str, Any] = {}
    for target in targets:
        for knob in target.knobs:
            key = f"profile.{knob.name}"
            if knob.name not in KEYS or knob.asked is None:
                continue
            if found.setdefault(key, knob.asked) != knob.asked:
                raise Problem(f"{whose}: its servers differ in {key}: {found[key]} and {knob.asked}; start them alike")
    for key, value in found.items():
        if key in said and said[key] != value:
            raise Problem(
                f"{key} = {said[key]!r}, and the servers of {whose} were started with {value!r}: leave it out, or "
                f"start them with {said[key]!r}"
            )
    return found


def require_bundle(bundle: Bundle, folder: Path | None, versions: Mapping[str, int], whose: str) -> None:
    """Raise `Problem` where a bundle that somebody names (in ``folder``) is not of a model and version that the servers
    of ``whose`` hold."""
    if folder is None:
        return
    if bundle.model not in versions:
        raise Problem(f"--bundle {folder}: of {bundle.model}, and the servers of {whose} hold {', '.join(versions)}")
    if versions[bundle.model] != bundle.version:
        raise Problem(
            f"--bundle {folder}: version {bundle.version} of {bundle.model}, and the servers of {whose} hold version "
            f"{versions[bundle.model]}"
        )


def require_said(said: Mapping[str, Any], whose: str, **deployed: str) -> None:
    """Raise `Problem` where somebody says another value of a key than what is ``deployed``."""
    for key, value in deployed.items():
        if key in said and said[key] != value:
            raise Problem(
                f"{key} = {said[key]!r}, and {whose} is of {value!r}: leave it out, or measure servers of {said[key]!r}"
            )
