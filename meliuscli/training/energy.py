"""Energy of the machine's processors, where the system lets it be read."""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules of all processor packages since it was made, whatever ran on them: Linux's RAPL counters (microjoules).

    The counters start again at 0 from time to time (after minutes at full load), so ``read`` has to be called now and
    then. None where there are no counters or only root may read them."""

    def __init__(self, directory: Path = POWERCAP) -> None:
        # intel-rapl:0 is a package (AMD's too); intel-rapl:0:0 a part of it.
        zones = [zone for zone in sorted(directory.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self._joules = 0.0
        self._last = {zone: value for zone in zones if (value := _number(zone / "energy_uj")) is not None}

    def read(self) -> float | None:
        """Joules so far."""
        for zone, before in self._last.items():
            now = _number(zone / "energy_uj")
            if now is None:
                continue
            wrapped = (_number(zone / "max_energy_range_uj") or 0) if now < before else 0
            self._joules += (now - before + wrapped) / 1e6
            self._last[zone] = now
        return self._joules if self._last else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
