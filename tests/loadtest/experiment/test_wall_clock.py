from __future__ import annotations

import pytest

from loadtest.experiment.wall_clock import WallClock


class Clocks:
    wall, monotonic = 1_700_000_000.0, 50.0

    def pass_s(self, seconds: float, ahead: float = 0.0) -> None:
        self.monotonic += seconds
        self.wall += seconds + ahead


@pytest.mark.parametrize("step", [-3600.0, 3600.0, 0.7])
def test_a_step_is_noticed_once(step):
    clocks = Clocks()
    clock = WallClock(lambda: clocks.wall, lambda: clocks.monotonic)
    clocks.pass_s(20)
    assert clock.step_s() == 0
    clocks.pass_s(20, step)
    assert clock.step_s() == pytest.approx(step)
    clocks.pass_s(20)
    assert clock.step_s() == 0


def test_slewing_is_no_step():
    clocks = Clocks()
    clock = WallClock(lambda: clocks.wall, lambda: clocks.monotonic)
    for _ in range(100):
        clocks.pass_s(300, 300 * 500e-6)
        assert clock.step_s() == 0
