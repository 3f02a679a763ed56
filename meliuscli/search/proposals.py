"""What to train next: over-budget and known candidates never, then where the front is expected to grow most.

The cost of a candidate is known exactly, so the expected growth of the area under the Pareto front has a closed
form: the sum, over the steps of the present front, of the step's width times the expected improvement over its height.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from meliuscli.errors import FailedError
from meliuscli.search.cost import OPS, Cost
from meliuscli.search.goal import Goal, ProxyGoal
from meliuscli.search.limits import Limit
from meliuscli.search.pareto import Point, front
from meliuscli.search.space import Candidate, Params, SearchSpace
from meliuscli.search.surrogate import Array

POOL = 600
MUTANTS = 100
FRESH = 60
ROUNDS, PARENTS, CHILDREN = 2, 12, 60
"""How often, from how many of the best, and with how many children a proposal is improved by steps."""
SPREAD_STARTS = 6
"""Candidates spread over the range of costs before the model is asked."""
BEYOND_BUDGET = 1.25
"""The front's area reaches to this many budgets, so that a network right at the budget is worth something."""


class Proposer:
    """Proposes candidates of a space within a budget and other limits. What it proposes depends on its arguments alone.

    ``num_decided`` counts the candidates that were looked at and decided by counting: over a limit, impossible, or
    asked for before."""

    def __init__(
        self,
        space: SearchSpace,
        budget: float,
        seed: int,
        cost: Cost = OPS,
        limits: Sequence[Limit] = (),
        goal: Goal | None = None,
    ) -> None:
        self.space, self.budget, self.seed, self.cost, self.limits = space, budget, seed, cost.of, limits
        self.goal = ProxyGoal(space) if goal is None else goal
        self.lowest = self.cost(space.smallest)
        self.num_decided = 0
        self._known: dict[Params, Candidate | None] = {}

    @cached_property
    def pool(self) -> list[Candidate]:
        """Different random networks within the limits."""
        rng = np.random.default_rng(self.seed)
        return self._feasible((self.space.random_params(rng) for _ in range(20 * POOL)), POOL)

    def propose(
        self, number: int, explore: bool, observed: Sequence[tuple[Candidate, float]], pending: Sequence[Candidate]
    ) -> Candidate:
        """The ``number``-th proposal, given accuracies so far and what is in training: with ``explore`` from the
        range of costs seen least, else where the goal expects most.

        Raises ``FailedError`` when no new candidate within the budget can be found."""
        self.num_decided = 0
        rng = np.random.default_rng((self.seed, number))
        known = [candidate for candidate, _ in observed] + list(pending)
        taken = {candidate.archid for candidate in known}
        fresh = self._new(self._start(known, rng), taken)
        if not fresh:
            raise FailedError("no new network within the budget is left in this space")
        if self.goal.explores and (explore or len(observed) < 4):
            return self._least_explored(fresh, known, rng)
        for _ in range(ROUNDS):
            gains = self._gains(fresh, observed, pending)
            best = [fresh[index] for index in np.argsort(-gains, kind="stable")[:PARENTS]]
            fresh += self._new(self._feasible(self._mutations(best, rng, CHILDREN), CHILDREN), taken, fresh)
        return fresh[int(np.argmax(self._gains(fresh, observed, pending)))]

    def _start(self, known: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        """Random candidates and mutants of those known: from the study's pool where that is needed for spreading, else
        drawn anew each time."""
        mutants = self._feasible(self._mutations(known, rng, 4 * MUTANTS), MUTANTS)
        if self.goal.explores:
            return [*self.pool, *mutants]
        return [*self._feasible((self.space.random_params(rng) for _ in range(20 * FRESH)), FRESH), *mutants]

    def _new(self, candidates: Sequence[Candidate], taken: set[str], more: Sequence[Candidate] = ()) -> list[Candidate]:
        """Those that were not asked for before, each once."""
        seen = taken | {candidate.archid for candidate in more}
        new = {c.archid: c for c in candidates if c.archid not in seen}
        self.num_decided += sum(candidate.archid in taken for candidate in candidates)
        return list(new.values())

    def _mutations(self, parents: Sequence[Candidate], rng: np.random.Generator, count: int) -> Iterator[Params]:
        for _ in range(count if parents else 0):
            yield self.space.mutate(parents[int(rng.integers(len(parents)))].params, rng)

    def _feasible(self, proposals: Iterable[Params], enough: int) -> list[Candidate]:
        """The first ``enough`` different networks within the limits."""
        found: dict[str, Candidate] = {}
        seen: set[Params] = set()
        for params in proposals:
            if params in seen:
                continue
            seen.add(params)
            candidate = self._candidate(params)
            if candidate is not None and self.cost(candidate) <= self.budget and self._within(candidate):
                found.setdefault(candidate.archid, candidate)
            else:
                self.num_decided += 1
            if len(found) == enough:
                break
        return list(found.values())

    def _within(self, candidate: Candidate) -> bool:
        return all(limit.holds(candidate) for limit in self.limits)

    def _candidate(self, params: Params) -> Candidate | None:
        if params not in self._known:
            self._known[params] = self.space.try_candidate(params)
        return self._known[params]

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
        # The front of what is believed, not of lucky seeds; candidates in training count as believed.
        known = [*(candidate for candidate, _ in observed), *pending]
        means, deviations = self.goal.worth([*known, *fresh], observed)
        points = list(zip(map(self.cost, known), means[: len(known)].tolist(), strict=True))
        costs = np.array([self.cost(candidate) for candidate in fresh])
        mean, deviation = means[len(known) :], deviations[len(known) :]
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
