"""What a benchmark measured, as values: no torch, no llvmlite."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

PACKED = "packed"
"""The name of our own run among those of others."""
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
class BenchResult:
    """A network on this machine. ``runs`` by name, ``packed`` first; ``binary_seconds`` is what its binary convolutions
    alone take, one behind the other, and ``conv_seconds`` what they take elsewhere, by number format (processor time on
    one thread, else wall); ``missing`` says why something was not measured. Sizes are for weights at their bits, the
    twin's for 32 bits."""

    arch: str
    archid: str
    input_shape: tuple[int, int, int]
    batch: int
    threads: int
    isa: str
    checked_layers: int
    checked_values: int
    runs: dict[str, Samples]
    parts: tuple[PartTime, ...]
    binary_seconds: float
    conv_seconds: dict[str, float]
    num_convs: int
    left: tuple[str, ...]
    missing: dict[str, str]
    compile_seconds: float
    size_bytes: int
    twin_size_bytes: int

    @property
    def packed(self) -> Samples:
        return self.runs[PACKED]

    @property
    def clock(self) -> str:
        """What parts and convolutions are timed by: see ``program.clock``."""
        return "CPU time" if self.threads == 1 else "wall time"

    @property
    def busy(self) -> float:
        """Wall time over what the processors gave us: above ``BUSY`` something else ran."""
        return self.packed.median * self.threads / self.packed.cpu_median

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
