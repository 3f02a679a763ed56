"""How MACs become the BOPs, FLOPs and OPs that papers print."""

from __future__ import annotations

from dataclasses import dataclass

from meliuscli.counting.counts import Count
from meliuscli.errors import unknown_name


@dataclass(frozen=True, slots=True)
class Derived:
    """A count under a convention."""

    bops: int
    flops: int
    ops: int | float


@dataclass(frozen=True, slots=True)
class Convention:
    """``ops = flops + bops / divisor``; ``linear`` says whether linear layers are counted; 1 per MAC."""

    name: str
    linear: bool
    divisor: int
    legend: str

    def derive(self, count: Count) -> Derived:
        flops = count.float_macs - (0 if self.linear else count.linear_macs)
        bops = count.binary_macs
        ops = flops + bops // self.divisor if bops % self.divisor == 0 else flops + bops / self.divisor
        return Derived(bops=bops, flops=flops, ops=ops)


CONVENTIONS = {
    "melius": Convention(
        "melius",
        linear=False,
        divisor=64,
        legend="OPs = FLOPs + BOPs/64, convolutions only (no classifier, no batch norm), 1 per MAC: MeliusNet's rule",
    ),
    "full": Convention(
        "full",
        linear=True,
        divisor=64,
        legend="OPs = FLOPs + BOPs/64, convolutions and classifier (no batch norm), 1 per MAC: MobileNet's rule",
    ),
}
MELIUS = CONVENTIONS["melius"]
FULL = CONVENTIONS["full"]
SIZE_LEGEND = "size: 1 bit a binary weight, 32 bits any other, 2 values a batch-norm channel; MiB = 2^20 bytes"


def find_convention(name: str) -> Convention:
    """The convention of that name. Raises ``BadInputError`` with the nearest names."""
    if name.lower() not in CONVENTIONS:
        raise unknown_name("convention", name, CONVENTIONS, "--convention")
    return CONVENTIONS[name.lower()]
