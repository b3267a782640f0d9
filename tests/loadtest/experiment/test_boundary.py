"""What keeps a server from a higher rate, and how abruptly: on trials that were recorded with real servers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.experiment.boundary import Binding, Shape, Start, binding, binds, shape
from loadtest.experiment.records import Latency, Requests, Slip, TrialRecord
from loadtest.experiment.settings import Slo

SLO = Slo(p99_ms=50.0, error_ratio=0.001)


def trial(
    rate: float,
    seconds: float,
    sent: int,
    failed: int,
    p50: float | None,
    p90: float | None,
    p99: float | None,
    in_flight_max: int,
    dropped: int = 0,
    **values: Any,
) -> TrialRecord:
    return TrialRecord(
        target="server",
        protocol="grpc",
        scenario="capacity",
        offered_rate=rate,
        duration_s=seconds,
        requests=Requests(scheduled=sent + dropped, sent=sent, completed=sent, ok=sent - failed, dropped=dropped),
        errors={"status 503": failed} if failed else {},
        latency_ms=Latency(p50=p50, p90=p90, p99=p99),
        in_flight_max=in_flight_max,
        max_in_flight=4096,
        **values,
    )


# Each of two starts on two cores, digits' CNN: TorchServe, and the embedded server with its small batches.
TORCHSERVE_GRPC = (
    Start(
        2600,
        (
            trial(1900, 2.5, 4769, 0, 5.077, 9.376, 12.713, 41),
            trial(2660, 2.5, 6669, 628, 334.959, 545.086, 564.949, 1112),
            trial(2660, 2.5, 6642, 1522, 486.871, 695.963, 735.233, 1098),
            trial(2248, 2.5, 5592, 0, 2.409, 4.362, 9.704, 35),
            trial(2445, 2.5, 6057, 0, 2.473, 3.815, 7.309, 29),
            trial(2550, 2.5, 6356, 0, 2.392, 3.602, 5.562, 25),
        ),
    ),
    Start(
        2550,
        (
            trial(2550, 5.0, 12766, 0, 163.271, 240.074, 259.997, 698),
            trial(2550, 5.0, 12737, 0, 75.386, 177.509, 191.45, 495),
            trial(2445, 5.0, 12309, 0, 2.645, 4.065, 7.196, 33),
            trial(2550, 5.0, 12657, 0, 2.616, 4.024, 7.056, 43),
            trial(2660, 2.5, 6692, 0, 2.535, 3.829, 6.26, 29),
        ),
    ),
)
TORCHSERVE_REST = (
    Start(
        2011,
        (
            trial(1700, 2.5, 4259, 0, 3.483, 5.37, 7.294, 21),
            trial(2380, 2.5, 5904, 945, 508.709, 695.281, 753.593, 1108),
            trial(2011, 2.5, 5023, 0, 6.041, 96.32, 115.7, 238),
            trial(1849, 2.5, 4616, 0, 4.043, 6.417, 8.414, 28),
            trial(1928, 2.5, 4714, 0, 4.833, 7.662, 11.184, 37),
            trial(2011, 2.5, 5144, 0, 4.526, 7.574, 11.539, 41),
        ),
    ),
    Start(
        1960,
        (
            trial(2011, 5.0, 10017, 0, 6.207, 197.218, 238.089, 469),
            trial(1928, 5.0, 9381, 0, 145.51, 222.571, 242.464, 456),
            trial(1928, 5.0, 9691, 0, 4.726, 7.786, 11.349, 40),
            trial(2011, 2.5, 5080, 0, 93.583, 215.434, 233.307, 448),
            trial(1928, 2.5, 4952, 0, 4.804, 8.641, 13.029, 45),
        ),
    ),
)
EMBEDDED_GRPC = (
    Start(
        7660,
        (
            trial(6900, 2.5, 17343, 0, 8.888, 24.12, 30.926, 265),
            trial(9660, 2.5, 24241, 3387, 113.933, 128.804, 141.635, 1275),
            trial(9660, 2.5, 24191, 2965, 111.912, 124.472, 135.476, 1219),
            trial(8164, 2.5, 20478, 0, 51.722, 58.432, 64.051, 573),
            trial(7505, 2.5, 18828, 0, 29.775, 39.367, 44.242, 373),
            trial(7828, 2.5, 19727, 0, 42.496, 51.31, 55.892, 476),
            trial(7828, 5.0, 39451, 0, 35.342, 46.837, 53.131, 469),
        ),
    ),
    Start(
        7600,
        (
            trial(7505, 5.0, 37662, 0, 31.172, 38.985, 43.059, 400),
            trial(7828, 5.0, 39312, 0, 48.571, 71.136, 93.056, 846),
        ),
    ),
)
EMBEDDED_REST = (
    Start(
        5800,
        (
            trial(5500, 2.5, 13634, 0, 5.38, 9.867, 18.242, 134),
            trial(7700, 2.5, 15377, 2434, 599.254, 938.204, 1156.068, 4096, dropped=3862),
            trial(6508, 2.5, 15108, 2102, 443.955, 761.361, 1129.502, 4096, dropped=1223),
            trial(5983, 2.5, 14800, 0, 12.221, 233.668, 341.695, 1542),
            trial(5736, 2.5, 14429, 0, 10.272, 36.889, 65.386, 368),
            trial(5736, 5.0, 28811, 0, 5.778, 10.493, 15.786, 135),
        ),
    ),
    Start(
        5736,
        (
            trial(5736, 5.0, 28670, 0, 103.214, 139.949, 229.802, 1052),
            trial(5500, 5.0, 27636, 0, 8.302, 17.959, 32.806, 221),
            trial(5736, 5.0, 28813, 0, 30.829, 49.083, 62.349, 390),
            trial(5736, 5.0, 28628, 0, 10.007, 19.03, 36.121, 272),
            trial(5983, 2.5, 14686, 0, 122.113, 151.198, 230.911, 1044),
        ),
    ),
)
RECORDED = {
    "TorchServe, gRPC": (TORCHSERVE_GRPC, Binding.LAG, Shape.CLIFF),
    "TorchServe, REST": (TORCHSERVE_REST, Binding.LAG, Shape.CLIFF),
    "embedded, gRPC": (EMBEDDED_GRPC, Binding.P99, Shape.SLOPE),
    "embedded, REST": (EMBEDDED_REST, Binding.LAG, Shape.CLIFF),
}


@pytest.mark.parametrize("server", RECORDED)
def test_recorded_trials_of_real_servers(server):
    starts, binds_it, form = RECORDED[server]
    assert (binding(starts, SLO), shape(starts, SLO)) == (binds_it, form)


@given(st.sampled_from(sorted(RECORDED)), st.floats(0.93, 1.07), st.randoms())
def test_neither_depends_on_the_order_or_on_how_well_the_capacity_is_known(server, off, draw):
    starts, binds_it, form = RECORDED[server]
    mixed = [Start(one.capacity * off, draw.sample(one.trials, len(one.trials))) for one in starts]
    assert (binding(mixed, SLO), shape(mixed, SLO)) == (binds_it, form)


@pytest.mark.parametrize(
    ("one", "what"),
    [
        (trial(1000, 2.5, 2500, 0, 3.0, 5.0, 20.0, 30), Binding.NONE),
        # A tail: the most are answered at once.
        (trial(1000, 2.5, 2500, 0, 3.0, 5.0, 80.0, 90), Binding.P99),
        (trial(1000, 2.5, 2500, 0, 3.0, 5.0, 20.0, 30, slo_p99_ms=50.0, late=20), Binding.P99),
        # A pause of the server: many wait at once, but few of all.
        (trial(1000, 2.5, 2500, 0, 3.0, 8.0, 110.0, 120), Binding.P99),
        # Refused at once, the others in time.
        (trial(1000, 2.5, 2500, 40, 3.0, 5.0, 20.0, 30), Binding.ERRORS),
        (trial(1000, 2.5, 2500, 2500, None, None, None, 30), Binding.ERRORS),
        # A backlog that grew, whether or not its queue was full in the end, and one that had no more room.
        (trial(1000, 2.5, 2500, 0, 100.0, 170.0, 200.0, 210), Binding.LAG),
        (trial(1000, 2.5, 2500, 400, 100.0, 170.0, 200.0, 210), Binding.LAG),
        (trial(1000, 2.5, 2400, 0, 3.0, 5.0, 20.0, 30, dropped=100), Binding.LAG),
    ],
)
def test_what_a_trial_misses(one, what):
    assert binds(one, SLO) is what


def test_the_misses_near_the_capacity_decide_by_majority():
    tail, refused = trial(1050, 2.5, 2600, 0, 3.0, 5.0, 80.0, 90), trial(1100, 2.5, 2700, 40, 3.0, 5.0, 20.0, 30)
    behind = trial(2000, 2.5, 5000, 0, 300.0, 500.0, 600.0, 900)
    assert binding([Start(1000, (refused, tail, refused, behind, behind, behind, behind))], SLO) is Binding.ERRORS
    assert binding([Start(1000, (refused, tail))], SLO) is Binding.P99  # the nearer one
    assert binding([Start(1000, (behind,))], SLO) is Binding.LAG  # none is near
    assert binding([Start(1000, (trial(1000, 2.5, 2500, 0, 3.0, 5.0, 20.0, 30),))], SLO) is Binding.NONE
    assert binding([], SLO) is Binding.NONE


def test_a_trial_that_the_generator_spoiled_decides_nothing():
    late = trial(1000, 2.5, 2500, 0, 200.0, 300.0, 400.0, 900, schedule_slip_ms=Slip(p99=80.0))
    start = Start(1000, (late, trial(990, 2.5, 2500, 0, 3.0, 5.0, 20.0, 30)))
    assert (binding([start], SLO), shape([start], SLO)) == (Binding.NONE, Shape.UNKNOWN)


@pytest.mark.parametrize(
    ("met", "missed", "form"),
    [
        ((980, 7.0), (1020, 250.0), Shape.CLIFF),
        ((1000, 48.0), (1000, 53.0), Shape.SLOPE),  # one rate that meets by chance
        ((960, 35.0), (1040, 70.0), Shape.SLOPE),
        ((850, 7.0), (1200, 60.0), Shape.UNKNOWN),  # too far apart to tell
        ((850, 2.0), (1150, 3000.0), Shape.CLIFF),  # but this would be one anyhow
        ((500, 7.0), (1020, 250.0), Shape.UNKNOWN),  # nothing that meets is near
    ],
)
def test_a_cliff_is_where_twice_the_latency_buys_hardly_any_rate(met, missed, form):
    trials = tuple(trial(rate, 2.5, int(2.5 * rate), 0, 3.0, p99, p99, 50) for rate, p99 in (met, missed))
    assert shape([Start(1000, trials)], SLO) is form


def test_starts_that_differ_are_compared_at_their_own_capacities():
    """The server's starts lie 40 % apart, so one's misses are at rates that the other meets."""

    def start(capacity: float) -> Start:
        points = ((0.95, 38.0), (0.98, 46.0), (1.02, 55.0), (1.06, 70.0))
        return Start(capacity, tuple(trial(capacity * x, 2.5, 2500, 0, 3.0, 5.0, p99, 50) for x, p99 in points))

    assert shape([start(800), start(1120)], SLO) is Shape.SLOPE


def test_errors_say_nothing_of_how_latency_grows():
    trials = (trial(980, 2.5, 2450, 0, 3.0, 5.0, 20.0, 30), trial(1020, 2.5, 2550, 40, 3.0, 5.0, 21.0, 30))
    assert shape([Start(1000, trials)], SLO) is Shape.UNKNOWN
