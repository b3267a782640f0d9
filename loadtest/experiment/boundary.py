"""What a capacity's trials say of its boundary: which of its conditions binds, and whether it is a cliff or a slope.

Both words are aiperf's (ai-dynamo/aiperf, `smooth_isotonic` search: `binding_constraint`, and `boundary_type`, which is
"cliff" where a smooth fit fails). All functions are of open-loop trials of one server over one protocol at several
rates, in any order; those that say nothing of the server (`slo.says_nothing`) are passed over.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from loadtest.experiment.records import RequestsFailed, TrialRecord
from loadtest.experiment.settings import Slo
from loadtest.experiment.slo import says_nothing, why_missed

# A server that answers less than this share of what arrives falls behind.
KEEPS_UP = 0.98
# Trials within this factor of a capacity are near it. Rates closer than the second are not told apart, and between some
# that lie farther apart than the third anything may be.
NEAR, APART, FAR = 1.25, 1.04, 1.15
# On a slope, twice the SLO's latency would buy at least this factor of rate.
WORTHWHILE = 1.03


@dataclass(frozen=True)
class Start:
    """The trials of one start of a server, and the highest rate (requests/s) that met the SLO in it, as estimated."""

    capacity: float
    trials: Sequence[TrialRecord]


class Binding(enum.Enum):
    """What keeps a server from meeting the SLO at a higher rate.

    P99     the latency's tail: the server keeps up, but too many answers are late
    ERRORS  too many requests fail, while the others are answered in time or the server keeps up
    LAG     the server falls behind what arrives: its backlog grows
    NONE    nothing: the SLO is met
    """

    P99 = "p99"
    ERRORS = "errors"
    LAG = "lag"
    NONE = "none"


class Shape(enum.Enum):
    """How latency passes the SLO as the rate grows.

    CLIFF    at once: twice the SLO's latency would hardly raise the capacity, and latency gives no warning before it
    SLOPE    gradually: another SLO would mean another capacity
    UNKNOWN  too few trials are near the capacity, or only their errors tell
    """

    CLIFF = "cliff"
    SLOPE = "slope"
    UNKNOWN = "unknown"


def binds(trial: TrialRecord, slo: Slo) -> Binding:
    """Which condition a trial that says something of the server misses. Of several, lag is the cause of the others: a
    full queue refuses requests.

    It fell behind where arrivals were dropped, or where a tenth of the answers and more were late and the backlog, less
    what a server that just meets the SLO holds (Little 1961: rate × latency), was at its largest more than a fiftieth
    of all requests.
    """
    why = why_missed(trial, slo.p99_ms, slo.error_ratio)
    if why is None:
        return Binding.NONE
    if trial.requests.dropped or (_backlog(trial, slo) > 1 - KEEPS_UP and (trial.latency_ms.p90 or 0) > slo.p99_ms):
        return Binding.LAG
    return Binding.ERRORS if isinstance(why, RequestsFailed) else Binding.P99


def binding(starts: Iterable[Start], slo: Slo) -> Binding:
    """Which condition most of the missed trials near the capacities miss; of equals that of the nearest. Where none of
    them is near, the nearest one decides; NONE where none missed."""
    found = [(abs(math.log(place)), binds(trial, slo)) for place, trial in _placed(starts, slo)]
    missed = sorted(((away, what) for away, what in found if what is not Binding.NONE), key=lambda item: item[0])
    near = [what for away, what in missed if away <= math.log(NEAR)] or [what for _, what in missed[:1]]
    return Counter(near).most_common(1)[0][0] if near else Binding.NONE


def shape(starts: Iterable[Start], slo: Slo) -> Shape:
    """Whether p99 passes the SLO at once or gradually near the capacities.

    Its growth is the elasticity of p99 in the rate, d ln p99 / d ln rate, from the medians of the trials that met the
    SLO to those of the ones that missed it. With an elasticity of e, k times the SLO's latency buys k^(1/e) times the
    rate. A server whose queue grows has a p99 that depends on how long a trial is, too; that makes a cliff steeper.
    """
    sides: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for place, trial in _placed(starts, slo):
        what, p99 = binds(trial, slo), trial.latency_ms.p99
        if abs(math.log(place)) <= math.log(NEAR) and p99 and what is not Binding.ERRORS:
            sides[what is Binding.NONE].append((place, p99))
    if not all(sides.values()):
        return Shape.UNKNOWN
    (low, before), (high, after) = (map(median, zip(*sides[met], strict=True)) for met in (True, False))
    growth = math.log(after / before) / max(math.log(high / low), math.log(APART))
    if growth > math.log(2) / math.log(WORTHWHILE):
        return Shape.CLIFF
    return Shape.UNKNOWN if high > FAR * low else Shape.SLOPE


def _placed(starts: Iterable[Start], slo: Slo) -> Iterator[tuple[float, TrialRecord]]:
    """Each trial that says something of its server, and its rate as a multiple of that start's capacity."""
    for start in starts:
        for trial in start.trials:
            if not says_nothing(trial, slo.p99_ms):
                yield trial.offered_rate / start.capacity, trial


def _backlog(trial: TrialRecord, slo: Slo) -> float:
    """Requests that waited beyond those that the SLO allows for, at most, as a share of those sent."""
    held = trial.offered_rate * slo.p99_ms / 1000
    return ((trial.in_flight_max or 0) - held) / max(trial.requests.sent, 1)
