"""Data sets for commands: loaded and prepared, with what takes long, or is worth knowing, on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from meliuscli.cli.console import talk
from meliuscli.units import format_duration

if TYPE_CHECKING:
    from rich.progress import Progress

    from meliuscli.data.batches import Prepared
    from meliuscli.data.catalog import Dataset
    from meliuscli.data.folder import ImageFolder


def prepare_and_tell(dataset: Dataset | ImageFolder, input_size: int) -> Prepared:
    """``prepare``, with its progress and notes."""
    from meliuscli.data.batches import prepare

    with _Decoding() as decoding:
        prepared = prepare(dataset, input_size, decoding)
    for note in prepared.notes:
        talk(f"note: {note}")
    return prepared


class _Decoding:
    """A bar with the time left on a terminal, a line every tenth elsewhere; nothing where nothing is decoded."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._began: tuple[float, int] | None = None
        self._tenth = -1

    def __enter__(self) -> _Decoding:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        if self._began is None:
            self._began = time.monotonic(), done
            if sys.stderr.isatty():
                self._bar = _bar(total)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done)
        elif (tenth := 10 * done // total) > self._tenth:
            self._tenth = tenth
            began, first = self._began
            each = (time.monotonic() - began) / max(1, done - first)
            left = f" ({format_duration(each * (total - done))} left)" if done > first else ""
            talk(f"decoding images {done:,}/{total:,}{left}")


def _bar(total: int) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("decoding images"), BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, TextColumn("left"), console=Console(stderr=True), transient=True)
    bar.add_task("", total=total)
    bar.start()
    return bar
