"""A PostgreSQL of one's own: made in a directory of its own, started, stopped, killed. As root it runs as ``postgres``."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import clocks
from disks import Disk

USER = "postgres"


def binaries() -> Path | None:
    """Where the server's programs are; Debian keeps them off the path."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    return next((p for p in [*places, *([Path(on_path).parent] if on_path else [])] if (p / "initdb").exists()), None)


def why_not() -> str | None:
    """Why no server can be started here; None where one can."""
    if binaries() is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    if find_spec("psycopg") is None:
        return "psycopg is not installed (pip install 'meliuscli[postgres]')"
    if os.geteuid() == 0 and (not _has_user() or shutil.which("runuser") is None):
        return f"a server does not run as root, and there is no user {USER} or no runuser"
    return None


def _has_user() -> bool:
    try:
        return pwd.getpwnam(USER) is not None
    except KeyError:
        return False


class Postgres:
    """A server on a free port of this machine; a context manager that deletes it."""

    def __init__(self, has_disk: bool = False) -> None:
        found = binaries()
        assert found is not None
        self._bin = found
        self.directory, self._stack = Path(tempfile.mkdtemp(prefix="postgres-")), ExitStack()
        data = self.directory / "data"
        data.mkdir()
        self.disk = Disk(data, self._stack) if has_disk else None
        if os.geteuid() == 0:
            for place in (self.directory, data):
                shutil.chown(place, USER, USER)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"
        self._run("initdb", "-D", self._data, "-U", USER, "-A", "trust", "--no-sync")

    def __enter__(self) -> Postgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("immediate", check=False)
        self._stack.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _data(self) -> str:
        return str(self.directory / "data")

    def start(self) -> None:
        options = f"-p {self.port} -k {self.directory} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self.directory / "log"), "-o", options, "start")

    def stop(self, mode: str = "fast", check: bool = True) -> None:
        """``fast`` ends all sessions; ``immediate`` is a crash."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", mode, "stop", check=check)

    def revive(self) -> None:
        if self._run("pg_ctl", "-D", self._data, "status", check=False).returncode:
            self.start()

    def said(self) -> str:
        return (self.directory / "log").read_text(encoding="utf-8", errors="replace")

    def reset(self) -> None:
        """Forget all studies."""
        self.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    def kill(self) -> None:
        """Kill the server's first process; it is gone when its port is free again."""
        pid = int((self.directory / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        os.kill(pid, signal.SIGKILL)

    def sql(self, query: str) -> str:
        """The first column of what a query answers."""
        command = ("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-At", "-c", query, "postgres")
        return self._run(*command).stdout.strip()

    def cut(self) -> None:
        """End every session but the one that asks for it."""
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def _run(self, program: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        as_user = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
        command = [*as_user, str(self._bin / program), *words]
        # The server keeps what it inherits open, so a pipe would never end.
        with tempfile.TemporaryFile("w+") as out:
            done = subprocess.run(
                command, stdout=out, stderr=out, cwd="/", timeout=60, check=False, env=clocks.true_environment()
            )
            out.seek(0)
            text = out.read()
        if check and done.returncode:
            raise RuntimeError(f"{program}: {text}")
        return subprocess.CompletedProcess(command, done.returncode, text, text)
