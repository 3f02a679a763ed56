"""Shared studies in databases: PostgreSQL and MySQL, and SQLite for one worker."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage

from meliuscli.errors import BadInputError
from meliuscli.results import cannot_write
from meliuscli.search import backend
from meliuscli.search.backend import BEAT_SECONDS, POLL_SECONDS, Waits, file_lock, guard, no_driver, reached
from meliuscli.work.owner import Owner


class DatabaseBackend:
    """PostgreSQL or MySQL, with Optuna's own heartbeats, which are by the database's clock."""

    def __init__(self, url: str, waits: Waits) -> None:
        import sqlalchemy
        from sqlalchemy import exc

        self.faults: tuple[type[Exception], ...] = (optuna.exceptions.StorageInternalError, exc.DBAPIError)
        parsed = sqlalchemy.make_url(url)
        self.name = parsed.render_as_string(hide_password=True)
        self._kind = parsed.get_backend_name()
        self._database = _connected(url, self._kind, self.name, self.faults, waits)
        self.storage: BaseStorage = optuna.storages._CachedStorage(self._database)
        self._turn: Any = None
        guard(self.storage, self._check_turn)

    @contextmanager
    def turn(self, study: str) -> Iterator[None]:
        from sqlalchemy import exc, text

        take, give = TURNS[self._kind]
        key = {"key": _key(study, self._kind)}
        with self._database.engine.connect() as session:
            session.execution_options(isolation_level="AUTOCOMMIT")
            try:
                while not session.execute(text(take), key).scalar():
                    time.sleep(POLL_SECONDS)
                self._turn = session
                yield
                session.execute(text(give), key)
            except BaseException:
                with suppress(exc.SQLAlchemyError):
                    session.invalidate()  # the lock ends with its connection
                raise
            finally:
                self._turn = None

    def _check_turn(self) -> None:
        """The turn is over when its connection is."""
        from sqlalchemy import text

        if self._turn is not None:
            self._turn.execute(text("SELECT 1"))

    def beat(self, owner: Owner, trial_id: int) -> None:
        self._database.record_heartbeat(trial_id)

    def is_silent(self, owner: Owner, trial_id: int, study_id: int) -> bool:
        return trial_id in self._database._get_stale_trial_ids(study_id)

    def close(self) -> None:
        _disconnect(self._database)


def _disconnect(database: Any) -> None:
    database.scoped_session.remove()
    database.engine.dispose()


TURNS = {
    "postgresql": ("SELECT pg_try_advisory_lock(:key)", "SELECT pg_advisory_unlock(:key)"),
    "mysql": ("SELECT GET_LOCK(:key, 0)", "SELECT RELEASE_LOCK(:key)"),
}


def _key(study: str, kind: str) -> int | str:
    """What stands for a study in locks: PostgreSQL locks numbers of 63 bits, MySQL words of 64 letters."""
    digest = hashlib.sha256(f"meliuscli {study}".encode())
    return digest.hexdigest() if kind == "mysql" else int.from_bytes(digest.digest()[:8]) >> 1


def _connected(
    url: str, kind: str, name: str, faults: tuple[type[Exception], ...], waits: Waits = lambda _: False
) -> Any:
    """Optuna's storage in a database, whose tables several processes may make at the same time."""
    more: dict[str, Any] = {"connect_args": ALIVE[kind]} if kind in ALIVE and "options=" not in url else {}

    def connect() -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return optuna.storages.RDBStorage(
                    url,
                    {"pool_pre_ping": True, **more},
                    heartbeat_interval=BEAT_SECONDS,
                    grace_period=backend.GRACE_SECONDS,
                )
        except ImportError:
            raise no_driver(kind) from None

    return reached(connect, name, faults, waits)


ALIVE = {
    "postgresql": {"options": "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"},
    "mysql": {"init_command": f"SET SESSION wait_timeout = {backend.GRACE_SECONDS}"},
}
"""With it a server ends the session, and with it the turn, of a machine that is gone."""


class SqliteBackend:
    """An SQLite file, for one worker: it locks the whole database and fails where many write."""

    def __init__(self, url: str, create: bool) -> None:
        import filelock
        from sqlalchemy import exc, make_url

        self.faults: tuple[type[Exception], ...] = (optuna.exceptions.StorageInternalError, exc.DBAPIError)
        self.name = url
        database = make_url(url).database
        if not database:
            raise BadInputError(f"--storage {url}: names no file", "for example sqlite:///study.db")
        if not create and not Path(database).is_file():
            raise BadInputError(
                f"{database}: there is no such file", "meliuscli search --study NAME --storage ... makes it"
            )
        self._held = file_lock(Path(database).absolute(), "worker")
        try:
            self._held.acquire(timeout=0)
        except filelock.Timeout:
            raise BadInputError(
                f"--storage {url}: another worker holds it, and SQLite is for one: writers that wait for each other fail"
                ' there with "database is locked", on network file systems it breaks',
                "use a journal file (--storage journal:PATH) or PostgreSQL for several workers",
            ) from None
        except OSError as error:
            raise cannot_write(Path(database), error) from None
        self._database = _connected(url, "sqlite", url, self.faults)
        self.storage: BaseStorage = optuna.storages._CachedStorage(self._database)

    @contextmanager
    def turn(self, study: str) -> Iterator[None]:
        yield

    def beat(self, owner: Owner, trial_id: int) -> None:
        pass

    def is_silent(self, owner: Owner, trial_id: int, study_id: int) -> bool:
        return True  # it does not hold the file any more

    def close(self) -> None:
        _disconnect(self._database)
        self._held.release(force=True)
