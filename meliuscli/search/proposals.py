"""What to train next: over-budget and known candidates never, then where the front is expected to grow most.

The cost of a candidate is known exactly, so the expected growth of the area under the Pareto front has a closed
form: the sum, over the steps of the present front, of the step's width times the expected improvement over its height.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from meliuscli.errors import FailedError
from meliuscli.search.cost import OPS, Cost
from meliuscli.search.goal import Goal, Posterior, ProxyGoal
from meliuscli.search.limits import Limit
from meliuscli.search.pareto import Point, front
from meliuscli.search.screen import Places, Screen, params_at, places_of, random_places, stepped
from meliuscli.search.space import Candidate, Params, SearchSpace
from meliuscli.search.surrogate import Array

POOL = 600
START = 240
"""Random candidates that are counted once for a study, and that estimates of all others rest on."""
ROUNDS, PARENTS, DRAWN, COUNTED = 2, 12, 400, 6
"""How often a proposal is improved by steps: from how many of the best, with how many steps and random candidates, of
which how many are counted."""
SLACK = math.log(1.03)
"""By how much the estimate of a number may exceed its bound for the candidate to be counted."""
SPREAD_STARTS = 6
"""Candidates spread over the range of costs before the model is asked."""
BEYOND_BUDGET = 1.25
"""The front's area reaches to this many budgets, so that a network right at the budget is worth something."""


class Proposer:
    """Proposes candidates of a space within a budget and other limits. What it proposes depends on its arguments alone.

    ``num_decided`` counts the candidates that the last proposal decided by counting: over a limit, impossible, or asked
    for before."""

    def __init__(
        self,
        space: SearchSpace,
        budget: float,
        seed: int,
        cost: Cost = OPS,
        limits: Sequence[Limit] = (),
        goal: Goal | None = None,
    ) -> None:
        self.space, self.budget, self.seed, self.cost = space, budget, seed, cost.of
        self.limits = (Limit("--budget", cost.of, budget, cost.text), *limits)
        self.goal: Goal = ProxyGoal(space) if goal is None else goal
        self.lowest = self.cost(space.smallest)
        self.num_decided = 0
        self._counted: dict[Params, Candidate | None] = {}

    @cached_property
    def pool(self) -> list[Candidate]:
        """Different random networks within the limits."""
        return self._random(POOL)

    @cached_property
    def _start(self) -> list[Candidate]:
        return self._random(START)

    def _random(self, enough: int) -> list[Candidate]:
        rng = np.random.default_rng(self.seed)
        return self._feasible((self.space.random_params(rng) for _ in range(20 * enough)), enough)

    def propose(
        self, number: int, explore: bool, observed: Sequence[tuple[Candidate, float]], pending: Sequence[Candidate]
    ) -> Candidate:
        """The ``number``-th proposal, given accuracies so far and what is in training: with ``explore`` from the
        range of costs seen least, else where the goal expects most.

        Raises ``FailedError`` when no new candidate within the budget can be found."""
        start = self._start
        self.num_decided = 0
        rng = np.random.default_rng((self.seed, number))
        known = [*(candidate for candidate, _ in observed), *pending]
        if self.goal.explores and (explore or len(observed) < 4):
            return self._least_explored(self._untried(start, known, rng), known, rng)
        posterior = self.goal.fit(observed, pending)
        search = _Search(self, known, posterior, [*start, *known])
        for _ in range(ROUNDS):
            search.look_around(rng)
        if search.best is None:
            return self._untried(start, known, rng)[0]
        return search.best

    def _untried(
        self, candidates: Sequence[Candidate], known: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Candidate]:
        """Candidates that were not asked for, or steps from those that were. Raises ``FailedError`` where there are none."""
        taken = {candidate.archid for candidate in known}
        steps = (self.space.mutate(known[int(rng.integers(len(known)))].params, rng) for _ in range(DRAWN if known else 0))
        found = [c for c in (*candidates, *self._feasible(steps, COUNTED)) if c.archid not in taken]
        if not found:
            raise FailedError("no new network within the budget is left in this space")
        return found

    def _feasible(self, proposals: Iterable[Params], enough: int) -> list[Candidate]:
        """The first ``enough`` different networks within the limits."""
        found: dict[str, Candidate] = {}
        for params in dict.fromkeys(proposals):
            candidate = self.count(params)
            if candidate is not None:
                found.setdefault(candidate.archid, candidate)
            if len(found) == enough:
                break
        return list(found.values())

    def count(self, params: Params) -> Candidate | None:
        """The candidate of these parameters, or None where there is none within the limits."""
        if params not in self._counted:
            self._counted[params] = self.space.try_candidate(params)
        candidate = self._counted[params]
        if candidate is None or not all(limit.holds(candidate) for limit in self.limits):
            self.num_decided += 1
            return None
        return candidate

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


class _Search:
    """The search for one proposal: counted candidates, how much the front's area is expected to grow by each, and
    estimates of that for all others."""

    def __init__(
        self, proposer: Proposer, known: Sequence[Candidate], posterior: Posterior, counted: Sequence[Candidate]
    ) -> None:
        self.proposer, self.posterior = proposer, posterior
        self.axes = list(proposer.space.axes.values())
        self.taken = {candidate.archid for candidate in known}
        means = posterior.predict(known)[0].tolist() if known else []
        # The front of what is believed, not of lucky seeds; candidates in training count as believed.
        self.points: list[Point] = list(zip(map(proposer.cost, known), means, strict=True))
        self.front = [known[index] for index in front(self.points)]
        self.counted: list[Candidate] = []
        self.gains = np.zeros(0)
        self.places = np.zeros((0, len(self.axes)), dtype=np.intp)
        self.numbers = np.zeros((0, len(proposer.limits) + 2))
        self._add(list({candidate.archid: candidate for candidate in counted}.values()))

    @property
    def best(self) -> Candidate | None:
        """The new candidate of the largest gain; None where all are known."""
        index = int(np.argmax(self.gains)) if len(self.gains) else 0
        return self.counted[index] if len(self.gains) and np.isfinite(self.gains[index]) else None

    def look_around(self, rng: np.random.Generator) -> None:
        """Draw random candidates, and steps from the best and from the front; count those that look best."""
        if not self.counted:
            return
        order = np.argsort(-self.gains, kind="stable")[:PARENTS]
        around = np.array([places_of(self.proposer.space, c.params) for c in self.front], dtype=np.intp)
        parents = np.concatenate([self.places[order], around.reshape(-1, len(self.axes))])
        steps = stepped(parents[rng.integers(len(parents), size=DRAWN)], self.axes, rng)
        drawn = np.unique(np.concatenate([steps, random_places(self.axes, DRAWN, rng)]), axis=0)
        screen = Screen.fit(self.places, self.numbers, self.proposer.space)
        best = np.argsort(-self._screened(screen.estimate(drawn)), kind="stable")
        self._add(self._count(drawn[best]))

    def _count(self, places: Places) -> list[Candidate]:
        """Count until ``COUNTED`` networks were: those that are not known and within the limits."""
        seen = self.taken | {candidate.archid for candidate in self.counted}
        found: dict[str, Candidate] = {}
        for row in places[: 2 * COUNTED]:
            candidate = self.proposer.count(params_at(self.proposer.space, row))
            if candidate is not None and candidate.archid not in seen:
                found.setdefault(candidate.archid, candidate)
            elif candidate is not None and candidate.archid in self.taken:
                self.proposer.num_decided += 1
            if len(found) == COUNTED:
                break
        return list(found.values())

    def _screened(self, numbers: Array) -> Array:
        """Expected gains (N,) from estimates (N, K), in the order of ``numbers``; nothing where a limit is exceeded."""
        logs, mean, deviation = numbers[:, :-2], numbers[:, -2], numbers[:, -1]
        bounds = np.log([limit.bound for limit in self.proposer.limits])
        gains = self._gains(np.exp(logs[:, 0]), mean, deviation)
        return np.where((logs <= bounds + SLACK).all(1), gains, -np.inf)

    def _gains(self, costs: Array, mean: Array, deviation: Array) -> Array:
        return expected_gain(self.points, costs, mean, deviation, BEYOND_BUDGET * self.proposer.budget)

    def _add(self, candidates: list[Candidate]) -> None:
        if not candidates:
            return
        proposer = self.proposer
        mean, deviation = self.posterior.predict(candidates)
        logs = np.log([[limit.of(c) for limit in proposer.limits] for c in candidates])
        gains = self._gains(np.exp(logs[:, 0]), mean, deviation)
        allowed = [c.archid not in self.taken for c in candidates]
        self.counted += candidates
        self.gains = np.concatenate([self.gains, np.where(allowed, gains, -np.inf)])
        rows = np.array([places_of(proposer.space, c.params) for c in candidates], dtype=np.intp)
        self.places = np.concatenate([self.places, rows])
        self.numbers = np.concatenate([self.numbers, np.column_stack([logs, mean, deviation])])


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
    return np.maximum((mean - height) * _normal_cdf(z) + deviation * density, 0)


_ERFC = (-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587)
_ERFC_END = (-0.82215223, 0.17087277)


def _normal_cdf(z: Array) -> Array:
    """By a Chebyshev fit of the complementary error function, whose relative error is below 1.2e-7 everywhere
    (Numerical Recipes, section 6.2), as numpy has none."""
    x = np.abs(z) / math.sqrt(2)
    t = 1 / (1 + 0.5 * x)
    tail = 0.5 * t * np.exp(-(x**2) + np.polynomial.polynomial.polyval(t, (*_ERFC, *_ERFC_END)))
    return np.where(z > 0, 1 - tail, tail)
