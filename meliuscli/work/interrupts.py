"""Ctrl-C: that it came, whatever others make of it, and work whose steps should end before it stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE_SECONDS = 1.0
"""After which is said what a Ctrl-C waits for."""

_came = threading.Event()


def hear_interrupts() -> None:
    """Remember a Ctrl-C, which interrupts as ever. Libraries turn ``KeyboardInterrupt`` into errors of their own."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def was_interrupted() -> bool:
    """Has a Ctrl-C interrupted this process?"""
    return _came.is_set()


def heed_interrupt() -> None:
    """Where a library's error is caught: raises ``KeyboardInterrupt`` if it was made of one."""
    if was_interrupted():
        raise KeyboardInterrupt from None


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    _came.set()
    raise KeyboardInterrupt


@contextmanager
def first_interrupt_waits(tell: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C is asked for, so that the step at hand ends and is kept, and ``tell`` is called where that takes more
    than a moment; the second interrupts at once. Where the signal is ignored (``nohup``, ``&`` in a script) it stays so, and
    so it does outside of the main thread."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield lambda: False
        return
    asked = False
    timer = threading.Timer(PATIENCE_SECONDS, tell)
    timer.daemon = True

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        timer.start()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
        timer.cancel()
