"""The environment variable by which an engine's servers are told of the profile's oneDNN. Imports the standard library
only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.engines.engine import Knob

if TYPE_CHECKING:
    from serving.profile import ServingProfile


@dataclass(frozen=True)
class OneDnnVariable:
    """A variable that is 1 or 0, or not there, where the framework is to decide.

    name     of the variable
    default  how the framework decides, in a sentence
    """

    name: str
    default: str

    def variables(self, profile: ServingProfile) -> dict[str, str]:
        """What a profile asks for; none where the framework is to decide."""
        return {} if profile.onednn == "default" else {self.name: str(int(profile.onednn))}

    def unset(self, profile: ServingProfile) -> tuple[str, ...]:
        """What must not be there for the framework to decide."""
        return (self.name,) if profile.onednn == "default" else ()

    def knob(self, profile: ServingProfile) -> Knob:
        """What a server is given."""
        if profile.onednn == "default":
            return Knob("onednn", self.name, None, note=f'onednn = "default": {self.default}', asked=profile.onednn)
        return Knob("onednn", self.name, int(profile.onednn), asked=profile.onednn)
