"""Whether so many requests prove that a percentile of latency is within a limit: MLPerf's early-stopping criterion.

A request is over where it took longer than the limit, or failed. Were one request in a hundred over by chance, each
independently of the others, then so few as were seen, or fewer, would be seen with the probability `odds`. Where that
is below 1 %, the 99th percentile is within the limit with 99 % confidence; otherwise it is not shown to be, however low
the measured percentile is. (MLCommons, MLPerf Inference, LoadGen: `early_stopping.cc`, and the Server scenario of
`EarlyStopping` in `results.cc`; Reddi et al., "MLPerf Inference Benchmark", ISCA 2020. LoadGen's tolerance d, by which
the percentile may be missed, is 0 there, and here.) LoadGen computes the odds as a regularized incomplete beta
function; this is the same number, summed. Late requests come in bunches, so the confidence is of this trial's requests:
what differs from trial to trial and from start to start is for the intervals.
"""

from __future__ import annotations

import math

PERCENTILE = 0.99
CONFIDENCE = 0.99

# A trial is planned to be so long that it may have so many requests over and still prove the percentile: with 1,001
# requests, a server that is over in one of a thousand meets in 98 of a hundred trials.
SPARE = 3
# No trial of a search lasts longer for the sake of the proof: below some 15 requests/s it cannot be had in this time.
LONGEST_S = 30.0


def odds(over: int, requests: int) -> float:
    """The probability of at most `over` requests over the limit, of `requests`, where 1 - `PERCENTILE` of all are: the
    cumulative binomial distribution. Raises ValueError for a negative count."""
    if over < 0 or requests < 0:
        raise ValueError(f"{over} over of {requests} requests: counts are not negative")
    if over >= requests:
        return 1.0
    rare = 1 - PERCENTILE
    term = math.exp(
        math.lgamma(requests + 1)
        - math.lgamma(over + 1)
        - math.lgamma(requests - over + 1)
        + over * math.log(rare)
        + (requests - over) * math.log(PERCENTILE)
    )
    total = term
    for count in range(over, 0, -1):
        term *= count / (requests - count + 1) * PERCENTILE / rare
        total += term
        if term < total * 1e-17 and count < rare * requests:  # on the way down from the most likely count
            break
    return min(total, 1.0)


def proven(over: int, requests: int) -> bool:
    """Whether `requests`, of which `over` took longer than the limit or failed, prove that the percentile is within it.

    The more requests, the larger the share that may be over, and it nears one in a hundred from below: none of 459, 3
    of 1,001, 33 of 5,000, 353 of 40,000.
    """
    # At the mean and beyond, the odds are about a half and more.
    return over < (1 - PERCENTILE) * requests and odds(over, requests) < 1 - CONFIDENCE


def fewest_requests(over: int = 0) -> int:
    """The fewest requests that prove the percentile where `over` of them are over the limit (LoadGen's h + t)."""
    low, high = over, 512  # the first proves nothing
    while not proven(over, high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proven(over, middle) else (middle, high)
    return high


def long_enough_s(rate: float, duration_s: float) -> float:
    """Seconds that a trial of `rate` requests/s must last to be able to prove the percentile with `SPARE` requests over
    the limit; at least `duration_s`, rounded up to a tenth. Poisson arrivals are fewer than three standard deviations
    below their mean but once in 700 trials. Raises ValueError for a rate that is not positive."""
    if rate <= 0:
        raise ValueError(f"rate = {rate} requests/s: must be positive")
    root = 1.5 + math.sqrt(2.25 + fewest_requests(SPARE))  # of the expected count m, where m - 3 √m is needed
    return max(duration_s, math.ceil(10 * root**2 / rate) / 10)


def lasting_s(rate: float, duration_s: float) -> float:
    """Seconds that a trial of a search lasts: `long_enough_s`, but for that no longer than `LONGEST_S`, where the
    measured percentile must do (see `slo.why_missed`)."""
    return max(duration_s, min(long_enough_s(rate, duration_s), LONGEST_S))
