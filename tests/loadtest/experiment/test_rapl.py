"""Energy counters of CPUs, in folders laid out as Linux has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.experiment import rapl
from loadtest.experiment.rapl import Counter, Zone

RANGE = 262_143_328_850


def zone(powercap: Path, folder: str, name: str, energy: int, largest: int = RANGE) -> Path:
    place = powercap / folder
    place.mkdir(parents=True)
    (place / "name").write_text(f"{name}\n")
    (place / "energy_uj").write_text(f"{energy}\n")
    (place / "max_energy_range_uj").write_text(f"{largest}\n")
    return place


@pytest.fixture
def powercap(tmp_path) -> Path:
    """A machine of two packages with memory, as Intel's servers are; and what would be counted twice."""
    for number in (0, 1):
        zone(tmp_path, f"intel-rapl:{number}", f"package-{number}", 1_000_000)
        zone(tmp_path, f"intel-rapl:{number}:0", "core", 500_000)
        zone(tmp_path, f"intel-rapl:{number}:1", "uncore", 100_000)
        zone(tmp_path, f"intel-rapl:{number}:2", "dram", 200_000)
    zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)
    (tmp_path / "intel-rapl").mkdir()  # the control type itself
    (tmp_path / "dtpm").mkdir()
    return tmp_path


def test_packages_and_their_memory_are_counted_once(powercap):
    found = rapl.zones(powercap)
    assert [one.folder.name for one in found] == [
        *("intel-rapl:0", "intel-rapl:0:2", "intel-rapl:1", "intel-rapl:1:2"),
    ]
    counter = Counter(found)
    assert counter.read() == 0.0
    (powercap / "intel-rapl:0" / "energy_uj").write_text("4000000\n")
    (powercap / "intel-rapl:1:2" / "energy_uj").write_text("700000\n")
    (powercap / "intel-rapl:2" / "energy_uj").write_text("99000000\n")
    assert counter.read() == 3.5


def test_an_amd_machine_has_one_package_without_memory(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 5, largest=65_532_610_987)
    zone(tmp_path, "intel-rapl:0:0", "core", 3, largest=65_532_610_987)
    assert rapl.zones(tmp_path) == (Zone(tmp_path / "intel-rapl:0", 65_532_610_987),)


def test_a_counter_that_wraps_goes_on(powercap):
    package = powercap / "intel-rapl:0" / "energy_uj"
    package.write_text(f"{RANGE - 1_000_000}\n")
    counter = Counter(rapl.zones(powercap))
    package.write_text("2000000\n")
    assert counter.read() == pytest.approx(3.0)
    package.write_text("5000000\n")
    assert counter.read() == pytest.approx(6.0)


@given(st.lists(st.integers(0, 999), max_size=30), st.integers(0, 999))
def test_however_often_it_wraps(tmp_path_factory, steps, first):
    folder = zone(tmp_path_factory.mktemp("powercap"), "intel-rapl:0", "package-0", first, largest=1000)
    counter = Counter(rapl.zones(folder.parent))
    at = first
    for step in steps:
        at += step
        (folder / "energy_uj").write_text(str(at % 1000))
        read = counter.read()
        assert read is not None
    assert (counter.read() or 0.0) * 1e6 == pytest.approx(sum(steps))


def test_no_counters(tmp_path):
    assert rapl.zones(tmp_path) == ()
    assert rapl.zones(tmp_path / "absent") == ()


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj"])
@pytest.mark.parametrize("broken", ["", "unreadable"])
def test_where_one_counter_cannot_be_read_none_is(powercap, file, broken):
    """A sum without one of the packages would be too low. A directory cannot be read by root either, who runs CI."""
    path = powercap / "intel-rapl:1" / file
    path.unlink()
    if broken:
        path.mkdir()
    assert rapl.zones(powercap) == ()


def test_a_counter_that_is_taken_away_is_not_known_any_more(powercap):
    counter = Counter(rapl.zones(powercap))
    path = powercap / "intel-rapl:0" / "energy_uj"
    path.unlink()
    assert counter.read() is None
    path.write_text("9000000")
    assert counter.read() is None
