"""Prometheus' HTTP API: instant and range queries, and the values of labels."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A Prometheus that runs for a run or for `make serve` writes its address here, in its folder, for as long as it is up.
ADDRESS_FILE = "url"
# No proxy leads to this machine, whatever HTTP_PROXY says.
_HERE = ("127.0.0.1", "localhost", "::1")
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class QueryRefused(Exception):
    """Prometheus does not accept a query; the text is its reason."""


class Unreachable(Exception):
    """No Prometheus answers at the address."""


@dataclass(frozen=True)
class Series:
    """One series of an answer: its labels and its (Unix time, value) samples; at least one, all of finite values."""

    labels: dict[str, str]
    samples: list[tuple[float, float]]


class PrometheusApi:
    """The API of the Prometheus at `url`. Raises `QueryRefused` and `Unreachable`."""

    def __init__(self, url: str, timeout_s: float = 10) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        here = urllib.parse.urlsplit(self.url).hostname in _HERE
        self._open = _DIRECT.open if here else urllib.request.urlopen

    def instant(self, expression: str, at: float | None = None) -> list[Series]:
        """The series that an expression yields now, or at a Unix time; a range such as `up[5s]`: all samples in it."""
        when = {} if at is None else {"time": f"{at:.3f}"}
        return _series(self._get("query", query=expression, **when))

    def range(self, expression: str, start: float, end: float, step_s: float) -> list[Series]:
        """The series that an expression yields every `step_s` seconds from one Unix time to another."""
        times = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step_s:g}"}
        return _series(self._get("query_range", query=expression, **times))

    def label_values(self, label: str, selector: str, start: float, end: float) -> list[str]:
        """The values of a label among the series that a selector matches between two Unix times."""
        times = {"start": f"{start:.3f}", "end": f"{end:.3f}"}
        values: list[str] = self._get(f"label/{urllib.parse.quote(label)}/values", **{"match[]": selector}, **times)
        return values

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with self._open(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, path: str, **arguments: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with self._open(url, timeout=self._timeout_s) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise QueryRefused(_reason(error)) from error
        except (OSError, ValueError) as error:
            raise Unreachable(f"{self.url}: {getattr(error, 'reason', None) or error}") from error


def running_at(folder: Path) -> str | None:
    """The address that a Prometheus wrote into its folder, where that Prometheus answers."""
    try:
        url = (folder / ADDRESS_FILE).read_text().strip()
    except OSError:
        return None
    return url if url.startswith("http") and PrometheusApi(url).ready() else None


def _series(data: dict[str, Any]) -> list[Series]:
    found = []
    for one in data["result"]:
        pairs = one.get("values") or [one["value"]]
        samples = [(float(at), float(value)) for at, value in pairs if math.isfinite(float(value))]
        if samples:
            found.append(Series(one["metric"], samples))
    return found


def _reason(error: urllib.error.HTTPError) -> str:
    body = error.read().decode("utf-8", "replace")
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code}: {body[:200]}"
