"""A study: trials asked for, trained, told and written down. The only file that imports Optuna.

Trials are told in the order they were asked, and each proposal sees exactly the trials told ``lag`` places before it,
so a study gives the same trials whatever the number of workers, their speed, or interruptions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import optuna
import optuna.storages.journal
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from meliuscli.errors import BadInputError, FailedError, MeliusError
from meliuscli.search.axis import Axis
from meliuscli.search.cost import OPS, Cost
from meliuscli.search.goal import Goal, ProxyGoal, TargetGoal
from meliuscli.search.limits import Limit, params_limit, size_limit
from meliuscli.search.objective import proxy_task
from meliuscli.search.proposals import SPREAD_STARTS, Proposer
from meliuscli.search.space import Candidate, Params, SearchSpace, params_from_mapping
from meliuscli.search.trainings import worker_killed
from meliuscli.training.pool import TrainingPool

if TYPE_CHECKING:
    from meliuscli.training.run import RunResult

SamplerName = Literal["cost-aware", "tpe", "gp", "nsga2", "random"]
STUDY_NAME = "search"
MIN_LAG = 4
MAX_REJECTIONS = 2000
POPULATION = 20
"""Of NSGA-II: Optuna's own 50 leave a search of some dozens of trainings in its first, random generation."""
DECIDED = "decided_by_counting"
"""The attribute of a trial that says how many others were decided by counting before it was proposed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a study is made with, and repeated with."""

    space: str
    budget: int | float
    trials: int
    seed: int
    sampler: SamplerName
    finalists: int
    final_seeds: int
    lag: int
    data_dir: str | None = None
    objective: Literal["ops", "latency"] = "ops"
    skip_bad: bool = False
    maximises: Literal["belief", "proxy"] = "proxy"
    budgets: tuple[float, ...] = ()
    max_size: float | None = None
    max_params: float | None = None
    dataset: str | None = None
    """The proxy's data in place of the space's."""

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The hard limits beside the budget."""
        size, params = self.max_size, self.max_params
        return (
            *(() if size is None else (size_limit(size),)),
            *(() if params is None else (params_limit(params),)),
        )


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A candidate that was trained (``accuracy`` is its proxy validation top-1, 0 to 1) or failed (``reason``)."""

    number: int
    candidate: Candidate
    known_as: str | None
    accuracy: float | None
    reason: str | None
    result: dict[str, Any]


class Study:
    """One study in its directory: ``journal.log`` holds every trial from the moment it is asked."""

    def __init__(self, directory: Path, settings: Settings, space: SearchSpace, cost: Cost = OPS) -> None:
        self.directory, self.settings, self.space, self.cost = directory, settings, space, cost
        self.data_dir = Path(settings.data_dir) if settings.data_dir else None
        self.goal: Goal = TargetGoal() if settings.maximises == "belief" else ProxyGoal(space)
        self.known = {
            candidate.archid: (name, candidate)
            for name, candidate in space.known_candidates()
            if self.allows(candidate)
        }
        self._candidates: dict[Params, Candidate] = {}
        self._distributions = {name: _distribution(axis) for name, axis in space.axes.items()}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = _open_journal(directory / "journal.log")
        for _, candidate in self.known.values():
            self._enqueue(candidate, skip_if_exists=True)

    @property
    def num_rejected(self) -> int:
        """Candidates that were looked at and were over a limit, impossible or duplicates: decided by counting, never
        trained. Those of Optuna's samplers are trials that end at once; ours decides before it proposes."""
        pruned = len(self._optuna.get_trials(deepcopy=False, states=(TrialState.PRUNED,)))
        return pruned + sum(int(t.user_attrs.get(DECIDED, 0)) for t in self._optuna.get_trials(deepcopy=False))

    def allows(self, candidate: Candidate) -> bool:
        """Is it within the budget and all other limits?"""
        within = all(limit.holds(candidate) for limit in self.settings.limits)
        return within and self.cost.of(candidate) <= self.settings.budget

    def records(self) -> list[TrialRecord]:
        """All candidates that were trained, in the order they were asked for."""
        finished = self._optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        return [self._record(trial) for trial in sorted(finished, key=lambda trial: trial.number)]

    def run(self, workers: int, timeout: float | None = None) -> Iterator[TrialRecord]:
        """Train candidates until ``settings.trials`` are done; yields each as it is told.

        After ``timeout`` seconds no new candidate is started. Raises ``MissingError`` when a worker is killed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        settings = self.settings
        proposer = Proposer(self.space, settings.budget, settings.seed, self.cost, settings.limits, self.goal)
        with TrainingPool(workers) as pool:
            flights = [self._launch(trial, pool) for trial in self._interrupted()]
            while True:
                told = self.records()
                while len(flights) < self.settings.lag and self._may_ask(len(told) + len(flights), deadline):
                    trial = self._ask(proposer, told, [flight.candidate for flight in flights])
                    if trial is None:
                        break
                    flights.append(self._launch(trial, pool))
                if not flights:
                    return
                self._await_first(flights)
                yield self._tell(flights.pop(0))

    def _may_ask(self, asked: int, deadline: float | None) -> bool:
        return asked < self.settings.trials and (deadline is None or time.monotonic() < deadline)

    def _ask(
        self, proposer: Proposer, told: Sequence[TrialRecord], pending: Sequence[Candidate]
    ) -> optuna.trial.Trial | None:
        """A new trial whose candidate is within the budget and new; None when there is none left."""
        asked = [record.candidate for record in told] + list(pending)
        if len(asked) >= len(self.known) and not self._waiting():
            if self.settings.sampler == "cost-aware":
                observed = [(r.candidate, r.accuracy) for r in told if r.accuracy is not None]
                lost = [r.candidate for r in told if r.accuracy is None]
                explore = len(asked) < len(self.known) + SPREAD_STARTS
                try:
                    proposed = proposer.propose(len(asked), explore, observed, [*pending, *lost])
                    self._enqueue(proposed, decided=proposer.num_decided)
                except FailedError:
                    return None
            else:
                self._optuna.sampler = self._optuna_sampler(len(asked))
        for _ in range(MAX_REJECTIONS):
            trial = self._optuna.ask(self._distributions)
            candidate = self._candidate(trial.params)
            if self._acceptable(candidate, asked):
                assert candidate is not None
                trial.set_constraint(self.cost.key, self.cost.of(candidate) / self.settings.budget - 1)
                return trial
            over = 1.0 if candidate is None else self.cost.of(candidate) / self.settings.budget - 1
            trial.set_constraint(self.cost.key, over)
            self._optuna.tell(trial, state=TrialState.PRUNED)
        return None

    def _acceptable(self, candidate: Candidate | None, asked: Sequence[Candidate]) -> bool:
        """Possible, within the budget, and not trained or in training already."""
        if candidate is None or not self.allows(candidate):
            return False
        return candidate.archid not in {other.archid for other in asked}

    def _optuna_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.default_rng((self.settings.seed, number)).integers(2**31))
        starts = len(self.known) + SPREAD_STARTS
        match self.settings.sampler:
            case "tpe":
                return optuna.samplers.TPESampler(seed=seed, n_startup_trials=starts)
            case "gp":
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=starts, deterministic_objective=False)
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
        return optuna.samplers.RandomSampler(seed=seed)

    def _waiting(self) -> bool:
        return bool(self._optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _enqueue(self, candidate: Candidate, skip_if_exists: bool = False, decided: int = 0) -> None:
        params = dict(zip(self.space.axes, candidate.params, strict=True))
        self._optuna.enqueue_trial(
            params, user_attrs={DECIDED: decided} if decided else None, skip_if_exists=skip_if_exists
        )

    def _candidate(self, values: dict[str, Any]) -> Candidate | None:
        """The candidate of Optuna's parameters, or None where they give no network."""
        params = params_from_mapping(self.space, values)
        if params not in self._candidates and (found := self.space.try_candidate(params)) is not None:
            self._candidates[params] = found
        return self._candidates.get(params)

    def _interrupted(self) -> list[optuna.trial.Trial]:
        """Trials that a killed process left behind, to be trained again with the same seed."""
        left = self._optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        asked, trials = [record.candidate for record in self.records()], []
        for frozen in sorted(left, key=lambda trial: trial.number):
            # Optuna has no public way back to a running trial but its id.
            trial = optuna.trial.Trial(self._optuna, frozen._trial_id)
            self._suggest_all(trial)
            candidate = self._candidate(trial.params)
            if not self._acceptable(candidate, asked):  # killed between asking and rejecting
                self._optuna.tell(trial, state=TrialState.PRUNED)
                continue
            assert candidate is not None
            asked.append(candidate)
            trials.append(trial)
        return trials

    def _suggest_all(self, trial: optuna.trial.Trial) -> None:
        """Complete the parameters of a trial whose process was killed while it was asked for."""
        for name, distribution in self._distributions.items():
            if isinstance(distribution, IntDistribution):
                trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step)
            elif isinstance(distribution, CategoricalDistribution):
                trial.suggest_categorical(name, distribution.choices)

    def _launch(self, trial: optuna.trial.Trial, pool: TrainingPool) -> _Flight:
        candidate = self._candidate(trial.params)
        assert candidate is not None
        if "result" in trial.user_attrs or "reason" in trial.user_attrs:
            return _Flight(trial, candidate, None)
        seed, skip_bad = self.settings.seed, self.settings.skip_bad
        task = proxy_task(candidate.spec, self.space, self.data_dir, seed, skip_bad)
        return _Flight(trial, candidate, pool.submit(task))

    def _await_first(self, flights: Sequence[_Flight]) -> None:
        """Write down every result as soon as it is there, until the first flight has landed."""
        while any(flight.future for flight in flights[:1]):
            running = {flight.future: flight for flight in flights if flight.future is not None}
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                flight = running[future]
                flight.future = None
                _note_result(flight.trial, future)

    def _tell(self, flight: _Flight) -> TrialRecord:
        result = flight.trial.user_attrs.get("result")
        if result is None:
            self._optuna.tell(flight.trial, state=TrialState.FAIL)
        else:
            self._optuna.tell(flight.trial, [result["validation_top1"], self.cost.of(flight.candidate)])
        return self._record(self._optuna.trials[flight.trial.number])

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        result = trial.user_attrs.get("result", {})
        candidate = self._candidate(trial.params)
        assert candidate is not None
        return TrialRecord(
            trial.number,
            candidate,
            self.known[candidate.archid][0] if candidate.archid in self.known else None,
            result.get("validation_top1"),
            trial.user_attrs.get("reason"),
            result,
        )


def _drop_torn_line(path: Path) -> None:
    """Cut off an unterminated last line, which a kill or a full disk can leave and the next line would be glued to."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _open_journal(path: Path) -> optuna.Study:
    """The Optuna study in a journal file, made if need be. Raises ``BadInputError`` when the file is corrupt."""
    _drop_torn_line(path)
    try:
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        # Always of the same name: the folder may be renamed.
        return optuna.create_study(
            storage=storage, study_name=STUDY_NAME, directions=["maximize", "minimize"], load_if_exists=True
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path}: corrupt: {error}", "restore it, or start again with --force") from None


@dataclass(slots=True)
class _Flight:
    """A trial in training; the future is None once its result is written down."""

    trial: optuna.trial.Trial
    candidate: Candidate
    future: Future[RunResult] | None


def _note_result(trial: optuna.trial.Trial, future: Future[RunResult]) -> None:
    try:
        run = future.result()
    except BrokenProcessPool:
        raise worker_killed() from None
    except MeliusError as error:
        trial.set_user_attr("reason", error.message)
        return
    trial.set_user_attr("result", run.fields())


def _distribution(axis: Axis) -> BaseDistribution:
    numbers = [] if axis.is_words else [int(value) for value in axis.values]
    steps = {after - before for before, after in pairwise(numbers)}
    if len(steps) == 1:
        return IntDistribution(numbers[0], numbers[-1], step=steps.pop())
    return CategoricalDistribution(axis.values)
