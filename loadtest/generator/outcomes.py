"""What became of a trial's requests, as arrays that can be sent and merged: exactly, nothing is summarised before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.experiment.records import FirstError
from loadtest.generator.recording import FIRST_KIND, OK, Recording

_ARRAYS = ("due", "sent", "done", "status", "models")


@dataclass(frozen=True)
class Outcomes:
    """The requests of a trial's measured part that one worker (or, merged, all of them) sent.

    due, sent, done  seconds since the measured part began, sorted by `due`; NaN for what never happened
    status           a code each: OK, DROPPED or a place in `kinds`, counted from 3 on
    models           the place in the mix of each one's model; empty where there is only one
    kinds            the kinds of error seen
    checked, wrong   how many answers were compared with the reference, and how many differed
    busy, cpus       the share of a core that the busiest worker used, and that all of them together used
    stolen           the largest share of CPU time stolen
    first_error      the first answer that was an error
    given_up_s       when the first request was due that was not sent because the trial had become hopeless, likewise;
                     infinite: it was not given up
    """

    due: NDArray[np.float64]
    sent: NDArray[np.float64]
    done: NDArray[np.float64]
    status: NDArray[np.uint8]
    kinds: tuple[str, ...]
    checked: int = 0
    wrong: int = 0
    busy: float = 0.0
    cpus: float = 0.0
    stolen: float = 0.0
    first_error: FirstError | None = None
    models: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    given_up_s: float = np.inf

    @classmethod
    def of(
        cls,
        recording: Recording,
        started: float,
        ended: float = np.inf,
        *,
        models: NDArray[np.uint8] | None = None,
        **values: Any,
    ) -> Outcomes:
        """The measured part of a recording: requests due in [started, ended), seconds of `timer.clock`."""
        due, sent, done, status = recording.arrays()
        first, last = np.searchsorted(due, (started, ended))
        chosen = slice(int(first), int(last))
        known = recording.kinds()
        places = np.arange(256)
        for place, code in enumerate(sorted(known)):
            places[code] = FIRST_KIND + place
        return cls(
            due=due[chosen] - started,
            sent=np.where(sent[chosen] > 0, sent[chosen] - started, np.nan),
            done=np.where(done[chosen] > 0, done[chosen] - started, np.nan),
            status=places[status[chosen]].astype(np.uint8),
            kinds=tuple(known[code] for code in sorted(known)),
            models=np.zeros(0, np.uint8) if models is None else models[chosen],
            first_error=_first_error(recording, started, ended),
            **values,
        )

    def of_model(self, place: int) -> Outcomes:
        """The requests for one model alone."""
        return self._chosen(self.models == place)

    def _chosen(self, which: NDArray[np.bool_]) -> Outcomes:
        return replace(self, **{key: getattr(self, key)[which] for key in _ARRAYS if getattr(self, key).size})

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which requests were answered rightly."""
        return np.asarray(self.status == OK)

    @property
    def went(self) -> NDArray[np.bool_]:
        """Which requests were sent."""
        return np.isfinite(self.sent)


def merge(shares: Sequence[Outcomes]) -> Outcomes:
    """The workers' shares as the one trial that they are."""
    if len(shares) == 1:
        return shares[0]
    given_up_s = min(one.given_up_s for one in shares)
    shares = [one._chosen(one.due < given_up_s) for one in shares]
    kinds = tuple(dict.fromkeys(kind for one in shares for kind in one.kinds))
    statuses = []
    for one in shares:
        places = np.arange(256)
        for place, kind in enumerate(one.kinds):
            places[FIRST_KIND + place] = FIRST_KIND + kinds.index(kind)
        statuses.append(places[one.status].astype(np.uint8))
    due = np.concatenate([one.due for one in shares])
    order = np.argsort(due, kind="stable")
    models = np.concatenate([one.models for one in shares])
    return Outcomes(
        due=due[order],
        sent=np.concatenate([one.sent for one in shares])[order],
        done=np.concatenate([one.done for one in shares])[order],
        status=np.concatenate(statuses)[order],
        kinds=kinds,
        models=models[order] if models.size else models,
        checked=sum(one.checked for one in shares),
        wrong=sum(one.wrong for one in shares),
        busy=max(one.busy for one in shares),
        cpus=sum(one.cpus for one in shares),
        stolen=max(one.stolen for one in shares),
        first_error=min(
            (one.first_error for one in shares if one.first_error), key=lambda found: found.after_s, default=None
        ),
        given_up_s=given_up_s,
    )


def _first_error(recording: Recording, started: float, ended: float) -> FirstError | None:
    if recording.first_error is None:
        return None
    request, said = recording.first_error
    if not started <= recording.due[request] < ended:
        return None
    kind = recording.kinds()[recording.status[request]]
    return FirstError(kind=kind, after_s=round(recording.done[request] - started, 3), said=said)
