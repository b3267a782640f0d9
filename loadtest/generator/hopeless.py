"""When a trial's percentile cannot be within a limit any more, whatever the rest of it would show.

A trial in which one in a hundred of all its requests, those to come included, has been over the limit misses it. To go
on would only heap up a backlog that has to be answered before the next trial, so no more are sent. What the trial says
is the same.
"""

from __future__ import annotations

import math

import numpy as np

from loadtest.experiment.early_stopping import PERCENTILE
from loadtest.experiment.phases import OpenLoopPhase
from loadtest.generator.live import Slice

# Standard deviations of a Poisson count by which there may be more requests than on the mean.
_MARGIN = 4


class Hopeless:
    """Counts a trial's answers over ``hopeless_ms``, and its failures, as they come; those of the lead-in, which cannot
    be told from the others here, may all have been over."""

    def __init__(self, phase: OpenLoopPhase) -> None:
        self._limit_ms = math.inf if phase.hopeless_ms is None else phase.hopeless_ms
        of_lead_in = _at_most(phase.rate * phase.lead_in_s)
        self._allowed = of_lead_in + (1 - PERCENTILE) * _at_most(phase.rate * phase.duration_s)
        self._over = 0

    def take(self, piece: Slice) -> bool:
        """Whether the trial is hopeless, with what has happened since the last call."""
        if self._limit_ms == math.inf:
            return False
        self._over += int(np.count_nonzero(piece.latency_ms > self._limit_ms)) + piece.failed_ms.size
        return self._over > self._allowed


def _at_most(mean: float) -> float:
    return mean + _MARGIN * math.sqrt(mean)
