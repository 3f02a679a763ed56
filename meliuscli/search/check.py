"""A check of proxies: networks spread over a space's OPs, each trained long from two seeds and short in several ways.

Everything is in ``check.json`` from the moment it is known, so a check that was stopped goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from meliuscli.arch.adapt import as_proxy
from meliuscli.arch.spec import ArchSpec
from meliuscli.data.names import DEFAULT_DATASET
from meliuscli.errors import BadInputError, SpecError
from meliuscli.results import read_record, write_record
from meliuscli.search.plan import CheckPlan
from meliuscli.search.proposals import SPREAD_STARTS, Proposer
from meliuscli.search.space import Candidate, SearchSpace
from meliuscli.search.targets import published_networks, target_name
from meliuscli.search.trainings import Trainings, train_all
from meliuscli.search.ways import Proxy
from meliuscli.training.pool import Task
from meliuscli.work.folders import CHECK

if TYPE_CHECKING:
    from meliuscli.data.batches import Prepared
    from meliuscli.data.folder import ImageFolder

Trained = dict[str, dict[str, dict[str, dict[str, Any]]]]
"""Way -> archid -> seed -> what the training gave, or its ``reason`` for failing."""


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What a check has to know about a data set, without its images."""

    num_classes: int
    channels: int
    num_validation: int
    digest: str
    left_out: int | None = None
    """Image files that cannot be read, where they may be left out."""


@dataclass(frozen=True, slots=True)
class CheckTraining:
    """One training that a check asks for."""

    way: str
    candidate: Candidate
    seed: int


@dataclass(frozen=True, slots=True)
class Check:
    """A check in its directory."""

    directory: Path
    plan: CheckPlan
    data: dict[str, DataFacts]
    networks: tuple[Candidate, ...]
    origin: dict[str, Any]
    trainings: Trained = field(default_factory=dict)

    def asked(self) -> list[CheckTraining]:
        """All trainings, network by network, so that what is done of an unfinished check is of whole networks."""
        return [
            CheckTraining(way, candidate, seed)
            for candidate in self.networks
            for way in self.plan.ways
            for seed in self.plan.seeds_of(way)
        ]

    def outcome(self, training: CheckTraining) -> dict[str, Any] | None:
        """What a training gave: its fields, or a ``reason``; None before it is done."""
        return self.trainings.get(training.way, {}).get(training.candidate.archid, {}).get(str(training.seed))

    def run(self, workers: int) -> Iterator[tuple[CheckTraining, dict[str, Any]]]:
        """Train what is left; yields each training as it is written down."""
        todo = {index: training for index, training in enumerate(self.asked()) if self.outcome(training) is None}
        tasks = {index: self._task(training) for index, training in todo.items()}
        with Trainings[int](workers) as trainings:
            for index, outcome in train_all(tasks, trainings):
                fields = outcome.fields()
                way, archid, seed = todo[index].way, todo[index].candidate.archid, str(todo[index].seed)
                self.trainings.setdefault(way, {}).setdefault(archid, {})[seed] = fields
                self.save()
                yield todo[index], fields

    def save(self) -> None:
        write_record(self.directory / CHECK.marker, self.content())

    def content(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            "plan": self.plan.model_dump(mode="json"),
            "data": {name: asdict(facts) for name, facts in self.data.items()},
            "networks": [_identity(candidate, self.plan) for candidate in self.networks],
            "origin": self.origin,
            "trainings": self.trainings,
        }

    def _task(self, training: CheckTraining) -> Task:
        way = self.plan.ways[training.way]
        data = self.data[way.dataset]
        spec = as_trained(training.candidate.spec, way, data)
        directory, skip_bad = data_directory(self.plan, way.dataset), self.plan.skip_bad
        return Task(
            spec,
            way.dataset,
            directory,
            way.recipe,
            training.seed,
            skip_bad=skip_bad,
            device=self.plan.device,
            untrained=self.plan.against == "published",
            teacher=way.teacher_spec(data.num_classes, data.channels),
        )


def _identity(candidate: Candidate, plan: CheckPlan) -> dict[str, Any]:
    named = {"arch": target_name(candidate)} if plan.against == "published" else {"params": candidate.params}
    return {"archid": candidate.archid, **named, "ops": candidate.ops}


def data_directory(plan: CheckPlan, dataset: str) -> Path | None:
    """Where a data set's files are; the embedded one has none."""
    return None if dataset == DEFAULT_DATASET or plan.data_dir is None else Path(plan.data_dir)


def read_data(plan: CheckPlan, decode: Callable[[ImageFolder, int], Prepared]) -> dict[str, DataFacts]:
    """Load every data set of the plan, so that what is missing or corrupt is said before anything is trained.

    Image folders are given to ``decode`` with every size that they are trained at: workers then find them decoded."""
    from meliuscli.data.batches import num_left_out
    from meliuscli.data.catalog import load_dataset
    from meliuscli.data.folder import ImageFolder

    facts = {}
    for way in plan.ways.values():
        loaded = load_dataset(way.dataset, data_directory(plan, way.dataset), way.recipe.cut, plan.skip_bad)
        num_validation, left_out = len(loaded.validation), None
        if isinstance(loaded, ImageFolder):
            prepared = decode(loaded, way.input_size)
            num_validation = len(prepared.validation[1])
            left_out = num_left_out(loaded, prepared) if plan.skip_bad else None
        facts[way.dataset] = DataFacts(loaded.num_classes, loaded.channels, num_validation, loaded.digest, left_out)
    return facts


def as_trained(spec: ArchSpec, way: Proxy, data: DataFacts) -> ArchSpec:
    """The network that is trained in place of ``spec``. Raises ``SpecError`` when it cannot exist."""
    return as_proxy(spec, data.num_classes, data.channels, way.input_size, way.width_divisor)


def sample(space: SearchSpace, plan: CheckPlan, data: dict[str, DataFacts]) -> tuple[Candidate, ...]:
    """Different networks within the budget, in equal numbers from equal parts of the (logarithmic) range of OPs as far
    as the parts have them; also different as trained long, and possible in every way of training.

    The first ones are spread as evenly as all. Raises ``BadInputError`` when there are too few."""
    if plan.budget is not None and plan.budget < space.smallest.ops:
        raise BadInputError(f"the smallest network of this space needs {space.smallest.ops:.0f} OPs", "raise --budget")
    pool: dict[str, Candidate] = {}
    for candidate in Proposer(space, math.inf if plan.budget is None else plan.budget, plan.seed).pool:
        if (trained := _trained_long(candidate, plan, data)) is not None:
            pool.setdefault(trained.archid, candidate)
    if not pool:  # says why, where no network of the space can be trained in some way
        for way in plan.ways.values():
            as_trained(space.smallest.spec, way, data[way.dataset])
    logs = {archid: math.log(candidate.ops) for archid, candidate in pool.items()}
    edges = np.linspace(min(logs.values(), default=0), max(logs.values(), default=0), SPREAD_STARTS + 1)[1:-1]
    parts: list[list[Candidate]] = [[] for _ in range(SPREAD_STARTS)]
    for archid, candidate in pool.items():  # in random order
        parts[int(np.searchsorted(edges, logs[archid]))].append(candidate)
    chosen: list[Candidate] = []
    while len(chosen) < plan.networks and any(parts):
        chosen += [part.pop() for part in parts if part][: plan.networks - len(chosen)]
    if len(chosen) < plan.networks:
        raise BadInputError(
            f"only {len(chosen)} different networks were found in this space, {plan.networks} are asked for",
            "ask for fewer with --networks, or raise --budget" if len(chosen) >= 4 else "allow more in the space",
        )
    return tuple(chosen)


def _trained_long(candidate: Candidate, plan: CheckPlan, data: dict[str, DataFacts]) -> ArchSpec | None:
    """The network as trained long, or None when some way of training has none."""
    try:
        return [as_trained(candidate.spec, way, data[way.dataset]) for way in plan.ways.values()][-1]
    except SpecError:
        return None


def read_check(directory: Path, space: SearchSpace) -> Check:
    """A check as it was left. Raises ``BadInputError`` for a file that holds none."""
    path = directory / CHECK.marker
    with CHECK.reading(path):
        stored = read_record(path)
        plan = CheckPlan.model_validate(stored["plan"])
        if plan.against == "published":
            networks = published_networks()
        else:
            networks = tuple(space.candidate(tuple(network["params"])) for network in stored["networks"])
        if [c.archid for c in networks] != [network["archid"] for network in stored["networks"]]:
            raise ValueError("the space is another one")
        return Check(
            directory,
            plan,
            TypeAdapter(dict[str, DataFacts]).validate_python(stored["data"]),
            networks,
            TypeAdapter(dict[str, Any]).validate_python(stored["origin"]),
            TypeAdapter(Trained).validate_python(stored["trainings"]),
        )
