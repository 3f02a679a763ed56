"""A worker: takes one training of a shared study after another, until there is nothing left to do or it has to go."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeVar

from meliuscli.errors import MeliusError, MissingError
from meliuscli.search.backend import BEAT_SECONDS, Backend, first_line
from meliuscli.search.claims import Assignment
from meliuscli.search.shared import WAIT, SharedStudy
from meliuscli.search.trainings import Failure, scores
from meliuscli.training.pool import Task, Train, TrainingPool, train_task
from meliuscli.units import format_duration
from meliuscli.work.listener import SILENT, Listener
from meliuscli.work.owner import Owner

if TYPE_CHECKING:
    from meliuscli.training.run import RunResult

LOOK_SECONDS = 0.2
"""How often a worker that waits looks for a signal or for something to do."""
PATIENCE_SECONDS = 600.0
"""How long a worker waits for a storage that does not answer."""
LAST_SECONDS = 10.0
"""And how long when it has to go."""
KILLED: Literal["killed"] = "killed"
Value = TypeVar("Value")


class Trainer(Protocol):
    """Trains one task at a time."""

    def start(self, task: Task) -> None:
        """Begin."""

    def outcome(self, seconds: float) -> RunResult | Failure | Literal["killed"] | None:
        """What came of it, waited for so long; ``killed`` where its process was, None while it goes on."""

    def stop(self) -> None:
        """End it at once."""


class ChildTrainer:
    """Trains in a process of its own, so that the worker outlives what ends a training."""

    def __init__(self, train: Train = train_task) -> None:
        self._train = train
        self._pool: TrainingPool | None = None
        self._future: Future[RunResult] | None = None

    def start(self, task: Task) -> None:
        if self._pool is None:
            self._pool = TrainingPool(1, self._train)
        with _signals_blocked():
            self._future = self._pool.submit(task)

    def outcome(self, seconds: float) -> RunResult | Failure | Literal["killed"] | None:
        assert self._future is not None
        if not wait([self._future], timeout=seconds).done:
            return None
        try:
            return self._future.result()
        except BrokenProcessPool:
            self.stop()
            return KILLED
        except MeliusError as error:
            return Failure(error.message)

    def stop(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool = None


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Around the start of a process, which inherits it: Slurm signals all processes of a job, and the worker decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(slots=True)
class Leave:
    """Why a worker has to go: a signal's name, or its time being over."""

    deadline: float | None = None
    reason: str | None = None
    interrupted: bool = False

    @property
    def is_due(self) -> bool:
        if self.reason is None and self.deadline is not None and time.monotonic() > self.deadline:
            self.reason = "its time is over"
        return self.reason is not None

    @classmethod
    @contextmanager
    def on_signals(cls, time_limit: float | None = None) -> Iterator[Self]:
        """One that SIGTERM, SIGUSR1 (Slurm's warning) and Ctrl-C ask for; a second Ctrl-C interrupts at once. A signal that
        the parent ignores stays ignored."""
        leave = cls(None if time_limit is None else time.monotonic() + time_limit)

        def ask(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGINT and leave.interrupted:
                raise KeyboardInterrupt
            leave.interrupted = leave.interrupted or number == signal.SIGINT
            leave.reason = signal.Signals(number).name

        before = {
            number: signal.signal(number, ask)
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            yield leave
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass(slots=True)
class Worker:
    """One worker of a shared study. ``max_trials`` counts its own trainings."""

    study: SharedStudy
    trainer: Trainer
    leave: Leave
    listener: Listener = SILENT
    max_trials: int | None = None
    me: Owner = field(default_factory=Owner.here)
    num_done: int = 0

    def run(self) -> bool:
        """Work; is the study done? Raises ``FailedError`` where nothing could be trained, ``MissingError`` where the storage
        is gone for good."""
        try:
            self._patiently(self.study.prepare)
            while not self.leave.is_due and (self.max_trials is None or self.num_done < self.max_trials):
                try:
                    job = self._patiently(lambda: self.study.next_job(self.me))
                except MissingError:
                    if self.leave.is_due:
                        return False
                    raise
                if job is None:
                    return not self.leave.is_due
                if job == WAIT:
                    time.sleep(LOOK_SECONDS)
                else:
                    self._do(job)
        finally:
            self.trainer.stop()
        return False

    def _do(self, job: Assignment) -> None:
        try:
            outcome = self._train(job)
        except BaseException:
            self._patiently(lambda: self.study.hand_back(job, self.me))
            raise
        if outcome is None or outcome == KILLED:
            self._patiently(lambda: self.study.hand_back(job, self.me, killed=outcome == KILLED))
            why = self.leave.reason if outcome is None else "its training process was killed"
            self.listener.talk(f"{job.text}: handed back: {why}")
            return
        self.num_done += 1
        fields = outcome.fields()
        if self._patiently(lambda: self.study.land(job, self.me, fields)):
            self.listener.talk(f"{job.text}: {_said(outcome)}")
            self.listener.measured(f"{job.stage}s", job.number, scores(fields))
        else:
            self.listener.talk(f"note: {job.text}: another worker has taken it meanwhile; this result is dropped")

    def _train(self, job: Assignment) -> RunResult | Failure | Literal["killed"] | None:
        """None where the worker has to leave."""
        limit = self.study.settings.trial_timeout
        started = told = time.monotonic()
        self.trainer.start(job.task)
        while (outcome := self.trainer.outcome(LOOK_SECONDS)) is None:
            now = time.monotonic()
            if self.leave.is_due:
                self.trainer.stop()
                return None
            if limit is not None and now - started > limit:
                self.trainer.stop()
                return Failure(f"it took longer than --trial-timeout {format_duration(limit)}")
            if now - told > BEAT_SECONDS:
                told = now
                self._patiently(lambda: self.study.beat(job, self.me))
        return outcome

    def _patiently(self, step: Callable[[], Value]) -> Value:
        return patiently(step, self.study.backend, self.leave, self.listener)


def patiently(
    step: Callable[[], Value], backend: Backend, leave: Leave | None = None, listener: Listener = SILENT
) -> Value:
    """What a step gives, begun anew while the storage does not answer.

    Raises ``MissingError`` where the storage does not come back, or not soon after ``leave`` is due."""
    began, pause = time.monotonic(), LOOK_SECONDS
    while True:
        try:
            return step()
        except backend.faults as error:
            waited = time.monotonic() - began
            if pause == LOOK_SECONDS:
                listener.talk(f"{backend.name} does not answer, and is waited for: {first_line(error)}")
            if waited > (LAST_SECONDS if leave is not None and leave.is_due else PATIENCE_SECONDS):
                raise MissingError(
                    f"{backend.name} did not answer for {format_duration(waited)}: {first_line(error)}",
                    "start the worker again when it does: what was finished is kept",
                ) from None
            time.sleep(pause)
            pause = min(2 * pause, 5.0)


def _said(outcome: RunResult | Failure) -> str:
    return outcome.reason if isinstance(outcome, Failure) else f"{100 * outcome.last.validation_top1:.2f} %"
