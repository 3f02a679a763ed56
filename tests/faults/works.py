"""Faults against works in one process (a run, a study, a check) and against commands that write one file: signals at random
moments, streams that are closed, disks that are full or have a quota, and directories that turn read-only half way.

Whatever comes in between, the work must go on to what it is undisturbed, bit for bit, and every file that is there must be
whole. Processes are forked from one that has everything loaded.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import tomllib
from contextlib import ExitStack, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from commands import STREAMS, Outcome, attack_disks, attack_files, finish, start, undisturbed_files
from disks import Disk, Quota, why_no_disk
from test_long_work import MEMBERS, Member, write_files
from warm import in_child

SIGNALS = {"SIGKILL": 50, "SIGTERM": 15, "SIGINT": 15, "SIGHUP": 10, "SIGPIPE": 5, "SIGSTOP and SIGCONT": 10}
MOST_FAULTS = 5
"""Of a round, after which the work is left alone."""
ALLOWED = {"SIGKILL": (-9,), "SIGTERM": (-15, 130, 143), "SIGINT": (130, -2), "SIGHUP": (-1,), "none": (0,)}
ALLOWED |= {name: codes for name, (_, codes) in STREAMS.items()}
PLURALS = {"run": "runs", "study": "studies", "check": "checks"}
ROOM = {"full disk": Disk, "quota": Quota, "full /tmp": Disk}
"""Faults by which a disk has too little room, and the disk."""
DISKS = (*ROOM, "read-only")
KINDS = ("signals", "streams", *DISKS)
"""Instead of ``streams``, one of ``STREAMS`` can be asked for."""


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
            disk = None
            if kind in DISKS:
                place = self.place / ("tmp" if kind == "full /tmp" else "reports")
                disk = ROOM.get(kind, Disk)(place, stack)
            for _ in range(self.rng.randint(1, MOST_FAULTS)):
                if not (words := self.words()):
                    break
                self._disturbed(words, kind, disk)
                self.outcome.failures += [f"{self.place.name}: {said}" for said in broken_files(self.place)]
                if finish(self.place, ["list", PLURALS[self.member.kind.what]]) != 0:
                    self._fail(f"is not listed: {self._said()[-300:]}")
            if disk is not None:
                disk.free()
            words = self.words()
            if words and (code := finish(self.place, words)) != 0:
                self._fail(f"left alone it exits {code}: {' '.join(words)}: {self._said()[-300:]}")
            else:
                self._judge(expected)
        self.outcome.rounds += 1

    def _said(self) -> str:
        return (self.place / "said.txt").read_text(errors="replace")

    def _judge(self, expected: object) -> None:
        try:
            is_same = in_child(lambda: self.member.result(self.place)) == expected
        except RuntimeError as error:
            self._fail(str(error))
        else:
            if not is_same:
                self._fail("another result than undisturbed")

    def _disturbed(self, words: list[str], kind: str, disk: Disk | None) -> None:
        if kind in ROOM:
            assert disk is not None
            disk.leave(self.rng.choice((0, 4, 8, 16, 32, 64, 128, 256)))
        streams = self.rng.choice(sorted(STREAMS)) if kind == "streams" else kind if kind in STREAMS else None
        temporary = disk.path if disk is not None and kind == "full /tmp" else None
        process = start(self.place, words, streams, temporary)
        name = streams or kind
        if kind in ("signals", "read-only") or streams == "ignored signals":
            process.join(self.rng.uniform(0, self.seconds))
        if kind == "read-only" and process.exitcode is None:
            assert disk is not None
            disk.turn_read_only()
        if kind == "signals":
            name = self._signal(process) if process.exitcode is None else "none"
        if streams == "ignored signals" and process.exitcode is None:
            for number in (signal.SIGINT, signal.SIGHUP):
                os.kill(process.pid or 0, number)
        process.join(240)
        if process.exitcode is None:
            self._fail(f"hangs after {name}")
            os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
        if disk is not None:
            disk.turn_back()
        is_hit = disk is None or process.exitcode == 3 or kind == "full /tmp"
        if name != "none" and is_hit:  # not a large disk, or work that was done first
            self.outcome.faults[name] += 1
        allowed = (*ALLOWED[name], 0) if kind == "signals" else ALLOWED.get(name, (0, 3))
        if process.exitcode not in allowed:
            self._fail(f"exits {process.exitcode} after {name}: {self._said()[-300:]}")
        if kind in ROOM and process.exitcode == 3 and ROOM[kind].says not in self._said():
            self._fail(f"does not say what {name} is: {self._said()[-300:]}")

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


def attack_writers(rng: random.Random, minutes: float, home: Path) -> dict[str, object]:
    """Disturb commands that write one file, about a run that is done, until the time is over."""
    member, place = MEMBERS[0], home / "whole"
    home.mkdir(parents=True)
    in_child(lambda: place.mkdir() or write_files(place))
    if finish(place, member.begin) != 0:
        raise RuntimeError((place / "said.txt").read_text()[-500:])
    outcome, end = Outcome(), time.monotonic() + 60 * minutes
    expected, seconds = undisturbed_files(place, outcome)
    disks = [kind for kind in (Disk, Quota) if why_no_disk(kind) is None]
    for number, kind in enumerate(disks):
        attack_disks(rng, time.monotonic() + (end - time.monotonic()) / (3 - number), place, expected, kind, outcome)
    attack_files(rng, end, place, expected, seconds, outcome)
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
    reasons = {kind: why_no_disk(disk) for kind, disk in {**ROOM, "read-only": Disk}.items()}
    kinds = [kind for kind in KINDS if reasons.get(kind) is None]
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
    return {**made, "failures": failures, "skipped": {kind: why for kind, why in reasons.items() if why}}
