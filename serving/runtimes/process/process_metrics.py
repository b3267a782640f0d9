"""CPU time and memory of servers and all that they started, as a metrics page: read from /proc when it is scraped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import psutil
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serving import ports


class ProcessMetrics:
    """The page's server, on loopback at `port`; a thread of this process.

    `tandem_process_cpu_seconds_total{server}` counts user and system time of the tree; where one of its processes ends,
    the counter falls, which Prometheus takes for a restart. `tandem_process_memory_bytes{server}` is resident memory; a
    page that two processes share counts twice.
    """

    def __init__(self) -> None:
        self._roots: Mapping[str, int] = {}
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        (self.port,) = ports.free(1)
        self._server, self._thread = start_http_server(self.port, ports.LOOPBACK, registry)

    def watch(self, roots: Mapping[str, int]) -> None:
        """Show these servers (name to id of the first process) from now on."""
        self._roots = dict(roots)

    def stop(self) -> None:
        """Stop serving the page."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def collect(self) -> Iterator[Metric]:
        """Prometheus client's collector interface."""
        cpu = CounterMetricFamily("tandem_process_cpu_seconds", "User and system time of the tree", labels=["server"])
        memory = GaugeMetricFamily("tandem_process_memory_bytes", "Resident memory of the tree", labels=["server"])
        for server, root in self._roots.items():
            seconds, resident = _tree(root)
            if resident:
                cpu.add_metric([server], seconds)
                memory.add_metric([server], resident)
        yield cpu
        yield memory


def _tree(root: int) -> tuple[float, float]:
    """CPU seconds and resident bytes of a process and its descendants; zeros where it is gone."""
    seconds = resident = 0.0
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(root)
        for process in [first, *first.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # it may end meanwhile
                times = process.cpu_times()
                seconds += times.user + times.system
                resident += process.memory_info().rss
    return seconds, resident
