"""What candidates must not exceed: hard limits of numbers that are known without training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from meliuscli.counting.memory import memory_of
from meliuscli.errors import BadInputError
from meliuscli.search.cost import Cost
from meliuscli.search.space import Candidate, SearchSpace
from meliuscli.units import format_count

SAMPLES = 400


@dataclass(frozen=True, slots=True)
class Limit:
    """An upper bound on a number of a candidate."""

    option: str
    of: Callable[[Candidate], float]
    bound: float
    text: Callable[[float], str]

    def holds(self, candidate: Candidate) -> bool:
        return self.of(candidate) <= self.bound

    def excess(self, candidate: Candidate) -> float:
        """By what part a candidate is above the bound; below 0 where it is within."""
        return self.of(candidate) / self.bound - 1


def within(candidate: Candidate, limits: Iterable[Limit]) -> bool:
    """Does a candidate exceed none of them?"""
    return all(limit.holds(candidate) for limit in limits)


def budget_limit(cost: Cost, budget: float) -> Limit:
    return Limit("--budget", cost.of, budget, cost.text)


def size_limit(size_bytes: float) -> Limit:
    return Limit("--max-size", lambda c: c.count.size_bytes, size_bytes, _size_text)


def _size_text(size_bytes: float) -> str:
    return f"{size_bytes:.0f} bytes" if size_bytes < 2**20 / 100 else f"{size_bytes / 2**20:.2f} MiB"


def ram_limit(ram_bytes: float) -> Limit:
    return Limit(
        "--max-ram", lambda c: memory_of(c.spec).ram_bytes, ram_bytes, lambda value: f"{value / 2**10:.1f} KiB of RAM"
    )


def flash_limit(flash_bytes: float) -> Limit:
    return Limit(
        "--max-flash",
        lambda c: memory_of(c.spec).flash_bytes,
        flash_bytes,
        lambda value: f"{value / 2**10:.1f} KiB of flash",
    )


def params_limit(params: float) -> Limit:
    return Limit("--max-params", lambda c: c.count.params, params, lambda value: f"{format_count(value)} params")


def check_limits(space: SearchSpace, limits: Sequence[Limit]) -> None:
    """Raise ``BadInputError`` where no network can be found within all limits, naming the one that comes nearest."""
    nearest = _nearest(space, limits)
    if within(nearest, limits):
        return
    numbers = ", ".join(limit.text(limit.of(nearest)) for limit in limits)
    bounds = " and ".join(f"{limit.option} {limit.text(limit.bound)}" for limit in limits)
    raise BadInputError(
        f"no network of this space was found within {bounds}",
        f"the network that comes nearest, {nearest.spec.summary()}, has {numbers}; raise what it exceeds",
    )


def _nearest(space: SearchSpace, limits: Sequence[Limit]) -> Candidate:
    """The candidate whose largest excess is the smallest, by random candidates and steps from the best of them."""

    def excess(candidate: Candidate) -> float:
        return max(limit.excess(candidate) for limit in limits)

    rng = np.random.default_rng(0)
    best = space.smallest
    for number in range(SAMPLES):
        if excess(best) <= 0:
            break
        params = space.random_params(rng) if number < SAMPLES // 2 else space.mutate(best.params, rng)
        other = space.try_candidate(params)
        if other is not None and excess(other) < excess(best):
            best = other
    return best
