"""The seeds of a run trained one after another: told as they go, interrupted between steps, recorded at the end."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from meliuscli.errors import FailedError, InterruptedByUser
from meliuscli.runs import Run, record_path
from meliuscli.training.waiting import scheduled, waiting_warning
from meliuscli.work.folders import RUN
from meliuscli.work.interrupts import first_interrupt_waits, telling_what_is_kept
from meliuscli.work.listener import SILENT, Listener, Steps

if TYPE_CHECKING:
    from meliuscli.training.loop import EpochMetrics, Training
    from meliuscli.training.start import Ready

REFRESH_SECONDS = 0.5
Measured = Callable[[str, int, Mapping[str, float]], None]
LOOK_SECONDS = 10.0
"""Of training, after which is looked at how much of it was waiting."""
WAITS = "interrupted: the step at hand ends and is kept; a second Ctrl-C stops at once ..."


def conduct_run(ready: Ready, listener: Listener = SILENT) -> tuple[Run | None, FailedError | InterruptedByUser | None]:
    """Train the seeds that are left: the record, None where no seed is finished, and what ended the run early, if anything.

    Raises ``MissingError`` where nothing can be written."""
    try:
        failure = train_seeds(ready, listener if ready.session.processes.leads else SILENT)
        command = RUN.resume_command(ready.session.directory)
        kept = "interrupted while the record was written; what is trained is kept"
        with telling_what_is_kept(kept, f"continue with: {command}"):
            record = ready.session.finish(failure)
    finally:
        ready.session.release()
    path = record_path(ready.session.reports, ready.session.plan.id)
    return (None if record is None else Run(path, record)), failure


def train_seeds(ready: Ready, listener: Listener = SILENT) -> FailedError | InterruptedByUser | None:
    """Train the seeds that are left; what ended it early, if anything."""
    session, plan = ready.session, ready.session.plan
    # What is counted is validations: one an epoch, and where else the recipe says.
    marks = sorted(plan.recipe.validation_steps(len(ready.data.train[1])))
    for note in plan.execution.notes:
        listener.talk(note)
    listener.begun(plan.id, plan.fields())
    stage = listener.stage("epoch", len(marks) * plan.seeds, len(marks) * len(session.runs))
    with stage as steps, first_interrupt_waits(lambda: listener.talk(WAITS)) as asked:
        watch = _Watch(steps, listener.measured, asked, marks, plan.first_seed, len(session.runs))
        threads = _Threads(plan.execution.threads if plan.execution.device == "cpu" else 1, listener)

        def on_step(training: Training) -> None:
            watch.on_step(training)
            threads.look()

        try:
            for result in session.train(ready.data, ready.teacher, watch.on_epoch, on_step):
                if result.test_top1 is not None:
                    listener.measured(f"seed-{result.seed}", marks[-1], {"test_top1": result.test_top1})
                watch.next(len(session.runs))
        except (InterruptedByUser, KeyboardInterrupt) as error:
            kept = error.message if isinstance(error, InterruptedByUser) else "the last checkpoint"
            finished = f"{len(session.runs)} of {plan.seeds} trainings are finished"
            command = RUN.resume_command(session.directory)
            return InterruptedByUser(f"interrupted; {finished}, and {kept} is kept", f"continue with: {command}")
        except FailedError as error:
            return error
    return None


class _Threads:
    """Warns once, when a training is on its way, that its threads wait longer than they work."""

    def __init__(self, threads: int, listener: Listener) -> None:
        self._threads, self._listener = threads, listener
        self._began, self._before = time.monotonic(), scheduled()

    def look(self) -> None:
        if self._before is not None and time.monotonic() - self._began > LOOK_SECONDS:
            if (warning := waiting_warning(self._before, scheduled(), self._threads)) is not None:
                self._listener.talk(warning)
            self._before = None


class _Watch:
    """Counts images and says what came of each epoch."""

    def __init__(
        self,
        steps: Steps,
        measured: Measured,
        asked: Callable[[], bool],
        marks: list[int],
        first_seed: int,
        done: int,
    ) -> None:
        self._steps, self._measured = steps, measured
        self._asked, self._marks, self._first_seed = asked, marks, first_seed
        self.next(done)

    def next(self, done: int) -> None:
        """The training that follows so many."""
        self._done, self._seed, self._begun = done, self._first_seed + done, False

    def on_step(self, training: Training) -> None:
        now, marks = time.monotonic(), self._marks
        if not self._begun:
            self._begun, self._images, self._since, self._shown = True, 0, now, now
            # A resumed training begins in the middle.
            self._steps.go_on_from(len(marks) * self._done + bisect_right(marks, training.step - 1))
        self._images += training.recipe.batch_size
        self._step = training.step
        if self._asked():
            raise InterruptedByUser(f"seed {self._seed} up to epoch {training.epoch:.2f}")
        if now - self._shown > REFRESH_SECONDS and training.losses:
            self._shown = now
            live = f"loss {training.losses[-1].item():.3f}, {self._rate(now):.0f} images/s, epoch"
            place = bisect_right(marks, training.step)
            before, after = [0, *marks, marks[-1] + 1][place : place + 2]
            self._steps.within((training.step - before) / (after - before), live)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        now = time.monotonic()
        self._steps.step(
            f"seed {self._seed} epoch {metrics.epoch:.3g}: train loss {metrics.train_loss:.4f}, validation loss"
            f" {metrics.validation_loss:.4f}, top-1 {100 * metrics.validation_top1:.2f} %, {self._rate(now):.0f} images/s"
        )
        self._measured(f"seed-{self._seed}", self._step, {**asdict(metrics), "images_per_second": self._rate(now)})
        self._images, self._since = 0, now

    def _rate(self, now: float) -> float:
        return self._images / max(now - self._since, 1e-9)
