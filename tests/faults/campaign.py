"""A campaign of faults, with a budget in minutes and a seed; it writes what was injected and what was lost.

    python tests/faults/campaign.py [--minutes 10] [--seed 0] [--report reports/faults]

Against workers of shared studies, where trainings sleep; against works of one process, which train; with malformed files.
Workers are forked from one warm process, so that a fault costs no start of Python. Each round is a study of its
own; at its end the table must equal that of an undisturbed search, nothing may run for ever, and Optuna must read the storage.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from math import inf
from multiprocessing.process import BaseProcess
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import clocks
from conftest import TINY_SPACE
from disks import why_no_disk
from mutate import attack
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from servers import FULL, SERVERS, Server, why_not
from sleeping import HAS_LEFT, Row, created, joined, rows_of, start, work
from warm import FORK, in_child, load_what_it_loads
from works import attack_works, attack_writers

from meliuscli.data import catalog
from meliuscli.errors import BadInputError
from meliuscli.results import origin, write_json
from meliuscli.search import backend, storage

TRIALS, LONGEST_SLEEP, ROUND_SECONDS = 16, 0.4, 600.0
FAULTS = 200
"""Of a round: then it may end, or on a busy machine every worker would be killed before it is under way."""
ALONE: dict[str, Callable[..., dict[str, object]]] = {
    "malformed": attack,
    "works": attack_works,
    "files": attack_writers,
}
"""Parts without workers."""
PARTS = ("journal", *SERVERS, *ALONE)
SAMPLERS = ("cost-aware", "random", "tpe")


@dataclass
class Tally:
    """What was injected on one storage, and what came of it."""

    rounds: int = 0
    trials: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    changed: int = 0
    running: int = 0
    bad_exits: list[str] = field(default_factory=list)

    def fields(self) -> dict[str, object]:
        return {**vars(self), "faults": dict(sorted(self.faults.items())), "num_faults": self.faults.total()}

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.changed or self.running or self.bad_exits)


def undisturbed(space: Path, place: Path, sampler: str) -> list[Row]:
    def run() -> list[Row]:
        created("journal", space, place, TRIALS, sampler=sampler, lag=8)
        work("journal", place)
        return rows_of(joined("journal", place))

    rows = in_child(run)
    assert isinstance(rows, list)
    return rows


def warm_up(url: str, space: Path, place: Path) -> None:
    """Load here, and once, what each worker would: its modules, the data, what SQLAlchemy makes of Optuna's tables."""

    def work_once() -> None:
        created(url, space, place, 2, sampler="tpe", lag=2)
        work(url, place)

    load_what_it_loads(work_once)
    catalog._load_embedded = cache(catalog._load_embedded)
    catalog._load_embedded()
    if "sqlalchemy" in sys.modules:
        RDBStorage("sqlite://").engine.dispose()


def make_twice(url: str, space: Path, place: Path, sampler: str, tally: Tally) -> None:
    """Two searches of one name at the same time make one study, and one that asks for something else is refused."""

    def make() -> None:
        created(url, space, place, TRIALS, sampler=sampler, lag=8)
        with suppress(BadInputError):
            created(url, space, place, TRIALS + 1, sampler=sampler, lag=8)
            os._exit(1)
        os._exit(0)  # as a process that was killed: it closes nothing

    both = [FORK.Process(target=make) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    tally.faults["two searches of one name"] += 1
    tally.bad_exits += [f"{place.name}: a search exited {process.exitcode}" for process in both if process.exitcode]


SERVER_FAULTS = {
    "connections cut": 3,
    "database restarted": 3,
    "database crashed": 3,
    "database's disk full": 3,
    "database away for 30 s": 1,
}
"""With how often each comes beside the others."""


def disturb_server(server: Server, rng: random.Random) -> str:
    """One fault of a server, which is there again afterwards; its name."""
    (kind,) = rng.choices(list(SERVER_FAULTS), list(SERVER_FAULTS.values()))
    if kind == "connections cut":
        server.cut()
    elif kind == "database's disk full":
        if server.disk is None:
            return "none: no disks of one's own here"
        before = len(server.said())
        server.disk.leave(0)
        time.sleep(rng.uniform(1.0, 5.0))
        server.disk.free()
        time.sleep(0.5)  # in which a server that cannot go on ends
        server.revive()
        return kind if FULL.search(server.said()[before:]) else f"{kind}, unnoticed"
    else:
        server.stop("fast" if kind == "database restarted" else "immediate")
        time.sleep(30.0 if kind.endswith("30 s") else rng.uniform(0.0, 3.0))
        server.start()
    return kind


class Round:
    """One study that workers finish while faults come at random moments."""

    def __init__(self, url: str, place: Path, workers: int, rng: random.Random, tally: Tally, server: Server | None):
        self.url, self.place, self.rng, self.tally, self.server = url, place, rng, tally, server
        self.workers: list[BaseProcess] = [self._start() for _ in range(workers)]
        self.num_faults = 0

    def _start(self) -> BaseProcess:
        return start(self.url, self.place, self.rng.uniform(0.05, LONGEST_SLEEP))

    def run(self) -> None:
        deadline = time.monotonic() + ROUND_SECONDS
        while self.workers:
            if time.monotonic() > deadline:
                self.tally.bad_exits.append(f"{self.place.name}: not done after {ROUND_SECONDS:.0f} s")
                for worker in self.workers:
                    worker.kill()
                return
            # One in two soon after the one before, in what that one left; a worker lives one to two seconds on the average.
            longest = 4.0 / len(self.workers) if self.rng.random() < 0.5 else 0.2
            time.sleep(self.rng.uniform(0.0, longest))
            self._reap()
            if self.workers and self.num_faults < FAULTS:
                self._disturb()
                self.num_faults += 1

    def _reap(self) -> None:
        for index, worker in reversed(list(enumerate(self.workers))):
            if worker.exitcode is None:
                continue
            if worker.exitcode == 0:
                del self.workers[index]
                continue
            if worker.exitcode not in (HAS_LEFT, -signal.SIGKILL, -signal.SIGTERM):
                self.tally.bad_exits.append(f"{self.place.name}: a worker exited {worker.exitcode}")
            self.workers[index] = self._start()

    def _disturb(self) -> None:
        victim = self.rng.choice(self.workers)
        kind = self.rng.choices(["SIGKILL", "SIGTERM", "SIGSTOP and SIGCONT", "other"], [60, 25, 10, 5])[0]
        if kind == "other":
            kind = self._disturb_storage()
        elif victim.pid is not None and victim.exitcode is None:
            if kind == "SIGSTOP and SIGCONT":
                os.kill(victim.pid, signal.SIGSTOP)
                time.sleep(self.rng.uniform(0.1, 1.0))
                os.kill(victim.pid, signal.SIGCONT)
            else:
                os.kill(victim.pid, getattr(signal, kind))
        self.tally.faults[kind] += 1

    def _disturb_storage(self) -> str:
        if clocks.can_jump() and self.rng.random() < 0.3:
            clocks.jump(self.rng.choice(clocks.JUMPS))
            return "clock jumped a day"
        if self.server is not None:
            return disturb_server(self.server, self.rng)
        path = self.place / "journal.log"
        if self.rng.random() < 0.5:
            # As a writer that is killed half way leaves it: the lock of the file is held by it until then.
            lock = backend.file_lock(path, "write")
            with lock, path.open("a", encoding="utf-8") as file:
                file.write('{"op_code": 8, "worker_id": "x", "trial_i')
            return "torn line"
        with suppress(FileExistsError):
            path.with_name("journal.log.lock").symlink_to(path)
        return "stale lock"


def judge(url: str, place: Path, expected: list[Row], tally: Tally) -> None:
    """Hold a finished study against the undisturbed one."""

    def read() -> tuple[list[Row], int, int]:
        study = joined(url, place)
        trials = study._optuna.get_trials(deepcopy=False)
        running = sum(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in trials)
        finals = study._claims("final").trials.study.get_trials(deepcopy=False)
        running += sum(not trial.state.is_finished() for trial in finals)
        return rows_of(study), running, len(finals)

    rows, running, _ = in_child(read)  # type: ignore[misc]
    numbers = {row[0] for row in rows}
    tally.lost += sum(row[0] not in numbers for row in expected)
    tally.changed += sum(row not in expected for row in rows)
    tally.running += running
    tally.trials += len(rows)
    tally.rounds += 1


def disturb(name: str, minutes: float, kills: float, rng: random.Random, space: Path, home: Path) -> Tally:
    """Rounds on a storage until the time is over, or so many workers were killed."""
    tally = Tally()
    expected = {sampler: undisturbed(space, home / f"undisturbed-{sampler}", sampler) for sampler in SAMPLERS}
    server = None if name == "journal" else SERVERS[name](has_disk=why_no_disk() is None)  # type: ignore[call-arg]
    if server is not None:
        server.start()
    end = time.monotonic() + 60 * minutes
    try:
        warm_up("journal" if server is None else server.url, space, home / f"{name}-before")
        while time.monotonic() < end and tally.faults["SIGKILL"] + tally.faults["SIGTERM"] < kills:
            place, sampler = home / f"{name}-{tally.rounds}", rng.choice(SAMPLERS)
            url = "journal" if server is None else server.url
            if server is not None:
                server.reset()
            make_twice(url, space, place, sampler, tally)
            Round(url, place, rng.choice((2, 4)), rng, tally, server).run()
            clocks.jump("+0") if clocks.can_jump() else None
            judge(url, place, expected[sampler], tally)
            print(f"{name}: {tally.fields()}", flush=True)
            if tally.is_clean:
                shutil.rmtree(place, ignore_errors=True)
    finally:
        if server is not None:
            server.__exit__()
    return tally


def free_path(directory: Path, name: str) -> Path:
    """A file for one more run: ``name.json``, or the first of ``name-2.json``, ... that is not there."""
    paths = (directory / f"{name}{'' if number == 1 else f'-{number}'}.json" for number in count(1))
    return next(path for path in paths if not path.exists())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=float, default=inf, help="end a storage's part after so many")
    parser.add_argument("--report", type=Path, default=Path("reports/faults"))
    parser.add_argument("--only", choices=PARTS)
    given = parser.parse_args()
    clocks.begin_anew()
    storage.LOCK_SECONDS = 0.3  # what is left of a lock costs a round no time
    home = Path(tempfile.mkdtemp(prefix="faults-"))
    space = home / "tiny.toml"
    space.write_text(TINY_SPACE, encoding="utf-8")
    parts = [given.only] if given.only else PARTS
    value: dict[str, object] = {"seed": given.seed, "minutes": given.minutes}
    is_clean = True
    for part in parts:
        rng, minutes = random.Random(f"{part} {given.seed}"), given.minutes / len(parts)
        if part in SERVERS and (reason := why_not(part)) is not None:
            value[part] = {"skipped": reason}
            continue
        if part in ALONE:
            outcome = ALONE[part](rng, minutes, home / part)
            value[part], is_clean = outcome, is_clean and not outcome["failures"]
            continue
        tally = disturb(part, minutes, given.kills, rng, space, home)
        value[part], is_clean = tally.fields(), is_clean and tally.is_clean
    command = f"python tests/faults/campaign.py --minutes {given.minutes:g} --seed {given.seed}"
    command += f" --kills {given.kills:.0f}" if given.kills < inf else ""
    command += f" --only {given.only}" if given.only else ""
    write_json(free_path(given.report, given.only or "faults"), {**value, "origin": {**origin(), "command": command}})
    print(json.dumps(value, indent=2))
    if is_clean:
        shutil.rmtree(home, ignore_errors=True)
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
