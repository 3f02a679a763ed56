"""A network as a list of steps, each a kernel with its arguments and a range of work units, and the function that runs
them: every thread takes its share of each step and waits for the others before the next."""

from __future__ import annotations

import ctypes
import math
import os
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from meliuscli.packed.engine import address_of
from meliuscli.packed.isa import Isa
from meliuscli.packed.run_kernel import run_ir, sequence_ir

Array = NDArray[Any]
Kind = Literal["binary", "pack", "float"]
Argument = int | float | Array


def clock(threads: int) -> Callable[[], float]:
    """What parts are timed by: processor time on one thread, which other work on the machine changes least, else wall
    time (threads that wait for each other use the processor too)."""
    return time.process_time if threads == 1 else time.perf_counter


def zeros(shape: Sequence[int] | int, dtype: Any = np.float32, spare: int = 64) -> Array:
    """Zeros at a multiple of 64 bytes, with ``spare`` more elements behind them that kernels may touch."""
    count = math.prod(shape) if isinstance(shape, Sequence) else shape
    size = np.dtype(dtype).itemsize
    raw = np.zeros((count + spare) * size + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    whole: Array = raw[skip : skip + count * size].view(dtype).reshape(shape)
    return whole


def aligned(array: Any, dtype: Any) -> Array:
    """A copy of an array as ``zeros`` makes it."""
    array = np.asarray(array)
    copy = zeros(array.shape, dtype)
    copy[...] = array
    return copy


@dataclass(frozen=True, slots=True)
class Step:
    """Work units ``begin`` to ``end`` of a kernel, for a layer, or for what a network does as one: its stem, a
    transition, its head. ``arguments`` are in the order of the kernel's names:
    addresses of arrays (which the step keeps alive), whole numbers, or floats. ``key`` is the same for steps that do
    the same work, whatever the values. ``stage`` is where in the network the step lies, as its plan says."""

    layer: str
    kind: Kind
    key: str
    address: int
    arguments: Array
    begin: int
    end: int
    keeps: tuple[Array, ...]
    stage: str = ""

    def piece(self, begin: int, end: int) -> Step:
        """The step for some of its units."""
        return replace(self, begin=begin, end=end)


def make_step(
    layer: str,
    kind: Kind,
    kernel: str,
    isa: Isa,
    make: Callable[[], str],
    names: tuple[str, ...],
    values: Mapping[str, Argument],
    units: int,
) -> Step:
    """A step of the kernel that ``make`` gives the IR of; ``names`` are its arguments' names, in order."""
    assert tuple(values) == names, kernel
    words = zeros(len(values), np.int64)
    plain = []
    for index, value in enumerate(values.values()):
        if isinstance(value, np.ndarray):
            words[index] = value.ctypes.data
            continue
        words[index] = value if isinstance(value, int) else struct.unpack("<i", struct.pack("<f", value))[0]
        plain.append(str(value))
    keeps = tuple(value for value in values.values() if isinstance(value, np.ndarray))
    key = " ".join([kernel, str(units), *plain])
    return Step(layer, kind, key, address_of(isa, kernel, make), words, 0, units, keeps)


def sequence_step(layer: str, isa: Isa, shares: Sequence[Sequence[Step]]) -> Step:
    """A step of float work whose units are lists of steps, each for one thread to run on its own."""
    tables = [_table(steps) for steps in shares]
    values: dict[str, Argument] = {
        "run": address_of(isa, "run", run_ir),
        "lists": aligned([[table.ctypes.data, len(table)] for table in tables], np.int64),
    }
    step = make_step(layer, "float", "sequence", isa, sequence_ir, ("run", "lists"), values, len(shares))
    inner = [array for steps in shares for step in steps for array in (step.arguments, *step.keeps)]
    key = " ".join(["sequence", *(step.key for step in shares[0])])
    return replace(step, key=key, keeps=(*step.keeps, *tables, *inner))


def _table(steps: Sequence[Step]) -> Array:
    rows = [(step.address, step.arguments.ctypes.data, step.begin, step.end) for step in steps]
    return aligned(np.array(rows, np.int64).reshape(-1, 4), np.int64)


class Crew:
    """The caller and ``threads - 1`` more, who do one thing together at a time."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._process = 0
        self._pool: ThreadPoolExecutor | None = None

    def together(self, work: Callable[[int], None]) -> None:
        """``work(thread)`` for every thread from 0 on."""
        if self.threads > 1 and self._process != os.getpid():  # a fork has none of its parent's threads
            self._process, self._pool = os.getpid(), ThreadPoolExecutor(self.threads - 1)
        others = [self._pool.submit(work, thread) for thread in range(1, self.threads)] if self._pool else []
        work(0)
        for other in others:
            other.result()


class Program:
    """Steps ready to run. Not for several callers at a time: they share the maps, and the crew."""

    def __init__(self, isa: Isa, steps: Sequence[Step], crew: Crew) -> None:
        self.steps, self._crew = tuple(steps), crew
        self._table = _table(steps)
        self._run = _RUN(address_of(isa, "run", run_ir))
        self._counter = zeros(8, np.int64)
        self._give_away = ctypes.cast(_give_away(), ctypes.c_void_p).value or 0

    def run(self, first: int = 0, last: int | None = None) -> None:
        """Run the steps from ``first`` to before ``last``."""
        count = (len(self.steps) if last is None else last) - first
        if count <= 0:
            return
        table, threads = self._table[first].ctypes.data, self._crew.threads
        self._counter[0] = 0

        def share(thread: int) -> None:
            self._run(table, count, thread, threads, self._counter.ctypes.data, self._give_away)

        self._crew.together(share)


_RUN = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p
)


@ctypes.CFUNCTYPE(None)  # type: ignore[untyped-decorator]
def _yield_in_python() -> None:
    os.sched_yield() if hasattr(os, "sched_yield") else threading.Event().wait(0)


def _give_away() -> Any:
    """The C function that gives the processor to another thread."""
    try:
        return ctypes.CDLL(None).sched_yield
    except (OSError, AttributeError, TypeError):
        return _yield_in_python
