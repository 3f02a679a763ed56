"""Many trainings at once, each told as it ends: proxies, finals and checks alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from meliuscli.errors import MeliusError, MissingError
from meliuscli.training.pool import Task, Train, TrainingPool, train_task
from meliuscli.work.interrupts import heed_interrupt

if TYPE_CHECKING:
    from meliuscli.training.run import RunResult

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Failure:
    """A training that gave no result."""

    reason: str

    def fields(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"reason": self.reason}


def scores(outcome: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among what a training gave; none of one that failed."""
    keys = ("validation_top1", "validation_loss", "train_loss", "test_top1", "seconds")
    return {key: outcome[key] for key in keys if outcome.get(key) is not None}


class Trainings(Generic[Key]):
    """Trainings in ``workers`` processes, which start with the first ones and stay, so that what they load is loaded once for
    all stages of a piece of work; a context manager, which stops them at once when it is left by an exception."""

    def __init__(self, workers: int, train: Train = train_task) -> None:
        self.workers = workers
        self._pool = TrainingPool(workers, train)
        self._running: dict[Future[RunResult], Key] = {}

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)

    def start(self, key: Key, task: Task) -> None:
        """Queue a training."""
        self._running[self._pool.submit(task)] = key

    def ended(self) -> Iterator[tuple[Key, RunResult | Failure]]:
        """Wait until at least one training has ended; yields those that have. Nothing, when none is running.

        Raises ``MissingError`` when a worker is killed."""
        if not self._running:
            return
        for future in wait(self._running, return_when=FIRST_COMPLETED).done:
            yield self._running.pop(future), _outcome(future)

    def __bool__(self) -> bool:
        return bool(self._running)


def train_all(tasks: Mapping[Key, Task], trainings: Trainings[Key]) -> Iterator[tuple[Key, RunResult | Failure]]:
    """Train every task; yields its key with the outcome as it ends. Raises ``MissingError`` when a worker is killed."""
    for key, task in tasks.items():
        trainings.start(key, task)
    while trainings:
        yield from trainings.ended()


def _outcome(future: Future[RunResult]) -> RunResult | Failure:
    try:
        return future.result()
    except BrokenProcessPool:
        heed_interrupt()  # of all processes of a job
        raise MissingError(
            "a training process was killed from outside (out of memory?)",
            "what was finished is kept; continue with --resume, with fewer --workers if memory is short",
        ) from None
    except MeliusError as error:
        return Failure(error.message)
