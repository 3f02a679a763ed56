"""Processes that have loaded torch and its kin, in which a command runs as in one of its own, but some seconds sooner.

A server loads the libraries, nothing of ours, and forks for every command. What a command reads before it runs (``PYTHON...``)
needs a process of its own; so does whoever asks what a command loads."""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path


class Forks:
    """A server and its commands, one at a time."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)

    def run(
        self, args: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """``meliuscli ARGS``, by default in our environment without colours. Raises ``subprocess.TimeoutExpired``, and is of no more use then."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.TemporaryDirectory() as place:
            streams = [Path(place, name) for name in ("stdout", "stderr")]
            asked = {
                "args": list(map(str, args)),
                "cwd": str(cwd),
                "environment": environment or {**os.environ, "NO_COLOR": "1"},
            }
            print(json.dumps({**asked, "streams": list(map(str, streams))}), file=self._server.stdin, flush=True)
            if not select.select([self._server.stdout], [], [], timeout)[0]:
                self.close()
                raise subprocess.TimeoutExpired(["meliuscli", *args], timeout)
            code = int(self._server.stdout.readline())
            return subprocess.CompletedProcess(list(args), code, *(stream.read_text("utf-8") for stream in streams))

    def close(self) -> None:
        """End the server, and what it may have left."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.communicate()


def _serve() -> None:
    """Fork for every line of stdin, and answer with the exit code of the child."""
    import fvcore.nn
    import optuna
    import pandas
    import torch

    del fvcore, optuna, pandas, torch
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            _become(json.loads(line))
            return
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{code}\n")
        sys.stdout.flush()


def _become(asked: Mapping[str, object]) -> None:
    """In the child: end as ``python -m meliuscli`` would have ended."""
    args, cwd, environment, streams = (asked[key] for key in ("args", "cwd", "environment", "streams"))
    os.chdir(cwd)  # type: ignore[arg-type]
    os.environ.clear()
    os.environ.update(environment)  # type: ignore[arg-type]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(streams, 1):  # type: ignore[arg-type]
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.path.insert(0, str(cwd))
    sys.argv[1:] = args  # type: ignore[assignment]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runpy.run_module("meliuscli", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.path.pop(0)
    _serve()
