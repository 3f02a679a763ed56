"""What worker processes have in common: they leave Ctrl-C to their parent, and do not outlive it."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
