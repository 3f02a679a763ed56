"""The ImageNet results that beliefs rest on: 17 runs of one recipe by MeliusNet's authors, as data."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import load_arch

SOURCE = "hpi-xnor/BMXNet-v2-wiki"
RECIPE = "RAdam 0.002 with a cosine to 0, 120 epochs (MeliusNet59: 170), one seed"


@dataclass(frozen=True, slots=True)
class TargetRun:
    """One training on ImageNet-1k: ``top1`` (percent) is that of the last epoch, ``best_top1`` that of the best, which
    papers print. Source: the curves in ``SOURCE``."""

    arch: str
    stem: str
    epochs: int
    top1: float
    best_top1: float
    spec: ArchSpec


@cache
def target_runs() -> tuple[TargetRun, ...]:
    """All runs; networks of one topology differ in their stem alone."""
    with Path(__file__).with_name("runs.csv").open(encoding="utf-8", newline="") as file:
        return tuple(map(_run, csv.DictReader(file)))


def _run(fields: dict[str, str]) -> TargetRun:
    arch, stem = fields["arch"], fields["stem"]
    spec = load_arch(arch, (f"stem={stem}",)).spec
    return TargetRun(arch, stem, int(fields["epochs"]), float(fields["top1"]), float(fields["best_top1"]), spec)
