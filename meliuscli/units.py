"""Numbers as people write them, both ways: ``5e8`` <-> ``500M``, bytes <-> ``3.88 MiB``, ``90s`` <-> ``1m30s``, ``5ms``."""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation

from meliuscli.errors import BadInputError

_COUNT_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_BYTE_SUFFIXES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_LATENCY_SUFFIXES = {"us": 1, "ms": 10**3, "s": 10**6}
_SECOND_SUFFIXES = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
# A comma only between thousands: 0,5G is refused, not read as 5G.
_NUMBER = re.compile(r"((?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|[0-9_.]+)(?:e[+-]?[0-9]+)?)\s*([a-z]*)", re.IGNORECASE)


def _parse(text: str, suffixes: dict[str, int], what: str, examples: str, option: str) -> Decimal:
    match = _NUMBER.fullmatch(text.strip())
    hint, given = f"write it as {examples}", f"{option}: {text!r}" if option else repr(text)
    if match is None or match.group(2).lower() not in suffixes:
        raise BadInputError(f"{given} is not {what}", hint)
    try:
        value = Decimal(match.group(1).replace("_", "").replace(",", ""))
    except InvalidOperation:
        raise BadInputError(f"{given} is not {what}", hint) from None
    value *= suffixes[match.group(2).lower()]
    if not 0 < value < Decimal("1e18"):
        raise BadInputError(f"{given} is out of range for {what}", hint)
    return value


def parse_count(text: str, option: str = "") -> int:
    """Operations or images: ``5e8``, ``500M``, ``0.5G``, ``500_000_000`` -> 500000000.

    Raises ``BadInputError``, which names ``option``, for anything that is not a positive number of at least one."""
    value = _parse(text, _COUNT_SUFFIXES, "a count", "5e8, 500M or 0.5G", option)
    if value != int(value):
        raise BadInputError(
            f"{f'{option}: ' if option else ''}{text!r} is not a whole number", "write it as 5e8, 500M or 0.5G"
        )
    return int(value)


def parse_bytes(text: str, option: str = "") -> int:
    """Size: ``4MiB``, ``4 MB``, ``4194304`` -> bytes. MiB is 2**20 bytes, MB is 10**6."""
    return math.floor(_parse(text, _BYTE_SUFFIXES, "a size", "4MiB (2^20 bytes), 4MB (10^6) or 4194304", option))


_SEVERAL = re.compile(r"(?=.)(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?", re.ASCII)
"""Hours, minutes and seconds, as ``format_duration`` writes them."""


def parse_duration(text: str, option: str = "") -> float:
    """Time: ``90``, ``90s``, ``1.5m``, ``2h``, ``3h50m`` -> seconds."""
    if (parts := _SEVERAL.fullmatch(text.strip())) is not None:
        return float(sum(int(part) * seconds for part, seconds in zip(parts.groups("0"), (3600, 60, 1), strict=True)))
    return float(_parse(text, _SECOND_SUFFIXES, "a duration", "90s, 5m, 2h or 3h50m", option))


def parse_latency(text: str, option: str = "") -> float:
    """``5ms``, ``800us``, ``0.01s`` -> seconds; the unit must be there.

    Raises ``BadInputError``, which names ``option``."""
    return float(_parse(text, _LATENCY_SUFFIXES, "a latency", "5ms, 800us or 0.01s", option)) / 1e6


def format_ms(seconds: float) -> str:
    """0.00512 -> ``5.12``: milliseconds, three significant digits."""
    return f"{1e3 * seconds:.3g}"


def format_count(value: float) -> str:
    """500000000 -> ``500M``, 208130048 -> ``208.13M``: five significant digits, no trailing zeros."""
    for suffix, scale in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if abs(value) >= scale * 0.999995:
            return _trim(value / scale) + suffix
    return _trim(value)


def format_mib(num_bytes: float) -> str:
    """4065568 -> ``3.877 MiB`` (2^20 bytes); what is below 0.1 MiB in KiB (2^10 bytes): 8992 -> ``8.781 KiB``."""
    return f"{num_bytes / 2**20:.3f} MiB" if num_bytes >= 2**20 / 10 else f"{num_bytes / 2**10:.3f} KiB"


def format_figure(value: float) -> str:
    """For columns of sizes and ratios: 3.877 -> ``3.88``, 0.00858 -> ``0.0086``, 12345.6 -> ``12,346``: two decimals, but at least
    two significant digits, and none behind four digits in front."""
    if value == 0 or 0.1 <= abs(value) < 1000:
        return f"{value:.2f}"
    return f"{value:.2g}" if abs(value) < 0.1 else f"{value:,.0f}"


def format_duration(seconds: float) -> str:
    """90 -> ``1m30s``."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{secs:02d}s" if minutes else f"{secs}s"


def _trim(value: float) -> str:
    text = f"{value:.5g}"
    if "e" in text:
        text = f"{value:.0f}"
    return text
