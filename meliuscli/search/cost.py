"""What a search keeps low, and what its budget limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter

from meliuscli.search.space import Candidate
from meliuscli.units import format_count


@dataclass(frozen=True, slots=True)
class Cost:
    """A number a candidate, known without training it."""

    key: str
    """Its column in files."""
    noun: str
    """What it is called in a sentence."""
    unit: str
    of: Callable[[Candidate], float]
    text: Callable[[float], str]
    """As people write it, without the unit."""
    rule: str
    """How it comes about, for the report."""
    by_stage: Callable[[Candidate], Mapping[str, float]] | None = None
    """What each stage has of it, where counts do not say that."""


OPS = Cost(
    "ops",
    "OPs",
    "OPs",
    attrgetter("ops"),
    format_count,
    "at the target input, FLOPs + BOPs/64, convolutions only, 1 per MAC",
)
