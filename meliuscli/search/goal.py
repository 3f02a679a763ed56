"""What a search maximises: what is believed of the target, or the proxy's own accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from meliuscli.evidence.belief import Belief, as_beliefs, inputs_of, target_model, why_uncovered
from meliuscli.search.space import Candidate, SearchSpace
from meliuscli.search.surrogate import Array, features, fit

Observed = Sequence[tuple[Candidate, float]]
"""Candidates with the accuracies (0 to 1) that they had on the proxy."""
SURE = 1e-3
"""Points: how far a belief moves when its network is trained on a proxy that has no weight."""


class Goal(Protocol):
    """What candidates are worth, given what was trained."""

    @property
    def explores(self) -> bool:
        """Whether the first proposals have to spread, because nothing is known before something is trained."""

    def worth(self, candidates: Sequence[Candidate], observed: Observed) -> tuple[Array, Array]:
        """Mean and standard deviation (N,) of what is to be maximised; the deviation is what trainings can remove."""


@dataclass(frozen=True, slots=True)
class ProxyGoal:
    """The accuracy on the proxy's own data."""

    space: SearchSpace
    explores: bool = True

    def worth(self, candidates: Sequence[Candidate], observed: Observed) -> tuple[Array, Array]:
        trained = [candidate for candidate, _ in observed]
        model = fit(features(self.space, trained), np.array([accuracy for _, accuracy in observed]))
        return model.predict(features(self.space, candidates))


@dataclass(frozen=True, slots=True)
class TargetGoal:
    """ImageNet top-1, of which the lower end of the believed interval counts: a search looks for the places where a
    model is too hopeful, and those are where it knows least."""

    explores: bool = False
    _beliefs: dict[str, Belief] = field(default_factory=dict)

    def beliefs(self, candidates: Sequence[Candidate]) -> list[Belief]:
        """What is believed of candidates."""
        new = {c.archid: c for c in candidates if c.archid not in self._beliefs}
        if new:
            beliefs = as_beliefs(*target_model().predict(inputs_of([c.spec for c in new.values()])))
            self._beliefs.update(zip(new, beliefs, strict=True))
        return [self._beliefs[candidate.archid] for candidate in candidates]

    def worth(self, candidates: Sequence[Candidate], observed: Observed) -> tuple[Array, Array]:
        lows = np.array([belief.low for belief in self.beliefs(candidates)])
        return lows, np.full(len(lows), SURE)


def why_no_belief(space: SearchSpace) -> str | None:
    """Why the evidence says nothing of a space's networks at its target; None where it does."""
    return why_uncovered(space.any_candidate.spec)
