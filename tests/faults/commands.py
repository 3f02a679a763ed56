"""Commands in processes that are forked from one with everything loaded; those that write one file, killed at random moments."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

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


def start(place: Path, words: Sequence[str]) -> BaseProcess:
    """``meliuscli WORDS`` from inside ``place``, in a process group of its own; what it says goes to ``said.txt``."""

    def run() -> None:
        os.setsid()
        os.chdir(place)
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        sys.argv = ["meliuscli", *words]
        command_line()

    process = FORK.Process(target=run)
    process.start()
    return process


def finish(place: Path, words: Sequence[str]) -> int:
    process = start(place, words)
    process.join()
    return process.exitcode or 0


def one_file_commands(place: Path) -> dict[str, list[str]]:
    """Name of the file -> the command that writes it, about the work that was done in ``place``."""
    (run,) = (place / "reports").glob("run-*.json")
    name = f"run:{json.loads(run.read_text())['id']}"
    return {
        "net.packed.safetensors": ["export", "--weights", name, "--to", "packed", "-o", "net.packed.safetensors"],
        "run.html": ["report", name, "--html", "run.html"],
        "bench.json": ["bench", name, "--opponents", "none", "--runs", "2", "--format", "json", "-o", "bench.json"],
        "counts.csv": ["count", "--arch", "meliusnet22", "--no-verify", "-o", "counts.csv"],
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


def attack_files(rng: random.Random, end: float, whole: Path, outcome: Outcome) -> None:
    """Kill commands that write one file: afterwards it is not there, or it is what they write undisturbed."""
    expected, seconds = {}, {}
    for name, words in list(one_file_commands(whole).items()):
        began = time.monotonic()
        if finish(whole, words) != 0:
            outcome.failures.append(f"{' '.join(words)}: {(whole / 'said.txt').read_text()[-300:]}")
            continue
        expected[name], seconds[name] = content_of(whole / name), time.monotonic() - began
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
