"""What a benchmark measured, as values: no torch, no llvmlite."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

PACKED, EAGER, C = "packed", "eager", "C"
"""The names of our own run among those of others, of torch's as it is, and of a compiled C library."""
WARM_UP = 2
Counting = Callable[[int, int], None]
"""Told how many are done of how many."""
BUSY = 1.1
"""Wall time over processor time from which on the machine was busy with something else."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Seconds of wall and processor time (all threads together), a run each."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles of the wall time."""
        if len(self.wall) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.wall, n=4, method="inclusive")
        return (high - low) / 2

    def times(self, other: Samples, threads: int) -> float:
        """How many times as long as ``other``: the median over pairs of runs. On one thread by processor time, which
        other work on the machine changes least."""
        mine, theirs = (self.cpu, other.cpu) if threads == 1 else (self.wall, other.wall)
        return statistics.median(a / b for a, b in zip(mine, theirs, strict=True))

    def times_apart(self, other: Samples, threads: int) -> float:
        """As ``times`` of what was not run in turns with it: the ratio of the medians."""
        return self.cpu_median / other.cpu_median if threads == 1 else self.median / other.median


@dataclass(frozen=True, slots=True)
class PartTime:
    """Median seconds (of the processor where there is one thread, else wall) of a part of the network, by kind of work,
    and its binary MACs for the batch."""

    part: str
    binary: float
    pack: float
    float_: float
    binary_macs: int

    @property
    def total(self) -> float:
        return self.binary + self.pack + self.float_


@dataclass(frozen=True, slots=True)
class Timed:
    """A network on this machine. ``runs`` by name: first what the others are held against, ``PACKED``, or ``EAGER`` for a
    module that torch alone can run (which has no ``archid``), or what runs a file as it is. ``missing`` says why something was not measured.
    ``size_bytes``: of weights at their bits; ``file_bytes``: of the file that was run, where there is one."""

    arch: str
    archid: str | None
    input_shape: tuple[int, ...]
    batch: int
    threads: int
    runs: dict[str, Samples]
    missing: dict[str, str]
    compile_seconds: float
    size_bytes: int
    file_bytes: int | None = None

    @property
    def reference(self) -> str:
        return next(iter(self.runs))

    @property
    def first(self) -> Samples:
        return self.runs[self.reference]

    @property
    def clock(self) -> str:
        """What parts and convolutions are timed by: see ``program.clock``."""
        return "CPU time" if self.threads == 1 else "wall time"

    @property
    def busy(self) -> float:
        """Wall time over what the processors gave us: above ``BUSY`` something else ran."""
        return self.first.median * self.threads / self.first.cpu_median


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult(Timed):
    """A packed network. ``binary_seconds`` is what its binary convolutions alone take, one behind the other, and
    ``conv_seconds`` what they take elsewhere, by number format (processor time on one thread, else wall). The twin's size
    is for 32 bits."""

    isa: str
    checked_layers: int
    checked_values: int
    parts: tuple[PartTime, ...]
    binary_seconds: float
    conv_seconds: dict[str, float]
    num_convs: int
    left: tuple[str, ...]
    twin_size_bytes: int

    @property
    def pack_seconds(self) -> float:
        return sum(part.pack for part in self.parts)

    @property
    def binary_macs(self) -> int:
        return sum(part.binary_macs for part in self.parts)

    def divisor(self, with_pack: bool = False) -> float | None:
        """How many times as long the same convolutions take in fp32: what the theory takes to be 64."""
        fp32 = self.conv_seconds.get("fp32")
        return fp32 and fp32 / (self.binary_seconds + (self.pack_seconds if with_pack else 0.0))


def in_turns(
    contenders: Mapping[str, Callable[[], object]], runs: int, counter: Counting = lambda *_: None
) -> dict[str, Samples]:
    """Each once a round, so that whatever slows the machine slows them alike. ``counter`` is told of every round."""
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(-WARM_UP, runs):
        for name, run in contenders.items():
            run()  # its weights in the cache, as in use
            started, began = time.perf_counter(), time.process_time()
            run()
            if turn >= 0:
                cpu[name].append(time.process_time() - began)
                wall[name].append(time.perf_counter() - started)
        counter(turn + WARM_UP + 1, runs + WARM_UP)
    return {name: Samples(tuple(wall[name]), tuple(cpu[name])) for name in contenders}
