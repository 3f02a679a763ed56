"""Servers of one's own for shared studies: started, stopped, killed, their connections cut."""

from __future__ import annotations

import getpass
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Protocol, Self

import clocks
import postgres
from disks import Disk

FULL = re.compile(r"No space left|Short write|disk (is )?full|is full|[Ee]rror(code)?:? 28\b")
"""How a server's log says that its disk is."""


class Server(Protocol):
    """A server on a free port of this machine; a context manager that deletes it."""

    url: str
    disk: Disk | None
    """That of its data, where one of its own can be had here."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def start(self) -> None:
        """Start it and wait until it answers."""

    def stop(self, mode: str = "fast") -> None:
        """``fast`` ends all sessions; ``immediate`` is a crash."""

    def cut(self) -> None:
        """End every connection."""

    def reset(self) -> None:
        """Forget all studies."""

    def revive(self) -> None:
        """Start it again if it has ended by itself."""

    def said(self) -> str:
        """Its log."""


class Spawned:
    """A server that is one process."""

    def __init__(self, has_disk: bool = False) -> None:
        self.directory, self._stack = Path(tempfile.mkdtemp(prefix="server-")), ExitStack()
        self.data = self.directory / "data"
        self.data.mkdir()
        self.disk = Disk(self.data, self._stack) if has_disk else None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")
        self._stack.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clocks.true_environment()
            )
        deadline = time.monotonic() + 60.0
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self.said()[-2000:])
            time.sleep(0.1)

    def stop(self, mode: str = "fast") -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM if mode == "fast" else signal.SIGKILL)
            self._process.wait(60)
            self._process = None

    def revive(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self.start()

    def said(self) -> str:
        return (self.directory / "log").read_text(encoding="utf-8", errors="replace")

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def run(*words: str) -> str:
    return subprocess.run(
        words, capture_output=True, text=True, timeout=60, check=True, env=clocks.true_environment()
    ).stdout


class MariaDB(Spawned):
    def __init__(self, has_disk: bool = False) -> None:
        super().__init__(has_disk)
        self.url = f"mysql://root@127.0.0.1:{self.port}/optuna"
        more = ("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
        run("mariadb-install-db", "--no-defaults", *self._where(), *more)

    def _where(self) -> list[str]:
        return [f"--datadir={self.data}", f"--user={getpass.getuser()}"]

    def command(self) -> list[str]:
        socket_ = f"--socket={self.directory / 'socket'}"
        net = [f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve", socket_]
        # A commit reaches the system, which a crash of the server leaves alone, and not the disk.
        return [_program("mariadbd"), "--no-defaults", *self._where(), *net, "--innodb-flush-log-at-trx-commit=2"]

    def start(self) -> None:
        super().start()
        self.sql("CREATE DATABASE IF NOT EXISTS optuna")

    def sql(self, query: str) -> str:
        return run("mariadb", "--no-defaults", "-uroot", f"-S{self.directory / 'socket'}", "-BN", "-e", query)

    def _answers(self) -> bool:
        try:
            return bool(self.sql("SELECT 1"))
        except subprocess.CalledProcessError:
            return False

    def cut(self) -> None:
        others = "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND db = 'optuna'"
        for number in self.sql(others).split():
            with suppress(subprocess.CalledProcessError):  # it may have ended meanwhile
                self.sql(f"KILL {number}")

    def reset(self) -> None:
        self.sql("DROP DATABASE optuna; CREATE DATABASE optuna")


class Redis(Spawned):
    """One that has everything on disk before it answers; with snapshots alone, a crash forgets what came since the last."""

    def __init__(self, has_disk: bool = False) -> None:
        super().__init__(has_disk)
        self.url = f"redis://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        return ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.data), *durable]

    def _redis(self, *words: str) -> str:
        return run("redis-cli", "-p", str(self.port), *words)

    def _answers(self) -> bool:
        try:
            return self._redis("PING").strip() == "PONG"
        except subprocess.CalledProcessError:
            return False

    def cut(self) -> None:
        self._redis("CLIENT", "KILL", "TYPE", "normal")

    def reset(self) -> None:
        self._redis("FLUSHALL")


class Proxy(Spawned):
    """Optuna's gRPC proxy in front of an SQLite file. It has one process, so that to cut connections is to restart it."""

    def __init__(self, has_disk: bool = False) -> None:
        super().__init__(has_disk)
        self.url = f"grpc://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        code = (
            "import sys; from optuna.storages import get_storage, run_grpc_proxy_server as run\n"
            "run(get_storage(sys.argv[1]), host='127.0.0.1', port=int(sys.argv[2]))"
        )
        return [sys.executable, "-W", "ignore", "-c", code, self._database(), str(self.port)]

    def _database(self) -> str:
        return f"sqlite:///{self.data / 'all.db'}"

    def cut(self) -> None:
        self.stop()
        self.start()

    def reset(self) -> None:
        self.stop()
        (self.data / "all.db").unlink(missing_ok=True)
        self.start()


class ProxyOfServer(Proxy):
    """The proxy in front of a database that is a server: that one is stopped and started, and to cut connections is to kill the
    proxy and start it again."""

    behind: ClassVar[type[Server]]
    driver: ClassVar[str]

    def __init__(self, has_disk: bool = False) -> None:
        super().__init__()
        self.database = self.behind(has_disk)  # type: ignore[call-arg]
        self.disk = self.database.disk
        self._is_up = False

    def _database(self) -> str:
        return self.driver + self.database.url[self.database.url.index("://") :]

    def __exit__(self, *_: object) -> None:
        super().stop("immediate")
        self._stack.close()
        self.database.__exit__()

    def start(self) -> None:
        if not self._is_up:
            self.database.start()
            self._is_up = True
        if self._process is None:
            super().start()

    def stop(self, mode: str = "fast") -> None:
        self.database.stop(mode)
        self._is_up = False

    def cut(self) -> None:
        super().stop("immediate")
        super().start()

    def reset(self) -> None:
        super().stop("immediate")
        self.database.reset()
        super().start()

    def revive(self) -> None:
        self.database.revive()
        super().revive()

    def said(self) -> str:
        return self.database.said()


class ProxyOfPostgres(ProxyOfServer):
    behind, driver = postgres.Postgres, "postgresql+psycopg"


class ProxyOfMariaDB(ProxyOfServer):
    behind, driver = MariaDB, "mysql+pymysql"


def _program(name: str) -> str:
    return shutil.which(name) or f"/usr/sbin/{name}"


def _lacks(program: str, package: str, module: str, extra: str) -> str | None:
    if not Path(_program(program)).exists():
        return f"{program} is not installed (apt-get install {package})"
    return _lacks_module(module, extra)


def _lacks_module(module: str, extra: str) -> str | None:
    return None if find_spec(module) is not None else f"{module} is not installed (pip install 'meliuscli[{extra}]')"


SERVERS: dict[str, type[Server]] = {
    "postgresql": postgres.Postgres,
    "mysql": MariaDB,
    "redis": Redis,
    "grpc": Proxy,
    "grpc-postgresql": ProxyOfPostgres,
    "grpc-mysql": ProxyOfMariaDB,
}


def why_not(name: str) -> str | None:
    """Why a server of this kind cannot be started here; None where one can."""
    if name == "postgresql":
        return postgres.why_not()
    if name == "mysql":
        return _lacks("mariadbd", "mariadb-server", "pymysql", "mysql")
    if name == "redis":
        return _lacks("redis-server", "redis-server", "redis", "redis")
    reason = why_not(name.removeprefix("grpc-")) if name != "grpc" else None
    return reason or _lacks_module("grpc", "grpc")
