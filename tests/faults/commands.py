"""Commands in processes that are forked from one with everything loaded; those that write one file, killed at random
moments, or with no room for it."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from disks import Disk
from warm import FORK

from meliuscli.cli.app import main as command_line


@dataclass
class Outcome:
    """What was injected into works of one kind, and what came of it."""

    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def fields(self) -> dict[str, object]:
        return {**vars(self), "faults": dict(sorted(self.faults.items())), "num_faults": self.faults.total()}


def _close(number: int) -> None:
    """As Python is with a stream that was closed before it began."""
    os.close(number)
    setattr(sys, ("stdin", "stdout", "stderr")[number], None)


def _leave_reader(number: int) -> None:
    """A pipe that nobody reads."""
    reader, writer = os.pipe()
    os.dup2(writer, number)
    os.close(writer)
    os.close(reader)
    setattr(sys, ("stdin", "stdout", "stderr")[number], open(number, "w", closefd=False))  # noqa: SIM115


def _ignore() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


STREAMS: dict[str, tuple[Callable[[], None], tuple[int, ...]]] = {
    "closed stdin": (lambda: _close(0), (0,)),
    "closed stdout": (lambda: _close(1), (0, 3)),
    "closed stderr": (lambda: _close(2), (0,)),
    "stdout without a reader": (lambda: _leave_reader(1), (0,)),
    "stderr without a reader": (lambda: _leave_reader(2), (0,)),
    "ignored signals": (_ignore, (0,)),
}
"""What a process may be begun with, and with what it may exit then."""


def start(place: Path, words: Sequence[str], streams: str | None = None, temporary: Path | None = None) -> BaseProcess:
    """``meliuscli WORDS`` from inside ``place``, in a process group of its own; what it says goes to ``said.txt``.

    ``streams`` is one of ``STREAMS``, ``temporary`` its directory for temporary files."""

    def run() -> None:
        os.setsid()
        os.chdir(place)
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.close(said)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        if temporary is not None:
            os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        if streams is not None:
            STREAMS[streams][0]()
        sys.argv = ["meliuscli", *words]
        command_line()

    process = FORK.Process(target=run)
    process.start()
    return process


def finish(place: Path, words: Sequence[str]) -> int:
    process = start(place, words)
    process.join()
    return process.exitcode or 0


def one_file_commands(place: Path, out: str = ".") -> dict[str, list[str]]:
    """Name of the file -> the command that writes it to ``out``, about the work that was done in ``place``."""
    (run,) = (place / "reports").glob("run-*.json")
    name = f"run:{json.loads(run.read_text())['id']}"
    return {
        "net.packed.safetensors": [
            "export",
            "--weights",
            name,
            "--to",
            "packed",
            "-o",
            f"{out}/net.packed.safetensors",
        ],
        "run.html": ["report", name, "--html", f"{out}/run.html"],
        "bench.json": [
            "bench",
            name,
            "--opponents",
            "none",
            "--runs",
            "2",
            "--format",
            "json",
            "-o",
            f"{out}/bench.json",
        ],
        "counts.csv": ["count", "--arch", "meliusnet22", "--no-verify", "-o", f"{out}/counts.csv"],
    }


def content_of(path: Path) -> object:
    """What is the same each time that a command writes the file: of what was measured, what it is called."""
    if path.suffix != ".json":
        return path.read_bytes()
    try:
        value = json.loads(path.read_text())
    except ValueError:
        return None
    return _names(value)


def _names(value: object) -> object:
    if isinstance(value, dict):
        return {key: _names(part) for key, part in value.items()}
    return [_names(part) for part in value] if isinstance(value, list) else type(value).__name__


def undisturbed_files(whole: Path, outcome: Outcome) -> tuple[dict[str, object], dict[str, float]]:
    """Of each file its content, and how long its command takes."""
    expected, seconds = {}, {}
    for name, words in one_file_commands(whole).items():
        (whole / name).unlink(missing_ok=True)
        began = time.monotonic()
        if finish(whole, words) != 0:
            outcome.failures.append(f"{' '.join(words)}: {(whole / 'said.txt').read_text()[-300:]}")
            continue
        expected[name], seconds[name] = content_of(whole / name), time.monotonic() - began
    return expected, seconds


def attack_files(
    rng: random.Random,
    end: float,
    whole: Path,
    expected: dict[str, object],
    seconds: dict[str, float],
    outcome: Outcome,
) -> None:
    """Kill commands that write one file: afterwards it is not there, or it is what they write undisturbed."""
    while expected and time.monotonic() < end:
        name = rng.choice(sorted(expected))
        (whole / name).unlink(missing_ok=True)
        process = start(whole, one_file_commands(whole)[name])
        process.join(rng.uniform(0, 1.1 * seconds[name]))
        number = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
        if process.exitcode is None and process.pid is not None:
            os.kill(process.pid, number)
            outcome.faults[f"{number.name} of {one_file_commands(whole)[name][0]}"] += 1
        process.join()
        if (whole / name).exists() and content_of(whole / name) != expected[name]:
            outcome.failures.append(f"{name}: half written after {number.name}")
        outcome.rounds += 1


def attack_disks(
    rng: random.Random, end: float, whole: Path, expected: dict[str, object], kind: type[Disk], outcome: Outcome
) -> None:
    """Commands that write one file to a disk without the room for it: they say so, and leave nothing behind."""
    with ExitStack() as stack:
        disk = kind(whole / f"disk-{kind.__name__}", stack)
        while expected and time.monotonic() < end:
            name = rng.choice(sorted(expected))
            words = one_file_commands(whole, disk.path.name)[name]
            disk.leave(rng.choice((0, 0, 4, 8, 16, 32, 64)))
            code, said = finish(whole, words), (whole / "said.txt").read_text()
            disk.free()
            if code == 3:
                outcome.faults[f"{kind.kind} of {words[0]}"] += 1
            if code not in (0, 3) or (code == 3 and kind.says not in said):
                outcome.failures.append(f"{name}: exits {code} on a {kind.kind}: {said[-300:]}")
            there = [path.name for path in disk.path.iterdir()]
            if there != ([name] if code == 0 else []) or (code == 0 and content_of(disk.path / name) != expected[name]):
                outcome.failures.append(f"{name}: half written on a {kind.kind}: {there}")
            for path in there:
                (disk.path / path).unlink()
            outcome.rounds += 1
