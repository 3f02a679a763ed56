"""The second stage: a few finalists and the known networks, trained longer from several seeds, scored on test once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from meliuscli.errors import BadInputError
from meliuscli.results import read_record, write_record
from meliuscli.search.accuracy import AccuracyModel, features, thinned
from meliuscli.search.cost import OPS, Cost
from meliuscli.search.goal import TargetGoal
from meliuscli.search.objective import final_task, transfer_task
from meliuscli.search.pareto import Point
from meliuscli.search.space import Candidate, SearchSpace
from meliuscli.search.study import Outcomes, Study, TrialRecord
from meliuscli.search.trainings import Trainings, train_all
from meliuscli.training.pool import Task


@dataclass(frozen=True, slots=True)
class Entrant:
    """A network of the second stage. ``known_as`` is None for what the search found."""

    name: str
    known_as: str | None
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Standing:
    """An entrant's accuracies (0 to 1), one a seed. Choices are made on ``validation``, never on ``test``. ``num_at_chance``
    of the trainings ended no better than guessing."""

    entrant: Entrant
    validation: tuple[float, ...]
    test: tuple[float, ...]
    num_at_chance: int = 0

    @property
    def validation_mean(self) -> float:
        return statistics.fmean(self.validation)

    @property
    def test_mean(self) -> float:
        return statistics.fmean(self.test)

    @property
    def test_spread(self) -> float | None:
        """Sample standard deviation over seeds; None from a single one."""
        return statistics.stdev(self.test) if len(self.test) > 1 else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The search's answer to one known network: the found one, chosen on validation among those of no higher cost."""

    known: Standing
    found: Standing | None

    @property
    def gain(self) -> float | None:
        """Difference of mean test accuracy."""
        return None if self.found is None else self.found.test_mean - self.known.test_mean

    @property
    def spread(self) -> float | None:
        """The larger of the two spreads over seeds."""
        if self.found is None or self.found.test_spread is None or self.known.test_spread is None:
            return None
        return max(self.found.test_spread, self.known.test_spread)

    @property
    def beaten(self) -> bool:
        """Is the gain larger than the spread?"""
        return self.gain is not None and self.spread is not None and self.gain > self.spread

    @property
    def lost(self) -> bool:
        """Is the found one worse by more than the spread?"""
        return self.gain is not None and self.spread is not None and -self.gain > self.spread


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


def _worth(study: Study, records: Sequence[TrialRecord]) -> dict[str, float]:
    """archid -> what the search maximises, believed."""
    if not isinstance(study.goal, TargetGoal):
        return believed_accuracy(study.space, records)
    candidates = [record.candidate for record in records]
    lows = study.goal.predict(candidates)[0].tolist() if candidates else []
    return {candidate.archid: low for candidate, low in zip(candidates, lows, strict=True)}


def choose_entrants(study: Study) -> list[Entrant]:
    """All known networks, and up to ``settings.finalists`` found ones."""
    records = study.records()
    worth, cost = _worth(study, records), study.cost.of
    found = [record for record in records if record.known_as is None and record.accuracy is not None]
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


@dataclass(frozen=True, slots=True)
class Round:
    """Trainings of entrants from several seeds, each written to ``path`` as it ends. ``task`` makes one of them, and
    ``cost`` says who is compared with whom. ``read`` gives the outcomes that are kept elsewhere than in ``path``."""

    path: Path
    seeds: int
    task: Callable[[Candidate, int], Task]
    cost: Cost
    read: Callable[[], Outcomes] | None = None

    def outcomes(self) -> Outcomes:
        """What came of the trainings so far."""
        return _load(self.path) if self.read is None else self.read()

    def in_order(self, entrants: Sequence[Entrant]) -> Iterator[tuple[Entrant, int]]:
        """Every entrant with every seed, those first that a comparison needs."""
        needed = compared(entrants, self.cost)
        for group in (needed, [entrant for entrant in entrants if entrant not in needed]):
            for seed in range(self.seeds):
                for entrant in group:
                    yield entrant, seed

    def run(
        self, entrants: Sequence[Entrant], trainings: Trainings[Any]
    ) -> Iterator[tuple[Entrant, int, dict[str, Any]]]:
        """Train every entrant from every seed; yields (entrant, seed, what came of it) as each is written down."""
        done = _load(self.path)
        todo = {
            (entrant, seed): self.task(entrant.candidate, seed)
            for entrant, seed in self.in_order(entrants)
            if str(seed) not in done.get(entrant.candidate.archid, {})
        }
        for (entrant, seed), outcome in train_all(todo, trainings):
            fields = done.setdefault(entrant.candidate.archid, {})[str(seed)] = outcome.fields()
            write_record(self.path, {"trainings": done})
            yield entrant, seed, fields

    def num_done(self, entrants: Sequence[Entrant]) -> int:
        """How many of the trainings are written down."""
        done = self.outcomes()
        return sum(str(seed) in done.get(e.candidate.archid, {}) for e in entrants for seed in range(self.seeds))

    def standings(self, entrants: Sequence[Entrant]) -> list[Standing]:
        """What came of it, best mean validation accuracy first; entrants with a failed training are left out."""
        done, found = self.outcomes(), []
        for entrant in entrants:
            runs = [done.get(entrant.candidate.archid, {}).get(str(seed), {}) for seed in range(self.seeds)]
            if all("test_top1" in run for run in runs):
                validation = tuple(run["validation_top1"] for run in runs)
                at_chance = sum(run.get("at_chance", False) for run in runs)
                found.append(Standing(entrant, validation, tuple(run["test_top1"] for run in runs), at_chance))
        return sorted(found, key=lambda standing: -standing.validation_mean)


def finals_of(study: Study) -> Round:
    """Longer trainings on the proxy's data."""

    def task(candidate: Candidate, seed: int) -> Task:
        return final_task(study.proxy_task(candidate), study.space, seed)

    return _round(study, "finals", task)


def transfer_of(study: Study) -> Round | None:
    """Trainings on data that the search never used, where they are asked for."""
    settings = study.settings
    if (dataset := settings.transfer) is None:
        return None

    def task(candidate: Candidate, seed: int) -> Task:
        short, directory = study.proxy_task(candidate), settings.transfer_data
        return transfer_task(short, candidate.spec, study.space, dataset, directory, seed)

    return _round(study, "transfer", task)


def _round(study: Study, name: str, task: Callable[[Candidate, int], Task]) -> Round:
    read = None if study.outcomes is None else partial(study.outcomes, name)
    return Round(study.directory / f"{name}.json", study.settings.final_seeds, task, study.cost, read)


def verdicts(table: Sequence[Standing], cost: Callable[[Candidate], float] = OPS.of) -> list[Verdict]:
    """One for each known network, cheapest first."""
    known = sorted((s for s in table if s.entrant.known_as is not None), key=lambda s: cost(s.entrant.candidate))
    return [
        Verdict(
            standing,
            next(
                (
                    other
                    for other in table
                    if other.entrant.known_as is None
                    and cost(other.entrant.candidate) <= cost(standing.entrant.candidate)
                ),
                None,
            ),
        )
        for standing in known
    ]


def _load(path: Path) -> Outcomes:
    if not path.exists():
        return {}
    try:
        stored = read_record(path)
        loaded = TypeAdapter(Outcomes).validate_python(stored.get("trainings", stored))  # once, nothing else was in it
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: cannot be read: {error}", "delete it to train the finalists again") from None
    return loaded
