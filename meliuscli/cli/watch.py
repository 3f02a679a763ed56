"""What ``meliuscli train`` shows while it trains, and how it ends early."""

from __future__ import annotations

import signal
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from meliuscli.cli.console import Progress, talk
from meliuscli.errors import FailedError, InterruptedByUser
from meliuscli.runs import resume_command
from meliuscli.training.start import Ready

if TYPE_CHECKING:
    from meliuscli.training.loop import EpochMetrics, Training

REFRESH_SECONDS = 0.5


def train_all(ready: Ready) -> FailedError | InterruptedByUser | None:
    """Train the seeds that are left, with progress on stderr; what ended it early, if anything."""
    session, plan = ready.session, ready.session.plan
    leads = session.processes.leads
    # What is counted is validations: one an epoch, and where else the recipe says.
    marks = sorted(plan.recipe.validation_steps(len(ready.data.train[1])))
    if leads:
        for note in plan.execution.notes:
            talk(note)
    progress = Progress("epoch", len(marks) * plan.seeds, len(marks) * len(session.runs), quiet=not leads)
    go_on = f"continue with: {resume_command(plan.id, session.reports)}"
    with progress, _first_interrupt_waits() as asked:
        watch = _Watch(progress, asked, marks, plan.first_seed, len(session.runs))
        try:
            for _ in session.train(ready.data, ready.teacher, watch.on_epoch, watch.on_step):
                watch.next(len(session.runs))
        except (InterruptedByUser, KeyboardInterrupt) as error:
            kept = error.message if isinstance(error, InterruptedByUser) else "the last checkpoint"
            finished = f"{len(session.runs)} of {plan.seeds} trainings are finished"
            return InterruptedByUser(f"interrupted; {finished}, and {kept} is kept", go_on)
        except FailedError as error:
            return error
    return None


class _Watch:
    """Counts images and says what came of each epoch."""

    def __init__(
        self, progress: Progress, asked: Callable[[], bool], marks: list[int], first_seed: int, done: int
    ) -> None:
        self._progress, self._asked, self._marks, self._first_seed = progress, asked, marks, first_seed
        self.next(done)

    def next(self, done: int) -> None:
        """The training that follows so many."""
        self._done, self._seed, self._begun = done, self._first_seed + done, False

    def on_step(self, training: Training) -> None:
        now, marks = time.monotonic(), self._marks
        if not self._begun:
            self._begun, self._images, self._since, self._shown = True, 0, now, now
            # A resumed training begins in the middle.
            self._progress.go_on_from(len(marks) * self._done + bisect_right(marks, training.step - 1))
        self._images += training.recipe.batch_size
        if self._asked():
            raise InterruptedByUser(f"seed {self._seed} up to epoch {training.epoch:.2f}")
        if now - self._shown > REFRESH_SECONDS and training.losses:
            self._shown = now
            live = f"loss {training.losses[-1].item():.3f}, {self._rate(now):.0f} images/s, epoch"
            place = bisect_right(marks, training.step)
            before, after = [0, *marks, marks[-1] + 1][place : place + 2]
            self._progress.within((training.step - before) / (after - before), live)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        now = time.monotonic()
        self._progress.step(
            f"seed {self._seed} epoch {metrics.epoch:.3g}: train loss {metrics.train_loss:.4f}, validation loss"
            f" {metrics.validation_loss:.4f}, top-1 {100 * metrics.validation_top1:.2f} %, {self._rate(now):.0f} images/s"
        )
        self._images, self._since = 0, now

    def _rate(self, now: float) -> float:
        return self._images / max(now - self._since, 1e-9)


@contextmanager
def _first_interrupt_waits() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C is asked for, so that the step at hand ends and is kept; the second interrupts at once. Where the
    signal is ignored (``nohup``, ``&`` in a script) it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield lambda: False
        return
    asked = False

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
