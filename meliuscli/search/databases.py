"""Shared studies in databases: PostgreSQL and MySQL, Redis, and SQLite for one worker."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import optuna.storages.journal
from optuna.storages import BaseStorage

from meliuscli.errors import BadInputError, MissingError
from meliuscli.results import cannot_write
from meliuscli.search import backend
from meliuscli.search.backend import BEAT_SECONDS, POLL_SECONDS, SilenceWatch, file_lock, first_line
from meliuscli.work.owner import Owner


class DatabaseBackend:
    """PostgreSQL or MySQL, with Optuna's own heartbeats, which are by the database's clock."""

    def __init__(self, url: str) -> None:
        import sqlalchemy
        from sqlalchemy import exc

        self.faults: tuple[type[Exception], ...] = (optuna.exceptions.StorageInternalError, exc.DBAPIError)
        parsed = sqlalchemy.make_url(url)
        self.name = parsed.render_as_string(hide_password=True)
        self._kind = parsed.get_backend_name()
        self._database = _connected(url, self._kind, self.name, self.faults)
        self.storage: BaseStorage = optuna.storages._CachedStorage(self._database)
        self._session: Any = None

    @contextmanager
    def turn(self, study: str) -> Iterator[None]:
        from sqlalchemy import exc, text

        take, give = TURNS[self._kind]
        key = {"key": _key(study)}
        if self._session is None or self._session.invalidated:
            self._session = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            while not self._session.execute(text(take), key).scalar():
                time.sleep(POLL_SECONDS)
            yield
            self._session.execute(text(give), key)
        except BaseException:
            with suppress(exc.SQLAlchemyError):
                self._session.invalidate()  # the lock ends with its connection
            self._session = None
            raise

    def beat(self, owner: Owner, trial_id: int) -> None:
        self._database.record_heartbeat(trial_id)

    def is_silent(self, owner: Owner, trial_id: int, study_id: int) -> bool:
        return trial_id in self._database._get_stale_trial_ids(study_id)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
        _disconnect(self._database)


def _disconnect(database: Any) -> None:
    database.scoped_session.remove()
    database.engine.dispose()


TURNS = {
    "postgresql": ("SELECT pg_try_advisory_lock(:key)", "SELECT pg_advisory_unlock(:key)"),
    "mysql": ("SELECT GET_LOCK(:key, 0)", "SELECT RELEASE_LOCK(:key)"),
}
DRIVERS = {"postgresql": "postgres", "mysql": "mysql", "redis": "redis"}
"""Kind of a storage -> the extra with its driver."""


def _key(study: str) -> int:
    """A number of 63 bits for the name of a study."""
    return int.from_bytes(hashlib.sha256(f"meliuscli {study}".encode()).digest()[:8]) >> 1


def _connected(url: str, kind: str, name: str, faults: tuple[type[Exception], ...]) -> Any:
    """Optuna's storage in a database, whose tables several processes may make at the same time."""
    # A server ends the session, and with it the turn, of a machine that is gone.
    alive = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
    more: dict[str, Any] = (
        {"connect_args": {"options": alive}} if kind == "postgresql" and "options=" not in url else {}
    )
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
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
            raise _no_driver(kind) from None
        except faults as error:
            reason = first_line(error)
            refused = "FATAL" in reason and not any(word in reason for word in PASSING)
            if refused or time.monotonic() > deadline:
                raise MissingError(
                    f"{name}: cannot be reached: {reason}", "is the server up, and the URL right?"
                ) from None
            time.sleep(1.0)


CONNECT_SECONDS = 45.0
"""How long a server that does not answer is waited for at the start."""
PASSING = ("starting up", "shutting down", "recovery", "too many", "remaining connection slots")
"""What servers refuse connections for that passes."""


def _no_driver(kind: str) -> MissingError:
    return MissingError(f"no driver for {kind} is installed", f"pip install 'meliuscli[{DRIVERS[kind]}]'")


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
            raise MissingError(
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


class RedisBackend:
    """Optuna's journal in Redis."""

    def __init__(self, url: str) -> None:
        try:
            import redis
        except ImportError:
            raise _no_driver("redis") from None
        self.faults: tuple[type[Exception], ...] = (redis.exceptions.RedisError,)
        self.name = url.rpartition("@")[2] if "@" in url else url
        self._redis = redis.Redis.from_url(url)
        self._watch = SilenceWatch()
        try:
            backend = optuna.storages.journal.JournalRedisBackend(url)
            self.storage: BaseStorage = optuna.storages.JournalStorage(backend)
        except redis.exceptions.RedisError as error:
            raise MissingError(f"{self.name}: cannot be reached: {error}", "is the server up?") from None

    @contextmanager
    def turn(self, study: str) -> Iterator[None]:
        with self._redis.lock(f"meliuscli:{study}:turn", timeout=backend.GRACE_SECONDS, sleep=POLL_SECONDS):
            yield

    def beat(self, owner: Owner, trial_id: int) -> None:
        self._redis.set(f"meliuscli:alive:{owner.token}", time.time_ns(), ex=10 * backend.GRACE_SECONDS)

    def is_silent(self, owner: Owner, trial_id: int, study_id: int) -> bool:
        return self._watch.is_silent(owner, self._redis.get(f"meliuscli:alive:{owner.token}"))

    def close(self) -> None:
        self._redis.close()
