"""Ctrl-C in work whose steps should end before it stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def first_interrupt_waits() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C is asked for, so that the step at hand ends and is kept; the second interrupts at once. Where the
    signal is ignored (``nohup``, ``&`` in a script) it stays so, and so it does outside of the main thread."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
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
