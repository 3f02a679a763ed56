"""Who hears what long work does. The command line is one listener; from Python nobody listens unless asked to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Steps(Protocol):
    """Steps of one stage, of which each is told as it ends."""

    def step(self, message: str) -> None:
        """One more is done."""


class Listener:
    """Hears notes, moments of waiting, stages of many steps, and counts. This one keeps silent."""

    def talk(self, message: str) -> None:
        """A note for people."""

    def status(self, message: str) -> AbstractContextManager[object]:
        """Something takes a moment, as long as the context lasts."""
        return nullcontext()

    def stage(self, noun: str, total: int, done: int = 0) -> AbstractContextManager[Steps]:
        """A stage of ``total`` steps begins, of which ``done`` were done before."""
        return nullcontext(_Unheard())

    def counter(self, noun: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Many small steps begin; the context's value is called with how many of how many are done."""
        return nullcontext(lambda done, total: None)


class _Unheard:
    def step(self, message: str) -> None:
        pass


SILENT = Listener()
