"""What sharing a study needs beside Optuna's storage: one process at a time decides what comes next, and each shows that it is
alive."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from meliuscli.errors import MissingError
from meliuscli.work.listener import Listener
from meliuscli.work.owner import Owner

BEAT_SECONDS, GRACE_SECONDS = 30, 120
"""How often a worker shows that it is alive, and the silence after which others take its trial."""
POLL_SECONDS = 0.05
Value = TypeVar("Value")


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


def guard(storage: BaseStorage, check: Callable[[], None]) -> None:
    """Let a storage make a trial only where ``check`` raises nothing: in a turn that is over it would be one too many. All
    else that a turn writes is the same whoever writes it."""
    make = storage.create_new_trial

    def create_new_trial(study_id: int, template_trial: FrozenTrial | None = None) -> int:
        check()
        return make(study_id, template_trial)

    storage.create_new_trial = create_new_trial  # type: ignore[method-assign]


def file_lock(path: Path, use: str) -> Any:
    """A lock of a file that ends with its process, for one use of the file."""
    import filelock

    return filelock.FileLock(path.with_name(f"{path.name}.{use}"), poll_interval=POLL_SECONDS)


def first_line(error: BaseException) -> str:
    """What a storage's error says, without what libraries put around it."""
    cause = error.__cause__ or error
    details = getattr(cause, "details", None)  # gRPC's
    said = details() if callable(details) else getattr(cause, "orig", None)
    return (str(said or cause).strip() or type(cause).__name__).splitlines()[0]


Waits = Callable[[str], bool]
"""Hears why a server is waited for, before each wait; is it given up?"""


def told_once(listener: Listener, is_given_up: Callable[[], bool] = lambda: False) -> Waits:
    """Tells why a server is waited for, the first time."""
    told: list[str] = []

    def waits(reason: str) -> bool:
        if not told:
            listener.talk(f"{reason}; it is waited for, for up to {CONNECT_SECONDS:.0f} s ...")
        told.append(reason)
        return is_given_up()

    return waits


def reached(
    connect: Callable[[], Value], name: str, faults: tuple[type[Exception], ...], waits: Waits = lambda _: False
) -> Value:
    """What connecting to a server gives. Raises ``MissingError`` where it refuses or does not answer for long, and what
    ``waits`` raises."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return connect()
        except faults as error:
            reason = first_line(error)
            refused = any(word in reason for word in REFUSED)
            if refused or time.monotonic() > deadline or waits(f"{name}: cannot be reached: {reason}"):
                raise MissingError(
                    f"{name}: cannot be reached: {reason}", "is the server up, and the URL right?"
                ) from None
            time.sleep(1.0)


CONNECT_SECONDS = 45.0
"""How long a server that does not answer is waited for at the start."""
REFUSED = (
    *("authentication failed", "does not exist", "no pg_hba.conf entry", "not permitted", "no password supplied"),
    *("Access denied", "Unknown database"),
    *("invalid username", "Authentication required"),
)
"""How PostgreSQL, MySQL and Redis refuse for good; all else that they say may pass."""
DRIVERS = {"postgresql": "postgres", "mysql": "mysql", "redis": "redis", "grpc": "grpc"}
"""Kind of a storage -> the extra with its driver."""


def no_driver(kind: str) -> MissingError:
    """What to say where a storage's driver is missing."""
    return MissingError(f"no driver for {kind} is installed", f"pip install 'meliuscli[{DRIVERS[kind]}]'")
