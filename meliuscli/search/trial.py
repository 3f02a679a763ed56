"""Proxies on trial: what each short training, and each zero-cost score, adds to what is believed about the target.

The truth are published ImageNet results, so there are few topologies; no verdict rests on anything but an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from meliuscli.evidence.proxies import ProxyScore, proxy_scores
from meliuscli.search.check import Check, CheckTraining
from meliuscli.search.ridge import Array
from meliuscli.search.target_trust import TargetTrust, chance_of_best, judge_on_target
from meliuscli.search.targets import target_name
from meliuscli.search.trust import MIN_NETWORKS
from meliuscli.search.verdicts import FREE, counts_of
from meliuscli.search.ways import Proxy
from meliuscli.training.zero_cost import ZERO_COST

SCORES: dict[str, tuple[str, float]] = {
    "accuracy": ("validation_top1", 1.0),
    "validation loss": ("validation_loss", -1.0),
    "training loss": ("train_loss", -1.0),
}
"""What is read off one training: the field, and its sign where larger is to stand for better."""


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One score of the topologies (T,), NaN where a training failed. ``way`` is the proxy's name, None for a free number;
    ``seconds`` is the mean cost of a network, all seeds together."""

    name: str
    kind: Literal["trained", "untrained", "free"]
    way: str | None
    scores: Array
    trust: TargetTrust
    seconds: float = 0.0
    deviations: Array | None = None
    """Between seeds (T,), where there are several."""
    num_failed: int = 0
    num_at_chance: int = 0

    @property
    def is_judged(self) -> bool:
        """Can anything be said: is it no free number, of enough networks, and are few of its trainings at chance?"""
        return self.kind != "free" and self.trust.n >= MIN_NETWORKS and 2 * self.num_at_chance < self.trust.n


def trial_rows(check: Check) -> list[TrialRow]:
    """Three scores of each proxy, its zero-cost scores, and what is free."""
    made: list[TrialRow] = []
    seen: set[tuple[str, bytes]] = set()
    for way in check.plan.proxies:
        made += _trained(check, way)
        for row in _untrained(check, way):
            key = row.name.removeprefix(f"{way}: "), row.scores.tobytes()
            if key not in seen:  # ways that differ in their training alone have the same
                made.append(row)
            seen.add(key)
    for name, measure in FREE.items():
        scores = np.log([measure(candidate) for candidate in check.networks])
        made.append(TrialRow(name, "free", None, scores, judge_on_target(scores, check.plan.seed)))
    return made


def chance(rows: Sequence[TrialRow], seed: int) -> float:
    """How often as many scores without any relation to the target would have a best one as good as the best of these."""
    return chance_of_best([row.scores for row in rows if row.is_judged], seed)


def measured(check: Check, rows: Sequence[TrialRow]) -> list[ProxyScore]:
    """The scores of all proxies as data, network by network."""
    return [
        ProxyScore(
            row.way, check.plan.proxies[row.way].digest, row.name.partition(": ")[2], target_name(candidate), value
        )
        for row in rows
        if row.way is not None
        for candidate, value in zip(check.networks, row.scores.tolist(), strict=True)
        if np.isfinite(value)
    ]


def measured_trust(proxy: Proxy, score: str = "accuracy", seed: int = 0) -> TargetTrust | None:
    """What the committed trial says of a score of this way of training; None for a way that was not on trial.

    ``weight`` is what a belief may give to a standard deviation of it beyond the free numbers."""
    from meliuscli.search.targets import topologies

    values = proxy_scores(proxy.digest, score)
    if not values:
        return None
    return judge_on_target(np.array([values.get(run.arch, np.nan) for run in topologies()]), seed)


def _trained(check: Check, way: str) -> list[TrialRow]:
    seconds = _read(check, way, ("seconds",))
    cost = float(seconds[np.isfinite(seconds)].sum()) / len(check.networks)
    return [
        _row(check, f"{way}: {name}", "trained", way, sign * _read(check, way, (field,)), cost)
        for name, (field, sign) in SCORES.items()
    ]


def _untrained(check: Check, way: str) -> list[TrialRow]:
    return [
        _row(check, f"{way}: {name}", "untrained", way, _read(check, way, ("untrained", name)), 0.0)
        for name in ZERO_COST
    ]


def _row(
    check: Check, name: str, kind: Literal["trained", "untrained"], way: str, values: Array, seconds: float
) -> TrialRow:
    """``values`` (seeds, T); a topology has a score where it has all seeds'."""
    scores = values.mean(0)
    deviations = values.std(0, ddof=1) if len(values) > 1 else None
    counts = counts_of(check, way, check.plan.seeds_of(way)) if kind == "trained" else (0, 0)
    trust = judge_on_target(scores, check.plan.seed)
    return TrialRow(name, kind, way, scores, trust, seconds, deviations, *counts)


def _read(check: Check, way: str, keys: tuple[str, ...]) -> Array:
    """A field, or one in a field, of each training (seeds, T); NaN where it failed."""

    def read(training: CheckTraining) -> float:
        found: Any = check.outcome(training) or {}
        for key in keys:
            found = found.get(key, {})
        return float(found) if isinstance(found, int | float) else float("nan")

    return np.array(
        [
            [read(CheckTraining(way, candidate, seed)) for candidate in check.networks]
            for seed in check.plan.seeds_of(way)
        ]
    )
