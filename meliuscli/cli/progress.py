"""How far long work is: a bar on a terminal, lines elsewhere. The shell listens to long work, and tells it on stderr."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Self

from meliuscli.cli.console import doing, is_quiet, is_shown, note, pulse, status, stderr, talk, tell
from meliuscli.units import format_duration
from meliuscli.work.listener import Listener, Steps

if TYPE_CHECKING:
    import rich.progress

SECONDS_BETWEEN_LINES = 3


class _Shown:
    """A context of something that is shown as being done; what is pushed on ``_doing`` ends with it."""

    def __init__(self) -> None:
        self._doing = ExitStack()
        self._bar: rich.progress.Progress | None = None

    def __exit__(self, *_: object) -> None:
        self._doing.close()

    def _show(self, bar: rich.progress.Progress) -> None:
        self._bar = bar
        bar.start()
        self._doing.callback(bar.stop)


class StageBar(_Shown, Steps):
    """Steps of long work on stderr: a bar with the time left on a terminal, one line a step elsewhere."""

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        super().__init__()
        self._label, self._total, self._done, self._quiet = label, total, done, is_quiet()

    def __enter__(self) -> Self:
        self._started, self._first = time.monotonic(), self._done
        if self._done < self._total and not self._quiet and not is_shown():
            talk(f"{self._next()} ...")
        self._now = self._doing.enter_context(pulse.doing(self._next(), is_said=True, repeats=not is_shown()))
        if is_shown():
            import rich.progress

            bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(bar_width=20),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TextColumn("left"),
                rich.progress.TimeRemainingColumn(),
                console=stderr(),
                transient=True,
                speed_estimate_period=600,
            )
            self._task = bar.add_task(self._label, total=self._total, completed=self._done)
            self._show(bar)
        return self

    def go_on_from(self, done: int) -> None:
        """So many are done already; those before do not count for the time left."""
        self._first += done - self._done
        self._done = done
        self._now.message = self._next()

    def within(self, part: float, label: str) -> None:
        """``part`` (0 to 1) of the next step is done: a terminal's bar says so, with ``label`` in front."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done + part, description=label)

    def step(self, message: str) -> None:
        """One more is done."""
        self._done += 1
        self._now.message = self._next()
        if self._bar is not None:
            note(message)
            self._bar.console.print(message, markup=False)
            self._bar.update(self._task, completed=self._done)
            return
        if self._quiet:
            return
        each = (time.monotonic() - self._started) / (self._done - self._first)
        to_do = self._total - self._done
        left = f" ({format_duration(each * to_do)} left)" if to_do > 0 else ""  # of this stage; others may follow
        tell(f"{self._done} of {self._total} {self._label}s: {message}{left}")  # a count, not a name
        pulse.heard(says_it=to_do > 0)
        if to_do <= 0:
            self._doing.close()

    def _next(self) -> str:
        return f"{self._done} of {self._total} are done, the next {self._label} takes a moment"


class Counter(_Shown):
    """Many small steps on stderr: a bar with the time left on a terminal, a line every few seconds elsewhere; nothing
    where it is not called."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self._label = label
        self._began: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        self._doing.enter_context(doing(self._label))
        return self

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` steps are done."""
        now = time.monotonic()
        if self._began is None:
            self._began, self._told = (now, done), now
            if is_shown():
                self._doing.enter_context(pulse.doing(self._label, is_said=True, repeats=False))
                self._show(_counting_bar(self._label, total))
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done)
            return
        began, first = self._began
        if done > first and now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            left = format_duration((now - began) / (done - first) * (total - done))
            talk(f"{self._label} {done:,}/{total:,} ({left} left)")


def _counting_bar(label: str, total: int) -> rich.progress.Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, TextColumn("left"), console=stderr(), transient=True)
    bar.add_task("", total=total)
    return bar


class Shell(Listener):
    """Tells what long work does on stderr."""

    def talk(self, message: str) -> None:
        talk(message, "yellow" if message.startswith("warning") else "")

    def status(self, message: str) -> AbstractContextManager[object]:
        return status(message)

    def stage(self, noun: str, total: int, done: int = 0) -> StageBar:
        return StageBar(noun, total, done)

    def counter(self, noun: str) -> Counter:
        return Counter(noun)


SHELL = Shell()
