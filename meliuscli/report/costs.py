"""What a network costs, as the value that Python gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.counts import By, NetworkCount
from meliuscli.report.count import count_table
from meliuscli.report.count_value import count_object
from meliuscli.report.counted import Counted, View
from meliuscli.report.tables import Table, to_text


@dataclass(frozen=True, slots=True)
class NetworkCosts:
    """What a network costs for one image, exactly. MACs are those of all layers, whatever the convention; ``ops``,
    ``bops`` and ``flops`` are totals under it; ``size_bytes`` has weights at their bits."""

    counted: Counted
    view: View

    @property
    def spec(self) -> ArchSpec:
        assert self.counted.spec is not None
        return self.counted.spec

    @property
    def counts(self) -> NetworkCount:
        """Layer by layer, with the total."""
        return self.counted.count

    @property
    def ops(self) -> float | None:
        """OPs under the convention; None where it has no total."""
        return self.view.convention.derive(self.counts.total, self.view.float_bits).ops

    @property
    def bops(self) -> int:
        return self.view.convention.derive(self.counts.total, self.view.float_bits).bops

    @property
    def flops(self) -> int:
        return self.view.convention.derive(self.counts.total, self.view.float_bits).flops

    @property
    def binary_macs(self) -> int:
        return self.counts.total.binary_macs

    @property
    def float_macs(self) -> int:
        return self.counts.total.float_macs

    @property
    def params(self) -> int:
        return self.counts.total.params

    @property
    def size_bytes(self) -> int:
        return self.counts.total.size_bytes

    def table(self, by: By = "stage") -> Table:
        """What ``meliuscli count`` prints."""
        return count_table(self.counted, by, self.view)

    def to_dict(self, by: By = "stage") -> dict[str, Any]:
        """What ``meliuscli count --format json --no-verify`` prints, without the version of its schema."""
        return count_object(self.counted, by, self.view, None)

    def __str__(self) -> str:
        return to_text(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()
