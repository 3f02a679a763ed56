"""Who is in the finals: the known networks, and the found ones that are worth a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meliuscli.search.accuracy import AccuracyModel, features, thinned
from meliuscli.search.cost import Cost
from meliuscli.search.goal import TargetGoal
from meliuscli.search.pareto import Point
from meliuscli.search.records import TrialRecord
from meliuscli.search.space import Candidate, SearchSpace

if TYPE_CHECKING:
    from meliuscli.search.study_trials import StudyTrials


@dataclass(frozen=True, slots=True)
class Entrant:
    """A network of the second stage. ``known_as`` is None for what the search found."""

    name: str
    known_as: str | None
    candidate: Candidate


def believed_accuracy(space: SearchSpace, records: Sequence[TrialRecord]) -> dict[str, float]:
    """archid -> the mean of the model of accuracy, in which a lucky seed counts for less than in the measured value."""
    trained = [(record.candidate, record.accuracy) for record in records if record.accuracy is not None]
    if len(trained) < 4:
        return {candidate.archid: accuracy for candidate, accuracy in trained}
    x, measured = features(space, [c for c, _ in trained]), np.array([accuracy for _, accuracy in trained])
    seen = thinned(len(trained))
    model = AccuracyModel.fit(x[seen], measured[seen])
    mean, deviation = model.predict(x)
    # What the model has not seen is believed after one more observation, its own.
    weight = deviation**2 / (deviation**2 + model.noise**2)
    weight[seen] = 0
    believed = mean + weight * (measured - mean)
    return {candidate.archid: float(value) for (candidate, _), value in zip(trained, believed, strict=True)}


def _worth(study: StudyTrials, records: Sequence[TrialRecord]) -> dict[str, float]:
    """archid -> what the search maximises, believed."""
    if not isinstance(study.goal, TargetGoal):
        return believed_accuracy(study.space, records)
    candidates = [record.candidate for record in records]
    lows = study.goal.predict(candidates)[0].tolist() if candidates else []
    return {candidate.archid: low for candidate, low in zip(candidates, lows, strict=True)}


def _found(study: StudyTrials, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """What the search found, where it maximises beliefs that of which something is believed."""
    found = [record for record in records if record.known_as is None]
    if not isinstance(study.goal, TargetGoal):
        return found
    beliefs = study.goal.beliefs([record.candidate for record in found])
    return [record for record, belief in zip(found, beliefs, strict=True) if belief is not None]


def choose_entrants(study: StudyTrials) -> list[Entrant]:
    """All known networks, and up to ``settings.finalists`` found ones."""
    records = study.records()
    worth, cost = _worth(study, records), study.cost.of
    found = [record for record in _found(study, records) if record.accuracy is not None]
    points = [(cost(record.candidate), worth[record.candidate.archid]) for record in found]
    chosen = [found[i] for i in choose(points, study.asked, study.settings.all_budgets, study.settings.finalists)]
    entrants = [Entrant(r.name, None, r.candidate) for r in sorted(chosen, key=lambda r: r.number)]
    known = sorted(study.known.values(), key=lambda item: cost(item[1]))
    return entrants + [Entrant(name, name, candidate) for name, candidate in known]


def choose(found: Sequence[Point], asked: Sequence[float], budgets: Sequence[float], most: int) -> list[int]:
    """Which ``most`` of ``found``, (cost, worth), are worth a comparison: the best within each budget, the largest first;
    then, one by one, the one that makes the best chosen ones within the costs that are ``asked`` for most better."""
    lowest = min((worth for _, worth in found), default=0.0)

    def answers(indices: Sequence[int]) -> float:
        return sum(max((found[i][1] for i in indices if found[i][0] <= limit), default=lowest) for limit in asked)

    order = sorted(range(len(found)), key=lambda i: -found[i][1])
    heads = (next((i for i in order if found[i][0] <= budget), None) for budget in sorted(budgets, reverse=True))
    chosen = list(dict.fromkeys(index for index in heads if index is not None))[:most]
    while len(chosen) < min(most, len(found)):
        chosen.append(max((i for i in order if i not in chosen), key=lambda index: answers([*chosen, index])))
    return chosen


def compared(entrants: Sequence[Entrant], cost: Cost) -> list[Entrant]:
    """Found networks that some known one costs at least as much as, and known ones with such a found one."""
    known, found = ([e for e in entrants if (e.known_as is None) == is_found] for is_found in (False, True))
    pairs = [(f, k) for f in found for k in known if cost.of(f.candidate) <= cost.of(k.candidate)]
    return [entrant for entrant in entrants if any(entrant in pair for pair in pairs)]
