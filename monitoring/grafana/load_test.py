"""Load test: what the generator offered, what came back, and whether the measurement counts."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.grafana import board
from monitoring.grafana.board import Row
from monitoring.grafana.measures import Measure, native, recorded
from monitoring.grafana.panels import Panel, graph, heat_map, number, states
from monitoring.grafana.selection import SERVERS, TRIALS, Query, legend, rate, select, series

_BY = ("target", "protocol", "phase")
_VALID = {"0": ("not valid", "red"), "1": ("valid", "green")}


def build() -> Dashboard:
    """Whether a running load test measures the server, and what it sees."""
    return board.build(
        "tandem-load-test",
        "Tandem / Load test",
        "The client's side. Latency counts from when a request was due; a measurement that is not valid says nothing "
        "about the server.",
        [_validity(), _rates(), _latency(), _failures(), _servers()],
    )


def _line(name: str, note: str = "") -> Query:
    measure = recorded(name)
    aggregate = "sum" if measure.adds_up else "max"
    return Query(f"{aggregate} by ({', '.join(_BY)}) ({select(measure)})", legend(*_BY, note=note))


def _graph(title: str, *names: str, width: int = 12) -> Panel:
    lines = [_line(name, name.split(":")[1] if len(names) > 1 else "") for name in names]
    return graph(title, recorded(names[0]), lines, width=width)


def _validity() -> Row:
    valid, slip = recorded("loadtest:valid"), recorded("loadtest:slip_seconds:p99")
    worst = Query(f"min by ({', '.join(_BY)}) ({select(valid)})", legend(*_BY))
    return Row(
        "Does the measurement count?",
        states("Valid", valid, [worst], words=_VALID),
        number("Schedule slip p99", slip, [_line(slip.name)]),
        number("Dropped", recorded("loadtest:dropped:rate1m"), [_line("loadtest:dropped:rate1m")]),
        _graph("Schedule slip, p99", "loadtest:slip_seconds:p99"),
        _heat_map("Schedule slip", native("tandem_loadtest_schedule_slip_seconds")),
    )


def _rates() -> Row:
    return Row(
        "Offered and achieved",
        _graph(
            "Offered, sent and completed",
            "loadtest:offered:rate1m",
            "loadtest:sent:rate1m",
            "loadtest:completed:rate1m",
        ),
        _graph("In flight", "loadtest:inflight"),
    )


def _latency() -> Row:
    p50, p99 = "loadtest:latency_seconds:p50", "loadtest:latency_seconds:p99"
    return Row(
        "Latency, seen by the client",
        _heat_map("Client latency", native("tandem_loadtest_latency_seconds")),
        graph("Client latency, p50 and p99", recorded(p99), [_line(p50, "p50"), _line(p99, "p99")]),
    )


def _failures() -> Row:
    failed = native("tandem_loadtest_failed_requests_total")
    by_kind = f"sum by (target, protocol, kind) ({rate(select(failed))})"
    return Row(
        "Failures",
        _graph("Failed and dropped", "loadtest:failed:rate1m", "loadtest:dropped:rate1m"),
        graph("Failures by kind", failed, [Query(by_kind, legend("target", "protocol", "kind"))]),
    )


def _servers() -> Row:
    rates, latency = recorded("serving:requests:rate1m"), recorded("serving:request_latency_seconds:p99")
    return Row(
        "Meanwhile, the servers",
        graph("Requests answered, by the servers' count", rates, [series(rates)], servers=SERVERS),
        graph("Latency inside the servers, p99", latency, [series(latency)], servers=SERVERS),
    )


def _heat_map(title: str, measure: Measure) -> Panel:
    buckets = rate(select(measure, TRIALS, suffix="_bucket"))
    return heat_map(title, measure, Query(f"sum by (le) ({buckets})", "{{le}}"))
