"""The second stage: a few finalists and the known networks, trained longer from several seeds, scored on test once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from meliuscli.errors import BadInputError
from meliuscli.results import read_record, write_record
from meliuscli.search.cost import OPS, Cost
from meliuscli.search.entrants import Entrant, compared
from meliuscli.search.objective import final_task, transfer_task
from meliuscli.search.records import Outcomes
from meliuscli.search.space import Candidate
from meliuscli.search.study_trials import StudyTrials
from meliuscli.search.trainings import Trainings, train_all
from meliuscli.training.pool import Task


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


@dataclass(frozen=True, slots=True)
class Round:
    """Trainings of entrants from several seeds, each written to ``path`` as it ends. ``task`` makes one of them, and
    ``cost`` says who is compared with whom. ``num_trials``, which ``path`` says too, says how many trials the entrants were
    chosen from. ``read`` gives the outcomes that are kept elsewhere than in ``path``."""

    path: Path
    seeds: int
    task: Callable[[Candidate, int], Task]
    cost: Cost
    num_trials: int = 0
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
            write_record(self.path, {"trials": self.num_trials, "trainings": done})
            yield entrant, seed, fields

    def num_done(self, entrants: Sequence[Entrant]) -> int:
        """How many of the trainings are written down."""
        done = self.outcomes()
        return sum(str(seed) in done.get(e.candidate.archid, {}) for e in entrants for seed in range(self.seeds))

    def standings(self, entrants: Sequence[Entrant]) -> list[Standing]:
        """What came of it, best mean validation accuracy first, of equal ones the cheaper; entrants with a failed training
        are left out."""
        done, found = self.outcomes(), []
        for entrant in entrants:
            runs = [done.get(entrant.candidate.archid, {}).get(str(seed), {}) for seed in range(self.seeds)]
            if all("test_top1" in run for run in runs):
                validation = tuple(run["validation_top1"] for run in runs)
                at_chance = sum(run.get("at_chance", False) for run in runs)
                found.append(Standing(entrant, validation, tuple(run["test_top1"] for run in runs), at_chance))
        return sorted(found, key=lambda standing: (-standing.validation_mean, self.cost.of(standing.entrant.candidate)))


def finals_of(study: StudyTrials) -> Round:
    """Longer trainings on the proxy's data."""

    def task(candidate: Candidate, seed: int) -> Task:
        return final_task(study.proxy_task(candidate), study.space, seed)

    return _round(study, "finals", task)


def transfer_of(study: StudyTrials) -> Round | None:
    """Trainings on data that the search never used, where they are asked for."""
    settings = study.settings
    if (dataset := settings.transfer) is None:
        return None

    def task(candidate: Candidate, seed: int) -> Task:
        short, directory = study.proxy_task(candidate), settings.transfer_data
        return transfer_task(short, candidate.spec, study.space, dataset, directory, seed)

    return _round(study, "transfer", task)


def _round(study: StudyTrials, name: str, task: Callable[[Candidate, int], Task]) -> Round:
    read = None if study.outcomes is None else partial(study.outcomes, name)
    num_trials = len(study.records()) if read is None else 0
    return Round(study.directory / f"{name}.json", study.settings.final_seeds, task, study.cost, num_trials, read)


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
