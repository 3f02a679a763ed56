"""Measured latency as what a search keeps low."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from meliuscli.results import processor
from meliuscli.search.cost import Cost
from meliuscli.search.space import Candidate
from meliuscli.units import format_ms

if TYPE_CHECKING:
    from meliuscli.packed.latency import LatencyTable


def latency_cost(table: LatencyTable) -> Cost:
    """Seconds of one image at the target input."""
    rule = f"one image on one thread, kernels {table.isa.name} on {processor()}; measured parts, added up"
    return Cost(
        "latency_seconds",
        "latency",
        "ms",
        lambda candidate: table.seconds(candidate.spec),
        format_ms,
        rule,
        lambda candidate: table.by_stage(candidate.spec),
    )


MUCH = 0.05
"""A median error from which on the machine was disturbed while the parts were measured, or is now."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Latencies from the table and measured directly, in seconds, for the same networks."""

    predicted: tuple[float, ...]
    measured: tuple[float, ...]

    @property
    def errors(self) -> list[float]:
        """Relative and signed."""
        return [said / true - 1 for said, true in zip(self.predicted, self.measured, strict=True)]

    @property
    def trustworthy(self) -> bool:
        return statistics.median(map(abs, self.errors)) <= MUCH

    @property
    def sentence(self) -> str:
        errors, sizes = self.errors, [abs(error) for error in self.errors]
        return (
            f"predicted latencies of {len(sizes)} candidates from the cheapest to the dearest ({format_ms(min(self.measured))} to"
            f" {format_ms(max(self.measured))} ms) differ from direct measurements by {100 * min(errors):+.1f} to"
            f" {100 * max(errors):+.1f} %, {100 * statistics.median(sizes):.1f} % in the median"
        )

    def fields(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"predicted_seconds": self.predicted, "measured_seconds": self.measured}


def check_predictions(table: LatencyTable, candidates: Sequence[Candidate], count: int = 10) -> Predictions:
    """Candidates spread evenly over the order of latency, from the cheapest to the dearest: from the table, and measured."""
    from meliuscli.packed.latency import measure_whole

    ordered = sorted(candidates, key=lambda candidate: table.seconds(candidate.spec))
    places = np.unique(np.linspace(0, len(ordered) - 1, count).round().astype(int))
    specs = [ordered[place].spec for place in places]
    return Predictions(
        tuple(table.seconds(spec) for spec in specs), tuple(measure_whole(spec, table.isa) for spec in specs)
    )
