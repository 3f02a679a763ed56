"""Narrowing: the same topology with all its widths divided."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping


def narrow(width: int, divisor: int, multiple: int = 1) -> int:
    """``width / divisor``, rounded up to a multiple of ``multiple``."""
    return -(-width // (divisor * multiple)) * multiple


def narrow_all(widths: Iterable[tuple[int, int]], divisor: int) -> Mapping[int, int]:
    """Width -> narrowed width, for pairs of a width and what it must stay a multiple of.

    Equal widths stay equal and different ones different, as shortcuts and transitions depend on that: where rounding
    would make two of them one, the larger takes the next multiple."""
    multiples: dict[int, int] = {}
    for width, multiple in widths:
        multiples[width] = math.lcm(multiples.get(width, 1), multiple)
    narrowed: dict[int, int] = {}
    before = 0
    for width, multiple in sorted(multiples.items()):
        # At least one above the width before it, and a multiple.
        before = max(narrow(width, divisor, multiple), narrow(before + 1, 1, multiple))
        narrowed[width] = before
    return narrowed


def doubled_alike(stem: int, widths: Iterable[int], new_stem: int) -> tuple[int, ...]:
    """Widths behind a stem of ``new_stem`` channels that double where ``widths`` do behind one of ``stem``."""
    before, narrowed = stem, [new_stem]
    for width in widths:
        narrowed.append(narrowed[-1] * width // before)
        before = width
    return tuple(narrowed[1:])
