"""What a search maximises: what is believed of the target, or the proxy's own accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from meliuscli.evidence.belief import Belief, as_beliefs, inputs_of, is_far, target_model, why_uncovered
from meliuscli.search.accuracy import AccuracyModel, features, thinned
from meliuscli.search.ridge import Array
from meliuscli.search.space import Candidate, SearchSpace

Observed = Sequence[tuple[Candidate, float]]
"""Candidates with the accuracies (0 to 1) that they had on the proxy."""
SURE = 1e-3
"""Points: how far a belief moves when its network is trained on a proxy that has no weight."""


class Posterior(Protocol):
    """What is believed after some trainings."""

    def predict(self, candidates: Sequence[Candidate]) -> tuple[Array, Array]:
        """Mean and standard deviation (N,) of what is to be maximised; the deviation is what trainings can remove."""


class Goal(Protocol):
    """What a search maximises, as a model that learns from trainings."""

    @property
    def explores(self) -> bool:
        """Whether the first proposals have to spread, because nothing is known before something is trained."""

    def fit(self, observed: Observed, pending: Sequence[Candidate] = ()) -> Posterior:
        """What is believed after ``observed``, while ``pending`` are in training."""


@dataclass(frozen=True, slots=True)
class ProxyGoal:
    """The accuracy on the proxy's own data."""

    space: SearchSpace
    explores: bool = True
    _rows: dict[str, Array] = field(default_factory=dict)

    def fit(self, observed: Observed, pending: Sequence[Candidate] = ()) -> ProxyPosterior:
        observed = [observed[place] for place in thinned(len(observed))]
        inputs = self.features([candidate for candidate, _ in observed])
        return ProxyPosterior(self, AccuracyModel.fit(inputs, np.array([value for _, value in observed])))

    def features(self, candidates: Sequence[Candidate]) -> Array:
        """(N, F), each candidate's once."""
        new = [candidate for candidate in candidates if candidate.archid not in self._rows]
        self._rows.update(zip((candidate.archid for candidate in new), features(self.space, new), strict=True))
        return np.array([self._rows[candidate.archid] for candidate in candidates])


@dataclass(frozen=True, slots=True)
class ProxyPosterior:
    """Accuracies on the proxy's data as a fitted model has them."""

    goal: ProxyGoal
    model: AccuracyModel

    def predict(self, candidates: Sequence[Candidate]) -> tuple[Array, Array]:
        return self.model.predict(self.goal.features(candidates))


@dataclass(frozen=True, slots=True)
class TargetGoal:
    """ImageNet top-1, of which the lower end of the believed interval counts: a search looks for the places where a
    model is too hopeful, and those are where it knows least. Trainings on a proxy that has no weight change nothing."""

    explores: bool = False
    _forecasts: dict[str, Belief | None] = field(default_factory=dict)

    def beliefs(self, candidates: Sequence[Candidate]) -> list[Belief | None]:
        """What is believed of candidates; None where the evidence says nothing of one, as in ``believe``."""
        return [None if belief is None or is_far(belief) else belief for belief in self._forecast(candidates)]

    def fit(self, observed: Observed, pending: Sequence[Candidate] = ()) -> TargetGoal:
        return self

    def predict(self, candidates: Sequence[Candidate]) -> tuple[Array, Array]:
        """Of a network that is too far from the evidence it is the end of a wide interval, which shows a search the way
        back; of one that is not covered it is 0."""
        lows = np.array([0.0 if belief is None else belief.low for belief in self._forecast(candidates)])
        return lows, np.full(len(lows), SURE)

    def _forecast(self, candidates: Sequence[Candidate]) -> list[Belief | None]:
        """The model's, each candidate's once, however far it is; None where the evidence does not cover one."""
        new = {c.archid: c.spec for c in candidates if c.archid not in self._forecasts}
        self._forecasts.update(dict.fromkeys(new))
        covered = {archid: spec for archid, spec in new.items() if why_uncovered(spec) is None}
        if covered:
            beliefs = as_beliefs(*target_model().predict(inputs_of(list(covered.values()))))
            self._forecasts.update(zip(covered, beliefs, strict=True))
        return [self._forecasts[candidate.archid] for candidate in candidates]


def why_no_belief(space: SearchSpace) -> str | None:
    """Why the evidence says nothing of a space's networks at its target; None where it covers one of them. Of each that
    it does not cover ``TargetGoal`` believes nothing."""
    return why_uncovered(space.any_candidate.spec)
