"""What ``--storage`` names: a journal file or the URL of a database."""

from __future__ import annotations

from pathlib import Path

from meliuscli.errors import BadInputError
from meliuscli.search.backend import Backend, Waits
from meliuscli.search.databases import TURNS, DatabaseBackend, SqliteBackend
from meliuscli.search.proxy import ProxyBackend
from meliuscli.search.redis_journal import RedisBackend
from meliuscli.search.shared_journal import JournalBackend
from meliuscli.search.storage import JOURNAL_FILE


def open_backend(storage: str, directory: Path, create: bool = False, waits: Waits = lambda _: False) -> Backend:
    """The storage of ``--storage``: a URL, ``journal:PATH`` or a path, or ``journal`` for the file in a study's folder.
    ``create`` makes a file that is not there; ``waits`` hears that a server does not answer yet.

    Raises ``BadInputError`` for what is none, ``MissingError`` where it cannot be reached or its driver is missing."""
    scheme, separator, _ = storage.partition("://")
    if not separator:
        kind, colon, path = storage.partition(":")
        if storage == "journal":
            return JournalBackend(directory / JOURNAL_FILE, create)
        if not (named := path if colon and kind == "journal" else storage):
            raise BadInputError(
                f"--storage {storage!r}: names no file", "journal:PATH, or journal alone for the study's own"
            )
        return JournalBackend(Path(named), create)
    kind = ALIASES.get(scheme.partition("+")[0], scheme.partition("+")[0])
    if kind == "grpc":
        return ProxyBackend(storage, waits)
    if kind in TURNS:
        return DatabaseBackend(_with_driver(storage, kind), waits)
    if kind == "redis":
        return RedisBackend(storage, waits)
    if kind == "sqlite":
        return SqliteBackend(storage, create)
    raise BadInputError(
        f"--storage: unknown kind {scheme!r}",
        "journal:PATH, postgresql://USER@HOST/DATABASE, mysql://..., redis://HOST, grpc://HOST:PORT, or sqlite:///FILE",
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
