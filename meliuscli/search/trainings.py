"""Many trainings at once, each told as it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from meliuscli.errors import MeliusError, MissingError
from meliuscli.training.pool import Task, TrainingPool

Key = TypeVar("Key")


def train_all(tasks: Mapping[Key, Task], workers: int) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Train every task; yields its key with the run's fields as it ends, or with a ``reason`` when it failed.

    Raises ``MissingError`` when a worker is killed."""
    if not tasks:
        return
    with TrainingPool(workers) as pool:
        running = {pool.submit(task): key for key, task in tasks.items()}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                try:
                    fields = future.result().fields()
                except BrokenProcessPool:
                    raise worker_killed() from None
                except MeliusError as error:
                    fields = {"reason": error.message}
                yield running.pop(future), fields


def worker_killed() -> MissingError:
    return MissingError(
        "a training process was killed from outside (out of memory?)",
        "what was finished is kept; continue with --resume, with fewer --workers if memory is short",
    )
