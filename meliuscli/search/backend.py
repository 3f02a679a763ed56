"""Where several processes share a study: Optuna's storages by URL, with what sharing needs besides. One process at a time
decides what comes next, and each shows that it is alive."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.storages.journal._file import BaseJournalFileLock

from meliuscli.errors import BadInputError, MissingError
from meliuscli.results import cannot_write
from meliuscli.search.storage import drop_left_lock, drop_torn_line
from meliuscli.work.owner import Owner

BEAT_SECONDS, GRACE_SECONDS = 30, 120
"""How often a worker shows that it is alive, and the silence after which others take its trial."""
POLL_SECONDS = 0.05
JOURNAL_FILE = "journal.log"


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


class Watch:
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


class _JournalLock(BaseJournalFileLock):
    """A lock of the file that ends with its process, around Optuna's own, which other programs heed. What remains of the
    latter was left by a killed process, and is soon dropped."""

    def __init__(self, path: Path) -> None:
        self._path, self._process = path, _file_lock(path, "write")
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
        self._watch = Watch()
        if not create and not path.is_file():
            raise MissingError(
                f"{path}: there is no such journal", "meliuscli search --study NAME --storage ... makes one"
            )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._turn = _file_lock(self._path, "turn")
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
        except (ValueError, KeyError, TypeError, AssertionError) as error:
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


def _file_lock(path: Path, use: str) -> Any:
    import filelock

    return filelock.FileLock(path.with_name(f"{path.name}.{use}"), poll_interval=POLL_SECONDS)


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
                    grace_period=GRACE_SECONDS,
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


def first_line(error: BaseException) -> str:
    """What a storage's error says, without what libraries put around it."""
    cause = error.__cause__ or error
    return (str(getattr(cause, "orig", None) or cause).strip() or type(cause).__name__).splitlines()[0]


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
        self._held = _file_lock(Path(database).absolute(), "worker")
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
        self._watch = Watch()
        try:
            backend = optuna.storages.journal.JournalRedisBackend(url)
            self.storage: BaseStorage = optuna.storages.JournalStorage(backend)
        except redis.exceptions.RedisError as error:
            raise MissingError(f"{self.name}: cannot be reached: {error}", "is the server up?") from None

    @contextmanager
    def turn(self, study: str) -> Iterator[None]:
        with self._redis.lock(f"meliuscli:{study}:turn", timeout=GRACE_SECONDS, sleep=POLL_SECONDS):
            yield

    def beat(self, owner: Owner, trial_id: int) -> None:
        self._redis.set(f"meliuscli:alive:{owner.token}", time.time_ns(), ex=10 * GRACE_SECONDS)

    def is_silent(self, owner: Owner, trial_id: int, study_id: int) -> bool:
        return self._watch.is_silent(owner, self._redis.get(f"meliuscli:alive:{owner.token}"))

    def close(self) -> None:
        self._redis.close()


def open_backend(storage: str, directory: Path, create: bool = False) -> Backend:
    """The storage of ``--storage``: a URL, ``journal:PATH`` or a path, or ``journal`` for the file in a study's folder.
    ``create`` makes a file that is not there.

    Raises ``BadInputError`` for what is none, ``MissingError`` where it cannot be reached or its driver is missing."""
    scheme, separator, _ = storage.partition("://")
    if not separator:
        kind, colon, path = storage.partition(":")
        if storage == "journal":
            return JournalBackend(directory / JOURNAL_FILE, create)
        return JournalBackend(Path(path if colon and kind == "journal" else storage), create)
    kind = ALIASES.get(scheme.partition("+")[0], scheme.partition("+")[0])
    if kind == "grpc":
        raise BadInputError(
            f"--storage {storage}: Optuna's gRPC proxy has no lock, so workers would propose at the same time",
            "name the database itself",
        )
    if kind in TURNS:
        return DatabaseBackend(_with_driver(storage, kind))
    if kind == "redis":
        return RedisBackend(storage)
    if kind == "sqlite":
        return SqliteBackend(storage, create)
    raise BadInputError(
        f"--storage: unknown kind {scheme!r}",
        "journal:PATH, postgresql://USER@HOST/DATABASE, mysql://..., redis://HOST, or sqlite:///FILE",
    )


ALIASES = {"postgres": "postgresql", "mariadb": "mysql", "rediss": "redis"}


def _with_driver(url: str, kind: str) -> str:
    """The URL with the driver of our extra where it names none."""
    scheme, _, rest = url.partition("://")
    driver = {"postgresql": "psycopg", "mysql": "pymysql"}[kind]
    return url if "+" in scheme else f"{kind}+{driver}://{rest}"


def without_password(storage: str) -> str:
    """A URL as it may be written down."""
    scheme, separator, rest = storage.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{user.partition(':')[0]}{at}{place}" if separator else storage
