"""Where a study's trials are kept: one journal file, in which every trial stands from the moment it is asked for."""

from __future__ import annotations

import json
import os
import shlex
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import optuna
import optuna.storages.journal
from optuna.distributions import BaseDistribution

from meliuscli.errors import BadInputError

JOURNAL_FILE = "journal.log"
"""In the folder of a study."""
STUDY_NAME = "search"
"""Always the same: the folder may be renamed."""
Direction = Literal["maximize", "minimize"]
DIRECTIONS: tuple[Direction, ...] = ("maximize", "minimize")
"""Of a trial's accuracy and its cost."""
LOCK_SECONDS = 2.0
"""A journal's lock is held for one line of it. One that stays the same for so long was left by a killed process."""


def has_study(storage: optuna.storages.BaseStorage, name: str) -> bool:
    """Is there a study of this name?"""
    try:
        storage.get_study_id_from_name(name)
    except KeyError:
        return False
    return True


class OptunaStudy:
    """An Optuna study in a storage, made if need be."""

    def __init__(
        self, storage: optuna.storages.BaseStorage, name: str, directions: Sequence[Direction] = DIRECTIONS
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.storage = storage
        if has_study(storage, name):  # a journal would grow by each ``load_if_exists``
            self.study = optuna.load_study(study_name=name, storage=storage)
        else:
            self.study = optuna.create_study(
                storage=storage, study_name=name, directions=list(directions), load_if_exists=True
            )
        self.id = storage.get_study_id_from_name(name)

    def ask(self, distributions: Mapping[str, BaseDistribution]) -> optuna.trial.Trial:
        """A new trial, or one that waits, with these parameters."""
        with warnings.catch_warnings():
            # A worker beats for its trial; Optuna does so in Study.optimize alone.
            warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)
            return self.study.ask(dict(distributions))

    def running_trial(self, number: int) -> optuna.trial.Trial:
        """A trial that was asked for and not told, whichever process asked."""
        self.study._thread_local.cached_all_trials = None  # which samplers read, and ``ask`` alone renews
        return optuna.trial.Trial(self.study, self.id_of(number))

    def frozen(self, number: int) -> optuna.trial.FrozenTrial:
        """A trial as it stands."""
        return self.storage.get_trial(self.id_of(number))

    def id_of(self, number: int) -> int:
        """What the storage calls a trial of this study."""
        return self.storage.get_trial_id_from_study_id_trial_number(self.id, number)

    def end(self, trial: optuna.trial.FrozenTrial) -> None:
        """End a trial that waits, as failed; Optuna's ``tell`` takes none that nobody asked for."""
        self.storage.set_trial_state_values(self.id_of(trial.number), optuna.trial.TrialState.FAIL)


class Journal(OptunaStudy):
    """An Optuna study in a journal file of one writer. Raises ``BadInputError`` when the file is corrupt."""

    def __init__(self, path: Path) -> None:
        drop_left_lock(path)
        drop_torn_line(path)
        try:
            # The lock is a link to its target: relative, it would point to nowhere and never be seen to grow old.
            absolute = str(path.absolute())
            lock = optuna.storages.journal.JournalFileSymlinkLock(absolute)
            backend = optuna.storages.journal.JournalFileBackend(absolute, lock)
            super().__init__(optuna.storages.JournalStorage(backend), STUDY_NAME)
            require_whole_end(path)
        except UNREADABLE as error:
            raise corrupt(path, error, "--resume trains again what came after, --force all") from None


UNREADABLE = (ValueError, KeyError, TypeError, AssertionError, AttributeError, IndexError, RecursionError)
"""What Optuna raises for a journal that is none."""


def require_whole_end(path: Path) -> None:
    """Raise ``ValueError`` where the last line is no record. Optuna passes over it, and fails once another line follows."""
    lines = path.read_bytes().splitlines()
    if lines and not _is_record(lines[-1]):
        raise ValueError("its last line is no record")


def corrupt(path: Path, error: Exception, way: str) -> BadInputError:
    """The error for a journal that cannot be read, with the line at fault where it is one; ``way`` says what goes on with
    the lines before it."""
    with path.open("rb") as file:
        bad = next((number for number, line in enumerate(file, 1) if not _is_record(line)), None)
    if bad is None:
        return BadInputError(f"{path}: corrupt: {error}", f"restore it; {way}")
    if bad == 1:
        return BadInputError(
            f"{path}: no journal: its first line is no record of a trial", "name another, or restore it"
        )
    hint = f"restore it, or keep its first lines (head -n {bad - 1} {shlex.quote(str(path))}); {way}"
    return BadInputError(f"{path}: corrupt: line {bad} is no record of a trial", hint)


def _is_record(line: bytes) -> bool:
    try:
        return "op_code" in json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return False


def drop_left_lock(path: Path) -> None:
    """Delete the lock of a journal that a killed process left; a lock of somebody who writes now comes and goes."""
    lock = path.with_name(f"{path.name}.lock")
    before, deadline = _identity(lock), time.monotonic() + LOCK_SECONDS
    while before is not None and time.monotonic() < deadline:
        time.sleep(0.05)
        if _identity(lock) != before:
            return
    if before is not None:
        lock.unlink(missing_ok=True)


def _identity(lock: Path) -> tuple[int, int] | None:
    """What tells one lock from the next, of the link itself; None where there is none."""
    try:
        status = os.lstat(lock)
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns


def drop_torn_line(path: Path) -> None:
    """Cut off an unterminated last line, which a kill or a full disk can leave and the next line would be glued to."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.truncate(path.read_bytes().rfind(b"\n") + 1)
