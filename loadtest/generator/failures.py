"""When somebody else's server has failed so often that it is left alone."""

from __future__ import annotations

from collections import Counter, deque

from loadtest.generator.live import Slice

WINDOW_S = 5.0
FEWEST = 20


class Failures:
    """How the requests of the last `WINDOW_S` seconds ended: `failed` of those that `ended`, by their `kinds`; `said`:
    what the first answer that was an error said."""

    def __init__(self, most: float) -> None:
        """``most``: the share that may fail; 1: all of them."""
        self._most = most
        self._pieces: deque[tuple[float, int, Counter[str]]] = deque()
        self.ended = 0
        self.said = ""
        self._kinds: Counter[str] = Counter()

    @property
    def failed(self) -> int:
        """How many did."""
        return self._kinds.total()

    @property
    def kinds(self) -> dict[str, int]:
        """Kind of error → how many."""
        return {kind: count for kind, count in self._kinds.most_common() if count}

    def too_many(self, piece: Slice, now: float) -> bool:
        """Whether too many have failed by ``now`` (seconds of `timer.clock`), with what has happened since the last
        call."""
        if self._most >= 1:
            return False
        ended, kinds = piece.latency_ms.size + piece.failed_ms.size, Counter(piece.errors)
        self._pieces.append((now, ended, kinds))
        self.ended += ended
        self.said = self.said or piece.said
        self._kinds.update(kinds)
        while self._pieces[0][0] < now - WINDOW_S:
            _, ended, kinds = self._pieces.popleft()
            self.ended -= ended
            self._kinds.subtract(kinds)
        return self.ended >= FEWEST and self.failed > self._most * self.ended
