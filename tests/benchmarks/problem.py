"""Problems that searchers are held against: accuracies without training, on a real space with exact costs.

``Calibrated`` is a law of accuracy in counts, fitted to the published MeliusNets, with tastes that differ from instance
to instance. ``Tabulated`` are real trainings of some networks, and each proposal stands for the nearest of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Set
from pathlib import Path
from typing import Protocol

import numpy as np

from meliuscli.counting.analytic import count_spec
from meliuscli.counting.counts import Count
from meliuscli.evidence.runs import target_runs
from meliuscli.search.accuracy import places
from meliuscli.search.space import Candidate, Params, SearchSpace

NOISE = 0.5
"""Points: the standard deviation of a training around what its network can do."""
PRIOR_SLOPE = 2.0
"""Points an e-fold of each count, towards which seven published results are pulled: they do not fix three slopes."""


class Problem(Protocol):
    """Accuracies of candidates, in percent. Areas are counted from ``floor`` upwards, in parts of ``height`` points."""

    space: SearchSpace
    floor: float
    height: float

    def stands_for(self, proposal: Candidate, taken: Set[str]) -> Candidate | None:
        """The candidate that is trained in place of a proposal."""

    def true(self, candidate: Candidate) -> float: ...

    def measured(self, candidate: Candidate) -> float: ...


def published_law() -> tuple[float, ...]:
    """A constant, and slopes for logarithms of binary MACs, float MACs and params: ridge regression of the ImageNet top-1
    of MeliusNets around ``PRIOR_SLOPE``."""
    runs = [run for run in target_runs() if run.spec.family == "meliusnet"]
    x = np.array([_logs(count_spec(run.spec).total) for run in runs])
    y = np.array([run.top1 for run in runs])
    centre, prior = x.mean(0), np.full(3, PRIOR_SLOPE)
    z, rest = x - centre, y - y.mean()
    slopes = prior + np.linalg.solve(z.T @ z + 0.3**2 * np.eye(3), z.T @ (rest - z @ prior))
    return (float(y.mean() - centre @ slopes), *map(float, slopes))


def _logs(count: Count) -> tuple[float, float, float]:
    return math.log(count.binary_macs), math.log(count.float_macs), math.log(count.params)


class Calibrated:
    """Accuracy by the published law, less what a random taste dislikes (another balance of the stages, and every other
    parameter's distance from a random best value), with six random ripples. All of it, and the noise, is from ``seed``."""

    floor, height = 50.0, 25.0

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space, self.seed = space, seed
        self._law = published_law()
        rng = np.random.default_rng((20261125, seed))
        names = list(space.axes)
        self._blocks = [i for i, name in enumerate(names) if name.startswith("num_blocks")]
        self._others = [i for i, name in enumerate(names) if not name.startswith("num_blocks")]
        self._balance = rng.dirichlet(np.full(len(self._blocks), 4.0))
        self._balance_strength = rng.uniform(3, 12)
        self._best = rng.uniform(0, 1, len(self._others))
        self._strength = rng.uniform(0.5, 3.0, len(self._others))
        self._waves = rng.normal(size=(6, len(names))) * 2.0
        self._phases, self._heights = rng.uniform(0, 2 * math.pi, 6), rng.uniform(0.1, 0.4, 6)

    def stands_for(self, proposal: Candidate, taken: Set[str]) -> Candidate | None:
        return proposal

    def true(self, candidate: Candidate) -> float:
        at = np.array(places(self.space, candidate))
        law = self._law[0] + float(np.dot(self._law[1:], _logs(candidate.count)))
        blocks = np.array([float(candidate.params[i]) for i in self._blocks])
        unbalance = float(((blocks / blocks.sum() - self._balance) ** 2).sum())
        distaste = float(self._strength @ (at[self._others] - self._best) ** 2)
        ripples = float(self._heights @ np.cos(self._waves @ at + self._phases))
        return law - self._balance_strength * unbalance - distaste + ripples

    def measured(self, candidate: Candidate) -> float:
        own = np.random.default_rng((self.seed, int(candidate.archid, 16)))
        return self.true(candidate) + float(own.normal(scale=NOISE))


class Tabulated:
    """Real trainings: a search sees one seed of each network, drawn by ``seed``, and is judged by the mean of all."""

    def __init__(self, space: SearchSpace, path: Path, seed: int) -> None:
        self.space, self.seed = space, seed
        rows = json.loads(path.read_text(encoding="utf-8"))["networks"]
        self.candidates = [space.candidate(tuple(row["params"])) for row in rows]
        self._accuracies = {row["archid"]: [100 * value for value in row["top1"].values()] for row in rows}
        means = [self.true(candidate) for candidate in self.candidates]
        self.floor, self.height = min(means), max(means) - min(means)
        self._places = np.array([places(space, candidate) for candidate in self.candidates])

    def stands_for(self, proposal: Candidate, taken: Set[str]) -> Candidate | None:
        free = [i for i, candidate in enumerate(self.candidates) if candidate.archid not in taken]
        if not free:
            return None
        distances = ((self._places[free] - np.array(places(self.space, proposal))) ** 2).sum(1)
        return self.candidates[free[int(distances.argmin())]]

    def true(self, candidate: Candidate) -> float:
        return float(np.mean(self._accuracies[candidate.archid]))

    def measured(self, candidate: Candidate) -> float:
        values = self._accuracies[candidate.archid]
        own = np.random.default_rng((self.seed, int(candidate.archid, 16)))
        return values[int(own.integers(len(values)))]


class CountedSpace(SearchSpace):
    """A space that counts every network once, however many searchers ask for it."""

    def try_candidate(self, params: Params) -> Candidate | None:
        known: dict[Params, Candidate | None] = self.__dict__.setdefault("_counted_once", {})
        if params not in known:
            known[params] = super().try_candidate(params)
        return known[params]
