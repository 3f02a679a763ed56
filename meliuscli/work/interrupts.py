"""Ctrl-C and SIGTERM: that one came, whatever others make of it, and work whose steps should end before it stops."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from meliuscli.errors import InterruptedByUser

PATIENCE_SECONDS = 1.0
"""After which is said what a Ctrl-C waits for."""

_came: list[int] = []
"""The signals that interrupted this process, in order."""


def hear_interrupts() -> None:
    """Remember a Ctrl-C, which interrupts as ever, and let SIGTERM (of a scheduler, ``timeout``, a shutdown) do the same.
    Libraries turn ``KeyboardInterrupt`` into errors of their own. One of several processes of a training is ended by their
    launcher, with SIGTERM, where another failed: it would wait for that one."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and "RANK" not in os.environ:
        signal.signal(signal.SIGTERM, _interrupt)


def was_interrupted() -> bool:
    """Has a signal interrupted this process?"""
    return bool(_came)


def exit_code() -> int:
    """What shells expect of a program that a signal ended: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (_came[0] if _came else signal.SIGINT)


def heed_interrupt() -> None:
    """Where a library's error is caught: raises ``KeyboardInterrupt`` if it was made of one."""
    if was_interrupted():
        raise KeyboardInterrupt from None


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _came.append(number)
    raise KeyboardInterrupt


@contextmanager
def telling_what_is_kept(kept: str, way: str) -> Iterator[None]:
    """Around what is done last, when all that took long is kept: raises ``InterruptedByUser`` with that, and with the way to
    the rest, for a Ctrl-C and for the error that a library made of one."""
    before = len(_came)
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedByUser(kept, way) from None
    except Exception:
        if len(_came) > before:
            raise InterruptedByUser(kept, way) from None
        raise


@contextmanager
def first_interrupt_waits(tell: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """The first signal that interrupts is asked for, so that the step at hand ends and is kept, and ``tell`` is called where
    that takes more than a moment; the second interrupts at once. A signal that is ignored (``nohup``, ``&`` in a script) stays
    so, one that ends the process at once does, and nothing changes outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = False
    timer = threading.Timer(PATIENCE_SECONDS, tell)
    timer.daemon = True

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        _came.append(number)
        if asked:
            raise KeyboardInterrupt
        asked = True
        timer.start()

    untouched = (signal.SIG_IGN, signal.SIG_DFL)
    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) not in untouched]
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        timer.cancel()
