"""Published counts held against ours, to the digits that they print and under the rule of their source."""

from __future__ import annotations

from meliuscli.arch.published import COUNTS, Published
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import CONVENTIONS
from meliuscli.counting.counts import Storage


def prints_as(printed: str, value: float) -> bool:
    """Is ``value``, rounded to the digits that ``printed`` shows (``208.13e6``, ``3.88``), what is printed?"""
    mantissa, _, exponent = printed.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    scaled = value / 10.0 ** int(exponent or 0)
    return bool(abs(scaled - float(mantissa)) <= 0.5 * 10.0**-decimals + 1e-9)


def ours(row: Published) -> dict[str, float]:
    """Our count of each quantity that the row prints, under the row's convention."""
    total = count_spec(row.spec, Storage(bn_params=row.bn_params)).total
    derived = CONVENTIONS[row.convention].derive(total)
    values = {
        "bops": derived.bops,
        "flops": derived.flops,
        "ops": derived.ops,
        "size_mib": total.size_bytes / 2**20,
        "params": total.params,
    }
    return {what: value for what in COUNTS if getattr(row, what) and (value := values[what]) is not None}


def disagreements(row: Published) -> dict[str, float]:
    """Our value of each quantity in which the row does not print what we count."""
    return {what: value for what, value in ours(row).items() if not prints_as(getattr(row, what), value)}
