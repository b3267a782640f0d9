"""The second half of a warm-up: open load, until the latency has settled.

A closed loop keeps batches full. Open load forms small ones, for which a JVM compiles its code anew: TorchServe's
median latency was seen to fall from 7 to 2 ms within ten seconds after its throughput had become steady. It falls in
steps, as the compiler counts calls, so medians that agree are enough only after so many requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

from loadtest.experiment.phases import SETTLING_CHUNK_S, OpenLoopPhase, WarmUpPhase
from loadtest.experiment.records import Settling
from loadtest.generator.outcomes import Outcomes
from loadtest.generator.timer import clock

SHARE = 0.7  # of the closed loop's throughput: as much as leaves no queue behind
AGREEING = 3


def settled(p50_ms: Sequence[float | None], tolerance: float) -> bool:
    """Whether the latest three medians differ by no more than twice `tolerance` of their middle one."""
    latest = sorted(one for one in p50_ms[-AGREEING:] if one is not None)
    return len(latest) == AGREEING and latest[-1] - latest[0] <= 2 * tolerance * latest[1]


def settle(phase: WarmUpPhase, throughput: float, requests: int, load: Callable[[OpenLoopPhase], Outcomes]) -> Settling:
    """Put open load on the target in chunks until their medians agree and it has had `phase.min_requests`, for
    `phase.settle_s` seconds at most.

    throughput  requests/s that the closed loop found, with so many `requests`; `load` puts a phase on the target
    """
    rate, began = round(SHARE * throughput, 2), clock()
    p50_ms: list[float | None] = []
    for number in count():
        over = settled(p50_ms, phase.tolerance) and requests >= phase.min_requests
        if over or (len(p50_ms) + 1) * SETTLING_CHUNK_S > phase.settle_s:
            break
        outcomes = load(
            OpenLoopPhase(
                id=phase.id,
                folder=phase.folder,
                protocol=phase.protocol,
                seed=phase.seed + 1 + number,
                rate=rate,
                duration_s=SETTLING_CHUNK_S,
                scenario="settling",
                lead_in_s=0.0,
                timeout_s=phase.timeout_s,
                check_share=0.0,
                batch=phase.batch,
            )
        )
        requests += len(outcomes.due)
        answered = (outcomes.done - outcomes.due)[outcomes.ok]
        p50_ms.append(round(float(np.median(answered)) * 1000, 3) if answered.size else None)
    seconds = round(clock() - began, 3)
    return Settling(rate=rate, p50_ms=tuple(p50_ms), settled=settled(p50_ms, phase.tolerance), seconds=seconds)
