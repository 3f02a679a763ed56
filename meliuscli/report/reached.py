"""What networks are known to reach, and by whose word: their papers' on ImageNet, or our runs' on a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meliuscli.report.counted import Counted, View
from meliuscli.report.published import best_published

PUBLISHED = "published ImageNet-1k top-1 (%)"


@dataclass(frozen=True, slots=True)
class Reached:
    """A network's top-1 (%) and what it costs; ``spread`` is that of several seeds."""

    name: str
    ops: float
    top1: float
    spread: float | None = None


@dataclass(frozen=True, slots=True)
class Reaches:
    """``panels``: by what it is that was reached. ``untrained``: modules of one's own, whose accuracy nobody knows, with their
    cost. ``missing``: networks without a published top-1 or one of a run."""

    panels: Mapping[str, Sequence[Reached]]
    untrained: tuple[tuple[str, float], ...]
    missing: tuple[str, ...]


def reaches(networks: Sequence[Counted], view: View) -> Reaches:
    """All that is known of the accuracies of networks. The convention has a total."""
    panels: dict[str, list[Reached]] = {}
    untrained, missing = [], []
    for network in networks:
        ops = view.convention.derive(network.count.total, view.float_bits).ops or 0
        reached = _reached(network, float(ops))
        for what, point in reached.items():
            panels.setdefault(what, []).append(point)
        if network.own is not None and ops:
            untrained.append((network.name, float(ops)))
        elif not reached:
            missing.append(network.name)
    return Reaches(panels, tuple(untrained), tuple(missing))


def _reached(network: Counted, ops: float) -> dict[str, Reached]:
    """By what it is that was reached."""
    row, run = best_published(network.published)["top1"], network.run
    if run is not None and run.top1 is not None:
        return {f"top-1 of runs on {run.dataset} (%)": Reached(network.name, ops, run.top1, run.spread)}
    return {} if row is None else {PUBLISHED: Reached(network.name, ops, float(row.top1))}
