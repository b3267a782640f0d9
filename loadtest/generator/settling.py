"""The second half of a warm-up: open load, until the latency has settled.

A closed loop keeps batches full. Open load forms small ones, for which a JVM compiles its code anew: TorchServe's
median latency was seen to fall from 7 to 2 ms within ten seconds after its throughput had become steady. It falls in
steps, as the compiler counts calls, so medians that agree are enough only after so many requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np

from loadtest.experiment.phases import OpenLoopPhase, WarmUpPhase
from loadtest.generator.part import Part
from loadtest.generator.timer import clock

SHARE = 0.7  # of the closed loop's throughput: as much as leaves no queue behind
CHUNK_S = 2.0
AGREEING = 3


def settled(p50_ms: Sequence[float | None], tolerance: float) -> bool:
    """Whether the latest three medians differ by no more than twice `tolerance` of their middle one."""
    latest = sorted(one for one in p50_ms[-AGREEING:] if one is not None)
    return len(latest) == AGREEING and latest[-1] - latest[0] <= 2 * tolerance * latest[1]


def settle(
    phase: WarmUpPhase, throughput: float, requests: int, load: Callable[[OpenLoopPhase], Part]
) -> dict[str, Any]:
    """Put open load on the target in chunks until their medians agree and it has had `phase.min_requests`, for
    `phase.settle_s` seconds at most.

    throughput  requests/s that the closed loop found, with so many `requests`; `load` puts a phase on the target
    Returns rate (requests/s), p50_ms of each chunk (None where no answer was ok), whether it settled, and seconds.
    """
    rate, began = round(SHARE * throughput, 2), clock()
    p50_ms: list[float | None] = []
    for number in count():
        over = settled(p50_ms, phase.tolerance) and requests >= phase.min_requests
        if over or (len(p50_ms) + 1) * CHUNK_S > phase.settle_s:
            break
        part = load(
            OpenLoopPhase(
                id=phase.id,
                folder=phase.folder,
                protocol=phase.protocol,
                seed=phase.seed + 1 + number,
                rate=rate,
                duration_s=CHUNK_S,
                scenario="settling",
                lead_in_s=0.0,
                timeout_s=phase.timeout_s,
                check_share=0.0,
                batch=phase.batch,
            )
        )
        requests += len(part.due)
        answered = (part.done - part.due)[part.ok]
        p50_ms.append(round(float(np.median(answered)) * 1000, 3) if answered.size else None)
    seconds = round(clock() - began, 3)
    return {"rate": rate, "p50_ms": p50_ms, "settled": settled(p50_ms, phase.tolerance), "seconds": seconds}
