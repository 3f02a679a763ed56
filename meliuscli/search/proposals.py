"""What to train next: over-budget and known candidates never, then where the front is expected to grow most."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from meliuscli.errors import FailedError
from meliuscli.search.cost import OPS, Cost
from meliuscli.search.goal import Goal, ProxyGoal
from meliuscli.search.limits import Limit, budget_limit, within
from meliuscli.search.proposal_search import COUNTED, DRAWN, ProposalSearch
from meliuscli.search.ridge import Array
from meliuscli.search.screen import Screen, params_at, random_places
from meliuscli.search.space import Candidate, Params, SearchSpace

POOL = 600
START = 240
"""Random candidates within the limits, counted once for a study; estimates of all others rest on them. As many random
ones, whatever they cost, say first where to look, and no more than four times as many are counted."""
ROUNDS = 2
"""How often a proposal is improved by steps."""
SURE_ROUNDS = 150
"""Where trainings teach nothing, the front is looked for once, in so many rounds, before the first proposal."""
SPREAD_STARTS = 6
"""Candidates spread over the range of costs before the model is asked."""


class Proposer:
    """Proposes candidates of a space within a budget and other limits. What it proposes depends on its arguments alone.

    ``asked`` are costs within which the best network of its own is wanted, beside the front as a whole.

    ``num_decided`` counts the candidates that the last proposal decided by counting: over a limit, impossible, or asked
    for before. Those that were looked at for the start are counted with the first proposal of a study."""

    def __init__(
        self,
        space: SearchSpace,
        budget: float,
        seed: int,
        cost: Cost = OPS,
        limits: Sequence[Limit] = (),
        goal: Goal | None = None,
        asked: Sequence[float] = (),
    ) -> None:
        self.space, self.budget, self.seed, self.cost = space, budget, seed, cost.of
        self.asked = tuple(asked)
        self.limits = (budget_limit(cost, budget), *limits)
        self.goal: Goal = ProxyGoal(space) if goal is None else goal
        self.lowest = self.cost(space.smallest)
        self.num_decided = 0
        self.published = {candidate.archid for _, candidate in space.known_candidates()}
        self._counted: dict[Params, Candidate | None] = {}

    @cached_property
    def pool(self) -> list[Candidate]:
        """Different random networks within the limits."""
        rng = np.random.default_rng(self.seed)
        return self._feasible((self.space.random_params(rng) for _ in range(20 * POOL)), POOL)

    @cached_property
    def _start(self) -> tuple[list[Candidate], int]:
        """The first candidates to look at, and how many others were decided by counting meanwhile."""
        space = self.space
        drawn = random_places(list(space.axes.values()), 20 * START, np.random.default_rng(self.seed))
        probed = [(row, c) for row in drawn[:START] if (c := self._network(params_at(space, row))) is not None]
        if probed:
            screen = Screen.fit(np.array([row for row, _ in probed]), self.logs([c for _, c in probed]), space)
            excess = (screen.estimate(drawn) - self.log_bounds).max(1)
            drawn = drawn[np.argsort(np.maximum(excess, 0), kind="stable")]
        likely = (params_at(space, row) for row in drawn[: 4 * START])
        found = self._feasible(likely, START)
        if not self.goal.explores:
            search, rng = ProposalSearch(self, [], self.goal.fit([]), found), np.random.default_rng(self.seed)
            for _ in range(SURE_ROUNDS):
                search.look_around(rng)
                search.settle()
            found = search.counted
        return found, sum(c is None or not within(c, self.limits) for c in self._counted.values())

    def prepare(self) -> None:
        """Do now what the first proposal would do before it: it takes seconds."""
        _ = self._start

    @property
    def log_bounds(self) -> Array:
        return np.asarray(np.log([limit.bound for limit in self.limits]))

    def logs(self, candidates: Sequence[Candidate]) -> Array:
        """(N, L): logarithms of what is limited, the cost first."""
        return np.log([[limit.of(candidate) for limit in self.limits] for candidate in candidates])

    def propose(
        self, number: int, explore: bool, observed: Sequence[tuple[Candidate, float]], pending: Sequence[Candidate]
    ) -> Candidate:
        """The ``number``-th proposal, given accuracies so far and what is in training: with ``explore`` from the
        range of costs seen least, else where the goal expects most.

        Raises ``FailedError`` when no new candidate within the budget can be found."""
        known = [*(candidate for candidate, _ in observed), *pending]
        start, start_decided = self._start
        self.num_decided = start_decided if all(c.archid in self.published for c in known) else 0
        rng = np.random.default_rng((self.seed, number))
        if self.goal.explores and (explore or len(observed) < 4):
            return self._least_explored(self._untried(start, known, rng), known, rng)
        posterior = self.goal.fit(observed, pending)
        search = ProposalSearch(self, known, posterior, [*start, *known])
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
        steps = (
            self.space.mutate(known[int(rng.integers(len(known)))].params, rng) for _ in range(DRAWN if known else 0)
        )
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
        candidate = self._network(params)
        if candidate is None or not within(candidate, self.limits):
            self.num_decided += 1
            return None
        return candidate

    def _network(self, params: Params) -> Candidate | None:
        if params not in self._counted:
            self._counted[params] = self.space.try_candidate(params)
        return self._counted[params]

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
