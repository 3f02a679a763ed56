"""What papers and repositories report for a network on ImageNet-1k: accuracies and their own counts, with the source."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import load_arch, zoo_table

COUNTS = ("bops", "flops", "ops", "size_mib", "params")
"""The columns of published.csv that hold counts."""


@dataclass(frozen=True, slots=True)
class Published:
    """A row of published.csv. Counts are text as printed, so that their digits are known; empty where none is printed.

    ``convention`` and ``bn_params`` (values of a batch-norm channel) are the rule that the source counts by, as far as
    it is known. ``disputed`` has the columns in which our count differs, each with the key of the reason in
    contradictions.toml. ``confidence`` is ``high``, or ``wrong-in-source`` where the source is mistaken."""

    arch: str
    overrides: tuple[str, ...]
    bops: str
    flops: str
    ops: str
    size_mib: str
    params: str
    top1: str
    top5: str
    convention: str
    bn_params: int
    confidence: str
    disputed: Mapping[str, str]
    source: str

    @property
    def spec(self) -> ArchSpec:
        """The network that the row is about."""
        return _spec(self.arch, self.overrides)

    @property
    def name(self) -> str:
        """The network's name with what is changed of it, as ``load_arch`` writes it."""
        return f"{self.arch}[{','.join(self.overrides)}]" if self.overrides else self.arch


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Why a published number is not what its own rule gives, or why sources differ."""

    key: str
    title: str
    text: str
    archs: tuple[str, ...]


@cache
def published_rows() -> tuple[Published, ...]:
    """All rows; of those about one network the first is the one to show."""
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(map(_row, csv.DictReader(file)))


def published_for(spec: ArchSpec) -> tuple[Published, ...]:
    """What is published for exactly this architecture."""
    return tuple(row for row in published_rows() if _may_be(row, spec) and row.spec.archid == spec.archid)


@cache
def contradictions() -> tuple[Contradiction, ...]:
    """contradictions.toml."""
    table = tomllib.loads(Path(__file__).with_name("contradictions.toml").read_text(encoding="utf-8"))
    return tuple(
        Contradiction(key, entry["title"], " ".join(entry["text"].split()), tuple(entry["archs"]))
        for key, entry in table.items()
    )


def _row(fields: dict[str, str]) -> Published:
    overrides = tuple(fields.pop("set").split())
    disputed = dict(pair.split(":") for pair in fields.pop("disputed").split())
    bn_params = int(fields.pop("bn_params"))
    return Published(overrides=overrides, disputed=disputed, bn_params=bn_params, **fields)


@cache
def _spec(arch: str, overrides: tuple[str, ...]) -> ArchSpec:
    return load_arch(arch, overrides).spec


def _may_be(row: Published, spec: ArchSpec) -> bool:
    """A quick look at the lists in the raw fields, so that few rows have to be built to be compared."""
    fields, changed = zoo_table()[row.arch], {override.partition("=")[0] for override in row.overrides}
    return fields["family"] == spec.family and all(
        tuple(value) == getattr(spec, key)
        for key, value in fields.items()
        if isinstance(value, list) and key not in changed and key in type(spec).model_fields
    )
