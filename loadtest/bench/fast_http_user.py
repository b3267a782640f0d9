"""A plain Locust test to compare with: `FastHttpUser`, closed loop, one request after the other for each user."""

from __future__ import annotations

import os
from pathlib import Path

from locust import FastHttpUser, task


class Plain(FastHttpUser):
    """Posts the body in the file that TANDEM_BENCH_BODY names."""

    body = Path(os.environ["TANDEM_BENCH_BODY"]).read_bytes()

    @task
    def predict(self) -> None:
        """One request."""
        self.client.post("/predictions/trivial", data=self.body, headers={"Content-Type": "application/json"})
