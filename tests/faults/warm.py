"""Processes that are forked from one which has everything loaded, and has to stay as it was."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

FORK = multiprocessing.get_context("fork")


def in_child(function: Callable[[], object]) -> object:
    """What a function gives in a process of its own, so that this one stays as it was: no threads, no connections."""
    reader, writer = FORK.Pipe(False)

    def run() -> None:
        try:
            writer.send(function())
        except BaseException:
            writer.send(RuntimeError(traceback.format_exc()))

    process = FORK.Process(target=run)
    process.start()
    value = reader.recv()
    process.join()
    if isinstance(value, RuntimeError):
        raise value
    return value


def load_what_it_loads(function: Callable[[], object]) -> None:
    """Load here the modules that a function loads where it runs, so that no process that is forked from this one has to."""

    def run() -> list[str]:
        function()
        return list(sys.modules)

    names = in_child(run)
    assert isinstance(names, list)
    for name in names:
        with suppress(ImportError):
            importlib.import_module(name)
