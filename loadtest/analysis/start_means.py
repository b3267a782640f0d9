"""What a target's starts say together: the geometric mean of their figures, and how sure that is.

The unit of replication is the freshly started server, so intervals are Student's t on the logarithms of the starts'
figures, however many trials each of them rests on (Georges, Buytaert & Eeckhout 2007, "Statistically Rigorous Java
Performance Evaluation", §3). Their variance counts at least as in `decision.spread`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.analysis import statistics
from loadtest.experiment import decision
from loadtest.experiment.decision import Figure

MANY = 1e9  # degrees of freedom: where the spread is known, not estimated


@dataclass(frozen=True)
class Mean:
    """The geometric mean of starts' figures with its 95 % interval."""

    value: float
    ci95: tuple[float, float]


def mean_log(figures: Sequence[Figure]) -> float:
    """The mean of the logarithms of starts' figures. Raises `ZeroDivisionError` for none."""
    return math.fsum(one.log_value for one in figures) / len(figures)


def estimate(figures: Sequence[Figure]) -> Mean:
    """The mean of starts; the interval of one alone is as wide as its own trials tell. Raises as `mean_log`."""
    apart = decision.spread(figures)
    reach = math.sqrt(figures[0].variance) if apart is None else apart / math.sqrt(len(figures))
    reach *= statistics.student_t(MANY if apart is None else len(figures) - 1)
    middle = mean_log(figures)
    return Mean(math.exp(middle), (math.exp(middle - reach), math.exp(middle + reach)))
