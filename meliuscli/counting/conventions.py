"""How MACs become the BOPs, FLOPs, OPs and ACE that papers print: one small value a paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from meliuscli.counting.counts import FLOAT_BITS, Count, Op
from meliuscli.errors import unknown_name

Price = Callable[[int, int], Fraction]
"""The cost of one MAC of (weight bits, activation bits)."""


def bit_products_of_64(weight_bits: int, activation_bits: int) -> Fraction:
    """w*a/64 and at most 1: a MAC of w and a bits is w*a binary ones (DoReFa-Net, arXiv 1606.06160, equation 3), and 64
    binary ones are one operation. An 8x8-bit MAC costs what a float one does."""
    return Fraction(min(weight_bits * activation_bits, 64), 64)


def bit_products(weight_bits: int, activation_bits: int) -> Fraction:
    """w*a: PokeBNN's arithmetic computation effort (arXiv 2112.00133, section 3)."""
    return Fraction(weight_bits * activation_bits)


def lanes_of_64(weight_bits: int, activation_bits: int) -> Fraction:
    """max(w, a)/64: as many lanes as fit into a 64-bit word."""
    return Fraction(max(weight_bits, activation_bits), 64)


@dataclass(frozen=True, slots=True)
class Derived:
    """A count under a convention. ``quantized`` are the MACs that are neither binary nor float; ``ops`` is None where
    the convention has no one number."""

    bops: int
    flops: int
    quantized: int
    ops: int | float | None


@dataclass(frozen=True, slots=True)
class Convention:
    """A paper's rule. ``linear`` and ``elementwise`` say whether linear layers (the classifier, squeeze-and-excite) and
    elementwise work are counted; ``mac_factor`` is what one MAC counts. ``price`` is a MAC's share of the total, None
    where the paper has no total, and ``float_bits`` are the bits at which it prices float MACs where it ``prices_floats``
    (else each is one operation); where it prices a ``mixed`` MAC, of one float operand, that has the bits of the other one
    too. ``bn_params`` are the values of a batch-norm channel in its sizes."""

    name: str
    paper: str
    legend: str
    linear: bool = True
    elementwise: bool = False
    mac_factor: int = 1
    price: Price | None = bit_products_of_64
    prices_floats: bool = False
    mixed: bool = False
    float_bits: int = FLOAT_BITS
    bn_params: int = 2
    unit: str = "OPs"

    def derive(self, count: Count, float_bits: int | None = None) -> Derived:
        """``count`` as this convention prints it. ``float_bits`` prices float MACs at other bits, in the conventions
        that price by bits."""
        factor = self.mac_factor
        macs = [(op, n * factor) for op, n in count.macs if self.linear or op.layer == "conv"]
        flops = sum(n for op, n in macs if op.is_float) + (count.elementwise if self.elementwise else 0)
        bops = sum(n for op, n in macs if op.is_binary)
        quantized = sum(n for op, n in macs if not op.is_float and not op.is_binary)
        return Derived(bops, flops, quantized, self._total(macs, flops, float_bits or self.float_bits))

    def same_total(self, other: Convention) -> bool:
        """Do both give every network the same total?"""
        rules = ("linear", "elementwise", "mac_factor", "price", "prices_floats", "mixed", "float_bits")
        return all(getattr(self, rule) == getattr(other, rule) for rule in rules)

    def _total(self, macs: list[tuple[Op, int]], flops: int, float_bits: int) -> int | float | None:
        if self.price is None:
            return None
        few = [(op, n) for op, n in macs if not op.is_float]
        priced = sum((n * self.price(op.weight_bits, op.activation_bits) for op, n in few), Fraction(0))
        if self.mixed:
            bits = {FLOAT_BITS: float_bits}
            floats = [
                (bits.get(op.weight_bits, op.weight_bits), bits.get(op.activation_bits, op.activation_bits), n)
                for op, n in macs
                if op.is_float
            ]
            priced += sum((n * self.price(weight, activation) for weight, activation, n in floats), Fraction(0))
        else:
            priced += flops * (self.price(float_bits, float_bits) if self.prices_floats else 1)
        return int(priced) if priced.denominator == 1 else float(priced)


_CONVENTIONS = (
    Convention(
        "melius",
        "MeliusNet, arXiv 2001.05936 (BMXNet v2's print_summary)",
        "OPs = FLOPs + BOPs/64, convolutions only (no classifier, no batch norm), 1 per MAC",
        linear=False,
    ),
    Convention(
        "reactnet",
        "ReActNet, arXiv 2003.03488, and Bi-Real Net, arXiv 1808.00278",
        "OPs = FLOPs + BOPs/64, convolutions and classifier (no batch norm), 1 per MAC",
    ),
    Convention(
        "larq",
        "larq's models.summary (larq 0.14)",
        "MACs by the bits of their wider operand, convolutions and linear layers, no one total",
        price=None,
        unit="",
    ),
    Convention(
        "real2binary",
        "Real-to-Binary, arXiv 2003.11535 (its tool: pytorch-estimate-flops)",
        "OPs = FLOPs + BOPs/64; FLOPs with 2 an element for batch norm and ReLU, 1 for additions and multiplications,"
        " k*k (average) or k*k-1 (maximum) an output of pooling, nothing for PReLU, ReLU6 and signs",
        elementwise=True,
    ),
    Convention(
        "ace",
        "PokeBNN, arXiv 2112.00133",
        "ACE = MACs * weight bits * activation bits, float MACs as 16x16 bits, classifier included",
        price=bit_products,
        prices_floats=True,
        float_bits=16,
        unit="ACE",
    ),
    Convention(
        "bnext",
        "BNext, arXiv 2211.12933 (the quantized variants of its README)",
        "OPs = MACs * bits/64 with float parts quantized to 8 bits (1/8 each), classifier included",
        price=lanes_of_64,
        prices_floats=True,
        float_bits=8,
    ),
    Convention(
        "qonnx",
        "qonnx-inference-cost (qonnx 1.0)",
        "bit operations (its total_bops) = MACs * weight bits * activation bits, float operands 32 bits, classifier included,"
        " nothing for the rest",
        price=bit_products,
        prices_floats=True,
        mixed=True,
        unit="bit operations",
    ),
    Convention(
        "full",
        "MobileNet, arXiv 1704.04861 (mult-adds)",
        "OPs = FLOPs + BOPs/64, convolutions and classifier (no batch norm), 1 per MAC",
    ),
)
CONVENTIONS = {convention.name: convention for convention in _CONVENTIONS}
MELIUS = CONVENTIONS["melius"]
FULL = CONVENTIONS["full"]


def find_convention(name: str) -> Convention:
    """The convention of that name. Raises ``BadInputError`` with the nearest names."""
    if name.lower() not in CONVENTIONS:
        raise unknown_name("convention", name, CONVENTIONS, "--convention")
    return CONVENTIONS[name.lower()]
