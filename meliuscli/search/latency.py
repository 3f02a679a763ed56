"""Measured latency as what a search keeps low."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.results import processor
from meliuscli.search.cost import Cost
from meliuscli.search.space import SearchSpace
from meliuscli.units import format_ms

if TYPE_CHECKING:
    from meliuscli.packed.latency import LatencyTable


def latency_cost(table: LatencyTable) -> Cost:
    """Seconds of one image at the target input."""
    rule = f"one image on one thread, kernels {table.isa.name} on {processor()}; measured parts, added up"
    return Cost("latency_seconds", "latency", "ms", lambda candidate: table.seconds(candidate.spec), format_ms, rule)


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
    def sentence(self) -> str:
        sizes = [abs(error) for error in self.errors]
        return (
            f"predicted latencies of {len(sizes)} random candidates differ from direct measurements by"
            f" {100 * statistics.median(sizes):.1f} % in the median and {100 * max(sizes):.1f} % at most"
        )

    def fields(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"predicted_seconds": self.predicted, "measured_seconds": self.measured}


def check_predictions(table: LatencyTable, space: SearchSpace, seed: int, count: int = 10) -> Predictions:
    """Random candidates of the space, from the table and measured."""
    from meliuscli.packed.latency import measure_whole

    rng = np.random.default_rng(seed)
    predicted: list[float] = []
    measured: list[float] = []
    while len(measured) < count:
        candidate = space.try_candidate(space.random_params(rng))
        if candidate is not None:
            assert isinstance(candidate.spec, DenseFamilySpec)
            predicted.append(table.seconds(candidate.spec))
            measured.append(measure_whole(candidate.spec, table.isa))
    return Predictions(tuple(predicted), tuple(measured))
