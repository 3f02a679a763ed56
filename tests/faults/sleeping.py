"""A training that sleeps and says what it would say every time: for tests of what is around trainings."""

from __future__ import annotations

import hashlib
import multiprocessing
import multiprocessing.process
import sys
import time
from pathlib import Path
from typing import Generic, TypeVar

from meliuscli.search import addresses
from meliuscli.search.backend import Backend
from meliuscli.search.begin import Asked
from meliuscli.search.membership import create_shared, join
from meliuscli.search.shared import SharedStudy
from meliuscli.search.trainings import Failure
from meliuscli.search.worker import Leave, Worker
from meliuscli.training.loop import EpochMetrics
from meliuscli.training.pool import Task
from meliuscli.training.run import RunResult

Key = TypeVar("Key")


def result_of(task: Task) -> RunResult:
    """What depends on the network and the seed alone."""
    digest = hashlib.sha256(f"{task.spec.archid} {task.seed}".encode()).digest()
    accuracy = int.from_bytes(digest[:4]) / 2**32
    metrics = EpochMetrics(1.0, 1.0 - accuracy, 1.0 - accuracy, accuracy)
    return RunResult(task.seed, (metrics,), accuracy if task.score_test else None, 1.0, 1.0)


class Sleeper:
    """A trainer that sleeps in place of training."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._task: Task | None = None
        self._end = 0.0

    def start(self, task: Task) -> None:
        self._task, self._end = task, time.monotonic() + self.seconds

    def outcome(self, seconds: float) -> RunResult | Failure | None:
        left = self._end - time.monotonic()
        time.sleep(max(0.0, min(seconds, left)))
        assert self._task is not None
        return result_of(self._task) if left <= seconds else None

    def stop(self) -> None:
        self._task = None


class OneByOne(Generic[Key]):
    """In place of ``Trainings``: the same results without processes."""

    workers = 2

    def __init__(self) -> None:
        self._waiting: list[tuple[Key, Task]] = []

    def start(self, key: Key, task: Task) -> None:
        self._waiting.append((key, task))

    def ended(self) -> list[tuple[Key, RunResult]]:
        key, task = self._waiting.pop()
        return [(key, result_of(task))]


_opened: list[Backend] = []


def open_backend(storage: str, directory: Path, create: bool = False) -> Backend:
    """As the tool's, remembered until ``close_all``."""
    _opened.append(addresses.open_backend(storage, directory, create))
    return _opened[-1]


def close_all() -> None:
    """Let go of what was opened."""
    while _opened:
        _opened.pop().close()


def asked_of(space: Path, trials: int = 12, **more: object) -> Asked:
    fields: dict[str, object] = {"trials": trials, "finalists": 1, "final_seeds": 2, "lag": 4, **more}
    return Asked(budgets=(1e8,), space=str(space), maximises="proxy", **fields)  # type: ignore[arg-type]


def created(storage: str, space: Path, directory: Path, trials: int = 12, **more: object) -> SharedStudy:
    backend = open_backend(storage, directory, create=True)
    return create_shared(asked_of(space, trials, **more), backend, "tiny", directory, 1)[0]


def work(storage: str, directory: Path, seconds: float = 0.0, leave: Leave | None = None) -> bool:
    """One worker, until the study is done; is it?"""
    study = join(open_backend(storage, directory), "tiny", directory)
    return Worker(study, Sleeper(seconds), leave or Leave()).run()


Row = tuple[int, str, float | None, str | None]


def rows_of(study: SharedStudy) -> list[Row]:
    """The trials, as far as they must be the same whoever trained them."""
    return [(r.number, r.candidate.archid, r.accuracy, r.reason) for r in study.records()]


HAS_LEFT = 10
"""The exit code of a process whose worker left before the study was done."""


def joined(storage: str, directory: Path) -> SharedStudy:
    """The study as a worker sees it."""
    return join(open_backend(storage, directory), "tiny", directory)


def _be_worker(storage: str, directory: Path, seconds: float) -> None:
    _opened.clear()  # connections of the process that this one was forked from
    with Leave.on_signals() as leave:
        sys.exit(0 if work(storage, directory, seconds, leave) else HAS_LEFT)


def start(storage: str, directory: Path, seconds: float) -> multiprocessing.process.BaseProcess:
    """A worker in a process of its own, which has everything loaded already."""
    process = multiprocessing.get_context("fork").Process(target=_be_worker, args=(storage, directory, seconds))
    process.start()
    return process
