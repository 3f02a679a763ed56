"""The search for one proposal: from counted candidates to the one that the front gains most by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from meliuscli.search.gain import expected_answers, expected_gain
from meliuscli.search.goal import Posterior
from meliuscli.search.pareto import Point, front
from meliuscli.search.ridge import Array
from meliuscli.search.screen import Places, Screen, params_at, places_of, random_places, stepped
from meliuscli.search.space import Candidate

if TYPE_CHECKING:
    from meliuscli.search.proposals import Proposer

PARENTS, DRAWN, COUNTED = 12, 400, 6
"""From how many of the best steps go, how many steps and random candidates are drawn, and how many of these are counted."""
SLACK = math.log(1.03)
"""By how much the estimate of a number may exceed its bound for the candidate to be counted."""
BEYOND_BUDGET = 1.05
"""The front's area reaches to this many budgets, so that a network right at the budget is worth something."""


class ProposalSearch:
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
        self.own = [p for p, c in zip(self.points, known, strict=True) if c.archid not in proposer.published]
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

    def settle(self) -> None:
        """Take the best for known, so that what is looked for next lies elsewhere."""
        if (best := self.best) is None:
            return
        index = self.counted.index(best)
        self.taken.add(best.archid)
        self.points.append((self.proposer.cost(best), float(self.numbers[index, -2])))
        self.own.append(self.points[-1])
        self.front.append(best)
        allowed = np.isfinite(self.gains)
        allowed[index] = False
        gains = self._gains(np.exp(self.numbers[:, 0]), self.numbers[:, -2], self.numbers[:, -1])
        self.gains = np.where(allowed, gains, -np.inf)

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
        gains = self._gains(np.exp(logs[:, 0]), mean, deviation)
        return np.where((logs <= self.proposer.log_bounds + SLACK).all(1), gains, -np.inf)

    def _gains(self, costs: Array, mean: Array, deviation: Array) -> Array:
        most = BEYOND_BUDGET * self.proposer.budget
        gains = expected_gain(self.points, costs, mean, deviation, most)
        if asked := self.proposer.asked:
            floor = min((accuracy for _, accuracy in self.points), default=0.0)
            gains += most * expected_answers(self.own, costs, mean, deviation, asked, floor)
        return gains

    def _add(self, candidates: list[Candidate]) -> None:
        if not candidates:
            return
        proposer = self.proposer
        mean, deviation = self.posterior.predict(candidates)
        logs = proposer.logs(candidates)
        gains = self._gains(np.exp(logs[:, 0]), mean, deviation)
        allowed = [c.archid not in self.taken for c in candidates]
        self.counted += candidates
        self.gains = np.concatenate([self.gains, np.where(allowed, gains, -np.inf)])
        rows = np.array([places_of(proposer.space, c.params) for c in candidates], dtype=np.intp)
        self.places = np.concatenate([self.places, rows])
        self.numbers = np.concatenate([self.numbers, np.column_stack([logs, mean, deviation])])
