"""Ends requests that have waited longer than their time-out, so that a phase always ends."""

from __future__ import annotations

from typing import Protocol

from loadtest.generator.recording import PENDING, Recording


class Client(Protocol):
    """What sends requests, once connected: `http1.HttpClient` or `http2.GrpcClient`."""

    def send(self, request: int, payload: bytes, keep: bool) -> None:
        """Send one request."""

    def abandon(self, requests: set[int]) -> None:
        """Forget requests."""

    def close(self) -> None:
        """Close all connections."""


class Expiry:
    """Requests are due in order and share one time-out, so only the oldest need a look."""

    def __init__(self, recording: Recording, client: Client, timeout_s: float) -> None:
        self._recording, self._client, self._timeout_s = recording, client, timeout_s
        self._oldest = 0

    def sweep(self, now: float) -> list[int]:
        """End the sent requests that were due more than the time-out before `now`; their numbers."""
        recording = self._recording
        limit = now - self._timeout_s
        expired = []
        request = self._oldest
        while request < recording.offered and recording.due[request] <= limit:
            if recording.status[request] == PENDING:
                expired.append(request)
            request += 1
        self._oldest = request
        if expired:
            self._client.abandon(set(expired))
            for request in expired:
                recording.finish(request, "timeout", now)
        return expired
