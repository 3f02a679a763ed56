"""What worker processes have in common: they leave Ctrl-C to their parent, and do not outlive it; and where stdout goes of
code that is not ours."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Around the start of workers: they inherit it. Ctrl-C goes to the whole process group."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


def end_with_parent() -> None:
    """From now on this worker ends when its parent is gone, killed even, so that no orphan keeps a core busy; and at once when
    its work is done, without a search for garbage in all of torch."""
    atexit.register(gc.freeze)
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """What foreign code prints, itself or in processes that it starts, goes to stderr: stdout carries our answer."""
    with redirect_stdout(sys.stderr):
        saved = _redirect_descriptor()
        try:
            yield
        finally:
            if saved is not None:
                _flush_stdout()
                os.dup2(saved, 1)
                os.close(saved)


def _redirect_descriptor() -> int | None:
    """Descriptor 1 becomes a copy of 2; returns what it was, or None where one of them is closed."""
    try:
        _flush_stdout()
        os.fstat(2)
        saved = os.dup(1)
        os.dup2(2, 1)
    except OSError:
        return None
    return saved


def _flush_stdout() -> None:
    with suppress(AttributeError, ValueError, OSError):
        sys.__stdout__.flush()  # type: ignore[union-attr]
