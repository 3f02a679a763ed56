"""What sharing a study needs beside Optuna's storage: one process at a time decides what comes next, and each shows that it is
alive."""

from __future__ import annotations

import time
from collections.abc import Hashable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from optuna.storages import BaseStorage

from meliuscli.work.owner import Owner

BEAT_SECONDS, GRACE_SECONDS = 30, 120
"""How often a worker shows that it is alive, and the silence after which others take its trial."""
POLL_SECONDS = 0.05


class Backend(Protocol):
    """A storage that workers share. ``name`` shows no password."""

    storage: BaseStorage
    name: str
    faults: tuple[type[Exception], ...]
    """What it raises while it cannot be reached."""

    def turn(self, study: str) -> AbstractContextManager[None]:
        """Be the one process that decides for a study. It is over when the process is."""

    def beat(self, owner: Owner, trial_id: int) -> None:
        """Show that the owner of a trial is alive."""

    def is_silent(self, owner: Owner, trial_id: int, study_id: int) -> bool:
        """Has a far owner of a trial not shown itself for ``GRACE_SECONDS``?"""

    def close(self) -> None:
        """Let go of connections and locks."""


class SilenceWatch:
    """Silence by this process's own clock: others' clocks may be wrong, and may jump."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Hashable, float]] = {}

    def is_silent(self, owner: Owner, sign: Hashable) -> bool:
        """Has the sign of an owner not changed for so long?"""
        now = time.monotonic()
        before, since = self._seen.get(owner.token, (None, now))
        if owner.token not in self._seen or before != sign:
            self._seen[owner.token] = (sign, now)
            return False
        return now - since > GRACE_SECONDS


def file_lock(path: Path, use: str) -> Any:
    """A lock of a file that ends with its process, for one use of the file."""
    import filelock

    return filelock.FileLock(path.with_name(f"{path.name}.{use}"), poll_interval=POLL_SECONDS)


def first_line(error: BaseException) -> str:
    """What a storage's error says, without what libraries put around it."""
    cause = error.__cause__ or error
    return (str(getattr(cause, "orig", None) or cause).strip() or type(cause).__name__).splitlines()[0]
