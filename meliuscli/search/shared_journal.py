"""A journal file that several processes write: mended after kills, and shared through locks that end with their process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import optuna.storages.journal
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.storages.journal._file import BaseJournalFileLock

from meliuscli.errors import BadInputError, MissingError
from meliuscli.results import cannot_write
from meliuscli.search.backend import SilenceWatch, file_lock
from meliuscli.search.storage import CORRUPT, drop_left_lock, drop_torn_line
from meliuscli.work.owner import Owner


class _JournalLock(BaseJournalFileLock):
    """A lock of the file that ends with its process, around Optuna's own, which other programs heed. What remains of the
    latter was left by a killed process, and is soon dropped."""

    def __init__(self, path: Path) -> None:
        self._path, self._process = path, file_lock(path, "write")
        self._optuna = JournalFileSymlinkLock(str(path))

    def acquire(self) -> bool:
        self._process.acquire()
        drop_left_lock(self._path)
        drop_torn_line(self._path)
        return bool(self._optuna.acquire())

    def release(self) -> None:
        try:
            self._optuna.release()
        finally:
            self._process.release()


class JournalBackend:
    """A journal file on a file system that all workers see, and that locks files."""

    faults: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, path: Path, create: bool) -> None:
        self._path, self.name = path.absolute(), str(path)
        self._watch = SilenceWatch()
        if path.is_dir():
            raise BadInputError(f"--storage journal:{path}: is a directory", "name a file: journal:PATH")
        if not create and not path.is_file():
            raise MissingError(
                f"{path}: there is no such journal", "meliuscli search --study NAME --storage ... makes one"
            )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._turn = file_lock(self._path, "turn")
            lock = _JournalLock(self._path)
            lock.acquire()  # mends what a killed process left
            for left in self._path.parent.glob(f"{self._path.name}.lock*.rename"):
                left.unlink(missing_ok=True)
            lock.release()
            backend = JournalFileBackend(str(self._path), lock)
            self.storage: BaseStorage = optuna.storages.JournalStorage(backend)
        except NotImplementedError:
            hint = "mount it with locks (Lustre: -o flock), or use a database"
            raise MissingError(f"{path}: this file system does not lock files", hint) from None
        except OSError as error:
            raise cannot_write(path, error) from None
        except CORRUPT as error:
            raise BadInputError(f"{path}: corrupt: {error}", "restore it, or name another") from None

    @contextmanager
    def turn(self, study: str) -> Iterator[None]:
        with self._turn:
            yield

    def beat(self, owner: Owner, trial_id: int) -> None:
        sign = self._sign(owner)
        sign.parent.mkdir(exist_ok=True)
        sign.write_text(str(time.time_ns()), encoding="utf-8")

    def is_silent(self, owner: Owner, trial_id: int, study_id: int) -> bool:
        try:
            sign = self._sign(owner).read_text(encoding="utf-8")
        except OSError:
            sign = ""
        return self._watch.is_silent(owner, sign)

    def close(self) -> None:
        self._turn.release(force=True)

    def _sign(self, owner: Owner) -> Path:
        return self._path.with_name(f"{self._path.name}.alive") / owner.token
