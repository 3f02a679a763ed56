"""How much memory is there, so that what needs more is refused before it takes the machine down."""

from __future__ import annotations

import os
from pathlib import Path

from meliuscli.errors import MissingError

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Of a container, in the two versions of Linux' control groups."""


def available_bytes() -> int | None:
    """What can be taken without pushing others out, where the system tells."""
    found = [number for number in (_of_machine(), *map(_number, _LIMITS)) if number]
    return min(found, default=None)


def require_memory(needed: int, what: str, hint: str) -> None:
    """Raise ``MissingError`` unless ``needed`` bytes are there; ``what`` is the subject of its sentence."""
    available = available_bytes()
    if available is not None and needed > available:
        raise MissingError(
            f"{what} would take about {needed / 2**30:,.1f} GiB of memory, and {available / 2**30:.1f} GiB are free",
            hint,
        )


def lacks_memory(error: BaseException) -> bool:
    """Did an allocation fail? Torch says so in words alone."""
    words = ("allocate memory", "out of memory", "not enough memory")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def _of_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
