"""Faults against works in one process (a run, a study, a check) and against commands that write one file: signals at random
moments, disks that are full and directories that turn read-only half way.

Whatever comes in between, the work must go on to what it is undisturbed, bit for bit, and every file that is there must be
whole. Processes are forked from one that has everything loaded.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import ExitStack, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from commands import Outcome, attack_files, finish, start
from test_long_work import MEMBERS, Member, write_files
from warm import in_child

SIGNALS = {"SIGKILL": 50, "SIGTERM": 15, "SIGINT": 15, "SIGHUP": 10, "SIGSTOP and SIGCONT": 10}
MOST_FAULTS = 5
"""Of a round, after which the work is left alone."""
ALLOWED = {"SIGKILL": (-9,), "SIGTERM": (-15, 130, 143), "SIGINT": (130, -2), "SIGHUP": (-1,), "none": (0,)}
PLURALS = {"run": "runs", "study": "studies", "check": "checks"}
KINDS = ("signals", "full disk", "read-only")


def broken_files(place: Path) -> list[str]:
    """Files that are there and not whole."""
    broken = []
    for path in sorted((place / "reports").rglob("*")):
        if path.name.startswith(".") or path.suffix not in (".json", ".toml"):
            continue
        try:
            (json.loads if path.suffix == ".json" else tomllib.loads)(path.read_text())
        except ValueError as error:
            broken.append(f"{path.name}: {error}")
    return broken


class Round:
    """One work that is disturbed and gone on with until it is done."""

    def __init__(self, member: Member, place: Path, seconds: float, rng: random.Random, outcome: Outcome) -> None:
        self.member, self.place, self.seconds, self.rng, self.outcome = member, place, seconds, rng, outcome

    def words(self) -> list[str]:
        """What begins the work, or goes on with it; none when it is done."""
        found = list(self.member.kind.directories(self.place / "reports"))
        if found:
            return self.member.resume_from(found[0], self.place)
        return [] if any((self.place / "reports").glob("run-*.json")) else list(self.member.begin)

    def run(self, kind: str, expected: object) -> None:
        with ExitStack() as stack:
            disk = None if kind == "signals" else Disk(self.place / "reports", stack)
            for _ in range(self.rng.randint(1, MOST_FAULTS)):
                if not (words := self.words()):
                    break
                self._disturbed(words, kind, disk)
                self.outcome.failures += [f"{self.place.name}: {said}" for said in broken_files(self.place)]
                if finish(self.place, ["list", PLURALS[self.member.kind.what]]) != 0:
                    self._fail(f"is not listed: {(self.place / 'said.txt').read_text()[-300:]}")
            if disk is not None:
                disk.mount("size=64m,rw")
            words = self.words()
            if words and (code := finish(self.place, words)) != 0:
                self._fail(f"left alone it exits {code}: {' '.join(words)}")
            else:
                self._judge(expected)
        self.outcome.rounds += 1

    def _judge(self, expected: object) -> None:
        try:
            is_same = in_child(lambda: self.member.result(self.place)) == expected
        except RuntimeError as error:
            self._fail(str(error))
        else:
            if not is_same:
                self._fail("another result than undisturbed")

    def _disturbed(self, words: list[str], kind: str, disk: Disk | None) -> None:
        if kind == "full disk":
            assert disk is not None
            disk.mount(f"size={disk.used_kib() + self.rng.choice((4, 8, 16, 32, 64, 128, 256))}k,rw")
        process = start(self.place, words)
        name = kind
        if kind != "full disk":
            process.join(self.rng.uniform(0, self.seconds))
        if kind == "read-only" and process.exitcode is None:
            assert disk is not None
            disk.turn_read_only()
        if kind == "signals":
            name = self._signal(process) if process.exitcode is None else "none"
        process.join(120)
        if process.exitcode is None:
            self._fail(f"hangs after {name}")
            os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
        if disk is not None:
            disk.turn_back()
        if name != "none" and (disk is None or process.exitcode == 3):  # a large disk, or work that was done first
            self.outcome.faults[name] += 1
        allowed = (*ALLOWED[name], 0) if name in ALLOWED else (0, 3) if kind != "signals" else (0,)
        if process.exitcode not in allowed:
            self._fail(f"exits {process.exitcode} after {name}: {(self.place / 'said.txt').read_text()[-300:]}")

    def _signal(self, process: BaseProcess) -> str:
        name = self.rng.choices(list(SIGNALS), list(SIGNALS.values()))[0]
        assert process.pid is not None
        with suppress(ProcessLookupError):
            if name == "SIGSTOP and SIGCONT":
                os.killpg(process.pid, signal.SIGSTOP)
                time.sleep(self.rng.uniform(0.1, 0.5))
                os.killpg(process.pid, signal.SIGCONT)
            else:
                os.kill(process.pid, getattr(signal, name))
        return name

    def _fail(self, problem: str) -> None:
        self.outcome.failures.append(f"{self.member.kind.what} in {self.place.name}: {problem}")


class Disk:
    """A file system of its own in memory, whose size and mode can be changed while it is used."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path, self._is_read_only = path, False
        path.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path], check=True)
        stack.callback(subprocess.run, ["umount", "-l", path], check=True)

    def mount(self, options: str) -> None:
        """Mount again with other options."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)

    def turn_read_only(self) -> None:
        """For whoever opens a file from now on. (As a whole it cannot be while a work holds its lock open.)"""
        subprocess.run(["mount", "--bind", self.path, self.path], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", self.path], check=True)
        self._is_read_only = True

    def turn_back(self) -> None:
        if self._is_read_only:
            subprocess.run(["umount", self.path], check=True)
            self._is_read_only = False

    def used_kib(self) -> int:
        usage = shutil.disk_usage(self.path)
        return usage.used // 1024


def why_no_disks() -> str | None:
    """Why disks cannot be had here; None where they can."""
    probe = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return None if probe.returncode == 0 else "mounting is not allowed here"


def attack_writers(rng: random.Random, minutes: float, home: Path) -> dict[str, object]:
    """Kill commands that write one file, about a run that is done, until the time is over."""
    member, place = MEMBERS[0], home / "whole"
    home.mkdir(parents=True)
    in_child(lambda: place.mkdir() or write_files(place))
    if finish(place, member.begin) != 0:
        raise RuntimeError((place / "said.txt").read_text()[-500:])
    outcome = Outcome()
    attack_files(rng, time.monotonic() + 60 * minutes, place, outcome)
    return outcome.fields()


def attack_works(rng: random.Random, minutes: float, home: Path) -> dict[str, object]:
    """Rounds of all kinds until the time is over."""
    files = home / "files"
    files.mkdir(parents=True)
    in_child(lambda: write_files(files))
    outcomes = {name: Outcome() for name in (member.kind.what for member in MEMBERS)}
    expected, seconds = {}, {}
    for member in MEMBERS:
        place = home / f"whole-{member.kind.what}"
        shutil.copytree(files, place)
        began = time.monotonic()
        if (code := finish(place, member.begin)) != 0:
            raise RuntimeError(f"{member.kind.what}: exits {code}: {(place / 'said.txt').read_text()[-500:]}")
        seconds[member.kind.what] = time.monotonic() - began
        expected[member.kind.what] = in_child(lambda m=member, p=place: m.result(p))  # type: ignore[misc]
    kinds = KINDS if (reason := why_no_disks()) is None else KINDS[:1]
    end, turn = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        member, kind = MEMBERS[turn % len(MEMBERS)], kinds[(turn // len(MEMBERS)) % len(kinds)]
        what, place = member.kind.what, home / f"{member.kind.what}-{turn}"
        shutil.copytree(files, place)
        Round(member, place, seconds[what], rng, outcomes[what]).run(kind, expected[what])
        sys.stdout.write(f"{what}: {outcomes[what].fields()}\n")
        sys.stdout.flush()
        if not outcomes[what].failures:
            shutil.rmtree(place, ignore_errors=True)
        turn += 1
    failures = [said for outcome in outcomes.values() for said in outcome.failures]
    made: dict[str, object] = {what: outcome.fields() for what, outcome in outcomes.items()}
    return {**made, "failures": failures, **({} if reason is None else {"no disks": reason})}
