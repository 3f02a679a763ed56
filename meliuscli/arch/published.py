"""What papers report for a network: accuracies on ImageNet-1k and their own counts, each with its source."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import spec_from_fields, zoo_table


@dataclass(frozen=True, slots=True)
class Published:
    """A row of published.csv. Counts are text as printed, so that their digits are known; empty where none is
    printed. ``classifier`` says whether the operations include the linear classifier; None when none are printed."""

    arch: str
    stem: str
    bops: str
    flops: str
    ops: str
    size_mib: str
    params: str
    top1: str
    top5: str
    classifier: bool | None
    source: str

    @property
    def spec(self) -> ArchSpec:
        """The network that the row is about."""
        changes = {"stem": self.stem} if self.stem else {}
        return spec_from_fields({**zoo_table()[self.arch], **changes})


@cache
def published_rows() -> tuple[Published, ...]:
    """All rows."""
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    verdict = {"yes": True, "no": False, "": None}
    return tuple(Published(**{**row, "classifier": verdict[row["classifier"]]}) for row in rows)  # type: ignore[arg-type]


def published_for(spec: ArchSpec) -> Published | None:
    """What is published for exactly this architecture, if anything."""
    for row in published_rows():
        if _may_be(row, spec) and row.spec.archid == spec.archid:
            return row
    return None


def _may_be(row: Published, spec: ArchSpec) -> bool:
    """A quick look at the raw fields, so that few rows have to be built to be compared."""
    fields = zoo_table()[row.arch]
    blocks = getattr(spec, "num_blocks", None)
    return fields["family"] == spec.family and (blocks is None or tuple(fields["num_blocks"]) == blocks)
