"""What to train next: over-budget and known candidates never, then where the front is expected to grow most.

The cost of a candidate is known exactly, so the expected growth of the area under the Pareto front has a closed
form: the sum, over the steps of the present front, of the step's width times the expected improvement over its height.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from meliuscli.errors import FailedError
from meliuscli.search.cost import OPS, Cost
from meliuscli.search.pareto import Point, front
from meliuscli.search.space import Candidate, Params, SearchSpace
from meliuscli.search.surrogate import Array, features, fit

POOL = 600
MUTANTS = 100
SPREAD_STARTS = 6
"""Candidates spread over the range of costs before the model is asked."""
BEYOND_BUDGET = 1.25
"""The front's area reaches to this many budgets, so that a network right at the budget is worth something."""


class Proposer:
    """Proposes candidates of a space within a budget. What it proposes depends on its arguments alone."""

    def __init__(self, space: SearchSpace, budget: float, seed: int, cost: Cost = OPS) -> None:
        self.space, self.budget, self.seed, self.cost = space, budget, seed, cost.of
        self.lowest = self.cost(space.smallest)
        rng = np.random.default_rng(seed)
        self.pool = self._feasible((space.random_params(rng) for _ in range(20 * POOL)), POOL)

    def propose(
        self, number: int, explore: bool, observed: Sequence[tuple[Candidate, float]], pending: Sequence[Candidate]
    ) -> Candidate:
        """The ``number``-th proposal, given accuracies so far and what is in training: with ``explore`` from the
        range of costs seen least, else where the model expects most.

        Raises ``FailedError`` when no new candidate within the budget can be found."""
        rng = np.random.default_rng((self.seed, number))
        known = [candidate for candidate, _ in observed] + list(pending)
        taken = {candidate.archid for candidate in known}
        mutants = self._feasible(self._mutations(known, rng), MUTANTS)
        fresh = [c for c in (*self.pool, *mutants) if c.archid not in taken]
        if not fresh:
            raise FailedError("no new network within the budget is left in this space")
        if explore or len(observed) < 4:
            return self._least_explored(fresh, known, rng)
        return fresh[int(np.argmax(self._gains(fresh, observed, pending)))]

    def _mutations(self, known: Sequence[Candidate], rng: np.random.Generator) -> Iterator[Params]:
        for _ in range(4 * MUTANTS if known else 0):
            yield self.space.mutate(known[int(rng.integers(len(known)))].params, rng)

    def _feasible(self, proposals: Iterable[Params], enough: int) -> list[Candidate]:
        """The first ``enough`` different networks within the budget."""
        found: dict[str, Candidate] = {}
        seen: set[Params] = set()
        for params in proposals:
            if params in seen:
                continue
            seen.add(params)
            candidate = self.space.try_candidate(params)
            if candidate is not None and self.cost(candidate) <= self.budget:
                found.setdefault(candidate.archid, candidate)
            if len(found) == enough:
                break
        return list(found.values())

    def _least_explored(
        self, fresh: Sequence[Candidate], known: Sequence[Candidate], rng: np.random.Generator
    ) -> Candidate:
        """A random candidate from the sixth of the (logarithmic) range of costs that has been tried least."""
        edges = np.linspace(math.log(self.lowest), math.log(self.budget), SPREAD_STARTS + 1)

        def place(candidates: Sequence[Candidate]) -> npt.NDArray[np.intp]:
            logs = np.array([math.log(self.cost(candidate)) for candidate in candidates])
            return np.clip(np.searchsorted(edges, logs) - 1, 0, SPREAD_STARTS - 1)

        places = place(fresh)
        tried = np.bincount(place(known), minlength=SPREAD_STARTS) if known else np.zeros(SPREAD_STARTS)
        # Among equally tried parts the dearer one first: accuracy is usually found there.
        wanted = min(set(places.tolist()), key=lambda part: (tried[part], -part))
        return fresh[int(rng.choice(np.flatnonzero(places == wanted)))]

    def _gains(
        self, fresh: Sequence[Candidate], observed: Sequence[tuple[Candidate, float]], pending: Sequence[Candidate]
    ) -> Array:
        """Expected growth of the area under the front for each fresh candidate."""
        trained = [candidate for candidate, _ in observed]
        model = fit(features(self.space, trained), np.array([accuracy for _, accuracy in observed]))
        # The front of what the model believes, not of lucky seeds; candidates in training count as believed.
        known = [*trained, *pending]
        believed, _ = model.predict(features(self.space, known))
        points = list(zip(map(self.cost, known), believed.tolist(), strict=True))
        mean, deviation = model.predict(features(self.space, fresh))
        costs = np.array([self.cost(candidate) for candidate in fresh])
        return expected_gain(points, costs, mean, deviation, BEYOND_BUDGET * self.budget)


def expected_gain(points: Sequence[Point], costs: Array, mean: Array, deviation: Array, max_cost: float) -> Array:
    """Expected growth of the area under the front of ``points``, up to ``max_cost``, for candidates of exactly known
    ``costs`` and normally distributed accuracies."""
    steps = [points[index] for index in front(points)]
    floor = min((accuracy for _, accuracy in points), default=0.0)
    starts = np.array([0.0, *(cost for cost, _ in steps)])
    ends = np.array([*starts[1:], max_cost])
    heights = np.array([floor, *(accuracy for _, accuracy in steps)])
    widths = np.clip(ends[None] - np.maximum(starts[None], costs[:, None]), 0, None)
    return np.asarray((widths * _expected_improvement(mean[:, None], deviation[:, None], heights[None])).sum(1))


def _expected_improvement(mean: Array, deviation: Array, height: Array) -> Array:
    deviation = np.maximum(deviation, 1e-9)
    z = (mean - height) / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return np.asarray((mean - height) * _normal_cdf(z) + deviation * density)


def _normal_cdf(z: Array) -> Array:
    cdf: Array = np.vectorize(lambda value: 0.5 * math.erfc(-value / math.sqrt(2)), otypes=[np.float64])(z)
    return cdf
