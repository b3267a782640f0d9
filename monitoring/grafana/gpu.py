"""GPU: what NVIDIA's DCGM exporter tells of each GPU, and what the servers did meanwhile."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.grafana import board
from monitoring.grafana.board import Row
from monitoring.grafana.measures import native, recorded
from monitoring.grafana.panels import Panel, graph, number
from monitoring.grafana.selection import SERVERS, Query, legend, select, series

_BY = ("Hostname", "gpu")


def build() -> Dashboard:
    """Whether a GPU is the limit, or is limited itself by memory, heat or power."""
    return board.build(
        "tandem-gpu",
        "Tandem / GPU",
        "NVIDIA GPUs by the DCGM exporter; empty where none is scraped.",
        [
            Row(
                "Use",
                _recorded("GPU utilisation", "gpu:utilisation:ratio"),
                _recorded("GPU memory", "gpu:memory:ratio"),
                _native("Memory in use", "DCGM_FI_DEV_FB_USED"),
                _native("Memory bandwidth", "DCGM_FI_DEV_MEM_COPY_UTIL", maximum=1),
            ),
            Row(
                "Limits",
                _native("Power", "DCGM_FI_DEV_POWER_USAGE", width=8),
                _native("Temperature", "DCGM_FI_DEV_GPU_TEMP", width=8),
                _native("Clock", "DCGM_FI_DEV_SM_CLOCK", width=8),
            ),
            Row("Health", _last_error(), _retries()),
            _servers(),
        ],
    )


def _recorded(title: str, name: str) -> Panel:
    measure = recorded(name)
    return graph(title, measure, [series(measure, *_BY)], maximum=1)


def _native(title: str, name: str, *, width: int = 12, maximum: float | None = None) -> Panel:
    measure = native(name)
    expression = measure.scaled(f"max by ({', '.join(_BY)}) ({select(measure)})")
    return graph(title, measure, [Query(expression, legend(*_BY))], width=width, maximum=maximum)


def _last_error() -> Panel:
    errors = native("DCGM_FI_DEV_XID_ERRORS")
    last = Query(f"max by ({', '.join(_BY)}) ({select(errors)})", legend(*_BY))
    return number("Last XID error", errors, [last], width=12)


def _retries() -> Panel:
    retries = native("DCGM_FI_DEV_PCIE_REPLAY_COUNTER")
    grown = f"sum by ({', '.join(_BY)}) (increase({select(retries)}[$__rate_interval]))"
    return graph("PCIe retries", retries, [Query(grown, legend(*_BY))])


def _servers() -> Row:
    rates, saturation = recorded("serving:requests:rate1m"), recorded("serving:saturation:ratio")
    return Row(
        "Meanwhile, the servers",
        graph("Requests", rates, [series(rates)], servers=SERVERS),
        graph("Saturation", saturation, [series(saturation)], servers=SERVERS),
    )
