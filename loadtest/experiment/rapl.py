"""The energy counters of this machine's CPUs, as Linux shows them: RAPL, which AMD's CPUs have behind the same names.

https://docs.kernel.org/power/powercap/powercap.html. Since Linux 5.10 only root may read them (CVE-2020-8694), unless
the administrator lets others (`chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj`, until the next start).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Zone:
    """A counter: its folder, and the microjoules after which it begins at 0 again."""

    folder: Path
    range_uj: int


def zones(powercap: Path = POWERCAP) -> tuple[Zone, ...]:
    """The counters of all packages, and of their memory, which the packages' do not hold; empty where one of them
    cannot be read. Left out are parts of a package, `psys`, which holds packages, and `intel-rapl-mmio`, which counts
    them once more."""
    found = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        try:
            if (folder / "name").read_text().strip().startswith(("package", "dram")):
                (folder / "energy_uj").read_text()
                found.append(Zone(folder, int((folder / "max_energy_range_uj").read_text())))
        except (OSError, ValueError):
            return ()
    return tuple(found)


class Counter:
    """Joules that all ``zones`` together have counted since it was made; to be read more often than a counter wraps,
    which takes minutes."""

    def __init__(self, zones: tuple[Zone, ...]) -> None:
        self._zones = zones
        self._last = [_energy_uj(zone) for zone in zones]
        self._counted_uj = 0

    def read(self) -> float | None:
        """Joules; None, for good, where a counter cannot be read any more."""
        for place, zone in enumerate(self._zones):
            now, before = _energy_uj(zone), self._last[place]
            if now is None or before is None:
                self._last[place] = None
                continue
            self._counted_uj += now - before + (zone.range_uj if now < before else 0)
            self._last[place] = now
        return None if None in self._last else self._counted_uj / 1e6


def _energy_uj(zone: Zone) -> int | None:
    try:
        return int((zone.folder / "energy_uj").read_text())
    except (OSError, ValueError):
        return None
