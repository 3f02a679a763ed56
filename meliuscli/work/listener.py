"""Who hears what long work does. The command line is one listener; from Python nobody listens unless asked to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any


class Steps:
    """Hears of the steps of one stage. This one keeps silent."""

    def step(self, message: str) -> None:
        """One more is done."""

    def go_on_from(self, done: int) -> None:
        """So many are done already; those before do not count for the time left."""

    def within(self, part: float, label: str) -> None:
        """``part`` (0 to 1) of the next step is done, and ``label`` says how it stands."""


class Listener:
    """Hears notes, moments of waiting, stages of many steps, and counts. This one keeps silent."""

    def talk(self, message: str) -> None:
        """A note for people."""

    def status(self, message: str) -> AbstractContextManager[object]:
        """Something takes a moment, as long as the context lasts."""
        return nullcontext()

    def stage(self, noun: str, total: int, done: int = 0) -> AbstractContextManager[Steps]:
        """A stage of ``total`` steps begins, of which ``done`` were done before."""
        return nullcontext(Steps())

    def counter(self, noun: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Many small steps begin; the context's value is called with how many of how many are done."""
        return nullcontext(lambda done, total: None)

    def begun(self, name: str, settings: Mapping[str, Any]) -> None:
        """Work of this name begins, or goes on, with these settings (plain JSON values)."""

    def measured(self, series: str, step: int, values: Mapping[str, float]) -> None:
        """What was measured at a step of a series: ``seed-0``, whose steps are those of the optimiser, or ``trials``."""


SILENT = Listener()
