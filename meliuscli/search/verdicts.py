"""What a check says about each proxy: its cost, how it ranks, and whether it is worth it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from meliuscli.search.check import Check, CheckTraining
from meliuscli.search.plan import LONG
from meliuscli.search.ridge import Array
from meliuscli.search.space import Candidate
from meliuscli.search.trust import MIN_NETWORKS, Trust, judge, left_out
from meliuscli.training.chance import is_at_chance

Kind = Literal["ceiling", "trained", "prefix", "free"]

FREE: dict[str, Callable[[Candidate], float]] = {
    "packed size": lambda c: c.count.size_bytes,
    "params": lambda c: c.count.params,
    "binary MACs": lambda c: c.count.binary_macs,
    "float MACs": lambda c: c.count.float_macs,
    "OPs": lambda c: c.ops,
}
"""What is known of a network without training it; in logarithms where it is a score."""


@dataclass(frozen=True, slots=True)
class Row:
    """One score of the networks. ``scores`` and ``truths`` (K, N) hold NaN where a training failed; ``seconds`` is the
    mean cost of a network and ``share`` that as a part of the long training (0 to 1)."""

    name: str
    kind: Kind
    seconds: float
    share: float
    scores: Array
    truths: Array
    trust: Trust
    num_failed: int = 0
    num_at_chance: int = 0


def rows(check: Check) -> list[Row]:
    """The ceiling, the proxies, prefixes of the long training, and what is free, in this order.

    An own training is judged by the mean of both long ones, which have other seeds. What is read off a long training is
    judged by the other: the first seed's by the second's end, the second's by the first's, and the two averaged."""
    first, second = (_accuracies(check, LONG, seed) for seed in check.plan.long_seeds)
    ends = np.array([first, second])
    seconds = mean_of(*(field_of(check, LONG, long_seed, "seconds") for long_seed in check.plan.long_seeds))
    ops = np.array([candidate.ops for candidate in check.networks])
    known = [[measure(candidate) for measure in FREE.values()] for candidate in check.networks]
    free = np.log(np.maximum(known, 1.0))
    seed = check.plan.seed

    def row(name: str, kind: Kind, cost: float, scores: Array, counts: tuple[int, int] = (0, 0)) -> Row:
        truths = ends[::-1] if len(scores) == 2 else ends.mean(0)[None]
        trust = judge(scores, truths, ops, None if kind == "free" else free, seed)
        return Row(name, kind, cost, cost / seconds, scores, truths, trust, *counts)

    made = [row("long, other seed", "ceiling", seconds, ends, counts_of(check, LONG, check.plan.long_seeds))]
    for name in check.plan.proxies:
        cost = mean_of(field_of(check, name, seed, "seconds"))
        made.append(row(name, "trained", cost, _accuracies(check, name, seed)[None], counts_of(check, name, (seed,))))
    for fraction in reversed(check.plan.fractions):
        scores = np.array([_at(check, long_seed, fraction) for long_seed in check.plan.long_seeds])
        made.append(row(f"long at {100 * fraction:g} %", "prefix", fraction * seconds, scores))
    if (expected := _expected(free, ends.mean(0))) is not None:
        made.append(row("free numbers together", "free", 0.0, expected[None]))
    return made + [row(name, "free", 0.0, free[None, :, index]) for index, name in enumerate(FREE)]


def _expected(free: Array, truth: Array) -> Array | None:
    """What a ridge on the free numbers of the other networks expects of each; None for too few networks."""
    known = np.isfinite(truth)
    if known.sum() < MIN_NETWORKS:
        return None
    expected = np.full(len(truth), np.nan)
    expected[known] = left_out(free[known], truth[known])
    return expected


def _outcomes(check: Check, way: str, seed: int) -> list[dict[str, Any]]:
    return [check.outcome(CheckTraining(way, candidate, seed)) or {} for candidate in check.networks]


def field_of(check: Check, way: str, seed: int, name: str) -> Array:
    """One field of a way's trainings (N,), NaN where there is none."""
    return np.array([outcome.get(name, np.nan) for outcome in _outcomes(check, way, seed)], np.float64)


def _accuracies(check: Check, way: str, seed: int) -> Array:
    return field_of(check, way, seed, "validation_top1")


def _at(check: Check, seed: int, fraction: float) -> Array:
    """The accuracies of the long trainings (N,) after a fraction of their steps."""

    def read(outcome: dict[str, Any]) -> float:
        if "curve" not in outcome:
            return float("nan")
        end = outcome["curve"][-1]["epoch"]
        nearest = min(outcome["curve"], key=lambda metrics: abs(metrics["epoch"] - fraction * end))
        return float(nearest["validation_top1"])

    return np.array([read(outcome) for outcome in _outcomes(check, LONG, seed)])


def counts_of(check: Check, way: str, seeds: Sequence[int]) -> tuple[int, int]:
    """How many of a way's trainings failed, and how many ended at chance."""
    facts = check.data[check.plan.ways[way].dataset]
    outcomes = [outcome for seed in seeds for outcome in _outcomes(check, way, seed)]
    top1s = [outcome["validation_top1"] for outcome in outcomes if "validation_top1" in outcome]
    at_chance = sum(is_at_chance(top1, facts.num_classes, facts.num_validation) for top1 in top1s)
    return sum("reason" in outcome for outcome in outcomes), at_chance


def mean_of(*values: Array) -> float:
    """Of all finite ones; NaN where there is none."""
    together = np.concatenate(values)
    kept = together[np.isfinite(together)]
    return float(kept.mean()) if len(kept) else float("nan")
