"""Do the threads of a training wait for a core longer than they work? On a machine that others use they do, each for all."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TASKS = Path("/proc/self/task")


class Scheduled(NamedTuple):
    """Seconds that the threads of this process have worked, and that they have waited for a core."""

    worked: float
    waited: float


def scheduled() -> Scheduled | None:
    """What Linux has counted up to now (proc(5), ``schedstat``); None on other systems."""
    worked = waited = 0
    for task in TASKS.iterdir() if TASKS.is_dir() else ():
        with suppress(OSError, ValueError):  # a thread that has ended, a kernel that does not count
            ran, queued, _ = map(int, (task / "schedstat").read_text().split())
            worked, waited = worked + ran, waited + queued
    return Scheduled(worked / 1e9, waited / 1e9) if worked else None


def waiting_warning(before: Scheduled | None, now: Scheduled | None, threads: int) -> str | None:
    """What to say when ``threads`` threads have waited longer than worked since ``before``."""
    if before is None or now is None or threads == 1:
        return None
    worked, waited = now.worked - before.worked, now.waited - before.waited
    if waited <= worked:
        return None
    return (
        f"warning: the {threads} threads of this training wait {waited / max(worked, 1e-9):.1f} times as long for a core as they"
        " work, since others use this machine: --threads 1 is faster then"
    )
