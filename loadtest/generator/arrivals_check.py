"""Whether requests really left as their arrival process says: a check of the generator by what it did.

Lancet tests the gaps between its transmissions for the exponential distribution by Anderson and Darling's A², and calls
a trial wrong whose generator did not send what it was asked for (Kogias, Mallon & Bugnion, "Lancet: A self-correcting
Latency Measuring Tool", USENIX ATC 2019). Slip says how late each request was; this says what the server saw of it:
requests that leave in bunches, each no later than is allowed, load a server's queue in another way than Poisson
arrivals do.

Two differences from Lancet, which estimates the rate and rejects from twice the critical value of 1 % on, of at most
4,096 sends a thread. The rate is known here, so a generator that sends at another one is found, too. And among tens of
thousands of gaps the 20 microseconds that a send takes are significant on every machine, though no server of ours could
tell. So the gaps must differ significantly and by more than a distance that does not grow with their number.

Measured on two cores, the generator on one of its own, from 100 to 12,000 requests/s over gRPC and REST: distances up
to 0.009 (Poisson, where A² is 266, 70 times its critical value) and up to 0.02 (constant arrivals). Beside other
programs that kept both cores busy, with stalls of 100 ms and more: up to 0.02 and 0.42. Sends in bursts every 5 ms:
from 0.3 (200/s) to 1.5 (1,000/s), and from 1.2 on (constant, 500/s); every 1 ms: 0.2 (1,000/s) and 0.4 (2,000/s).
Where bursts are rarer than requests, they change no gap much. So it is a caution and no fault: slip decides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadtest.experiment.records import ArrivalsCheck

# A² of a distribution that is known beforehand, rate and all, is above this in one of a hundred samples, whatever their
# size from 5 on (Stephens 1974, "EDF statistics for goodness of fit and some comparisons", case 0).
CRITICAL = 3.857
FEWEST = 5
# The largest distance of gaps that count as the process' own: A² for each gap, and what a gap is off by in the mean.
ALLOWED = {"poisson": 0.1, "constant": 0.5}


def check(process: str, rate: float, sent: NDArray[np.float64]) -> ArrivalsCheck | None:
    """The gaps between send times (seconds, in any order) against those of an arrival process of so many requests/s.

    None for a process whose gaps follow no distribution that a rate says all about, and where too few were sent.
    """
    gaps = np.diff(np.sort(sent)) * rate
    if process not in ALLOWED or len(gaps) < FEWEST:
        return None
    statistic = None if process == "constant" else anderson_darling(gaps)
    distance = deviation(gaps) if statistic is None else statistic / len(gaps)
    may_be_chance = statistic is not None and statistic <= CRITICAL
    return ArrivalsCheck(
        gaps=len(gaps),
        statistic=None if statistic is None else round(statistic, 2),
        distance=round(distance, 4),
        allowed=ALLOWED[process],
        ok=distance <= ALLOWED[process] or may_be_chance,
    )


def anderson_darling(gaps: NDArray[np.float64]) -> float:
    """Anderson and Darling's A² of gaps, in multiples of their expected mean, against the exponential distribution."""
    ordered = np.sort(gaps)
    count = len(ordered)
    # F = 1 - exp(-gap); a gap of 0 (two sends within a clock's tick) would be infinitely unlikely.
    log_below = np.log(-np.expm1(-np.maximum(ordered, 1e-9)))
    weights = 2 * np.arange(1, count + 1) - 1
    return float(-count - np.mean(weights * (log_below - ordered[::-1])))


def deviation(gaps: NDArray[np.float64]) -> float:
    """By how much gaps, in multiples of what each of them should be, are off in the mean: 0 is perfectly even."""
    return float(np.mean(np.abs(gaps - 1)))
