"""A study: trials asked for, trained, told and written down.

Trials are told in the order they were asked, and each proposal sees exactly the trials told ``lag`` places before it,
so a study gives the same trials whatever the number of workers, their speed, or interruptions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from meliuscli.errors import BadInputError, FailedError
from meliuscli.search.cost import OPS, Cost
from meliuscli.search.goal import Goal, ProxyGoal, TargetGoal
from meliuscli.search.limits import Limit, budget_limit, flash_limit, params_limit, ram_limit, size_limit, within
from meliuscli.search.objective import proxy_task
from meliuscli.search.sampler import SamplerName, make_sampler, suggest_all
from meliuscli.search.space import Candidate, SearchSpace
from meliuscli.search.storage import STUDY_NAME, Journal, OptunaStudy
from meliuscli.search.trainings import Failure, Trainings
from meliuscli.training.pool import Task

if TYPE_CHECKING:
    from meliuscli.training.run import RunResult

__all__ = ["STUDY_NAME", "SamplerName", "Settings", "Study", "TrialRecord"]
MIN_LAG = 4
Outcomes = dict[str, dict[str, dict[str, Any]]]
"""archid -> seed -> the fields of a training's result, or of its failure."""
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
    lag: int | None
    """How many places before it the trials lie that a proposal sees; None lets it see all that are told."""
    data_dir: str | None = None
    objective: Literal["ops", "latency"] = "ops"
    skip_bad: bool = False
    maximises: Literal["belief", "proxy"] = "proxy"
    budgets: tuple[float, ...] = ()
    max_size: float | None = None
    max_params: float | None = None
    max_ram: float | None = None
    max_flash: float | None = None
    dataset: str | None = None
    """The proxy's data in place of the space's."""
    device: str = "cpu"
    transfer: str | None = None
    """The data that finalists are trained on besides the proxy's, which the search never used."""
    transfer_dir: str | None = None
    trial_timeout: float | None = None
    """Seconds after which a training of a shared study is ended, as failed."""

    @property
    def data(self) -> Path | None:
        """Where the proxy's data are, if not in their usual place."""
        return Path(self.data_dir) if self.data_dir else None

    @property
    def transfer_data(self) -> Path | None:
        """Where the data of ``transfer`` are, if not in their usual place."""
        return Path(self.transfer_dir) if self.transfer_dir else None

    @property
    def all_budgets(self) -> tuple[float, ...]:
        """Every budget that was asked for, the smallest first."""
        return self.budgets or (self.budget,)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The hard limits beside the budget."""
        bounds = (
            (size_limit, self.max_size),
            (params_limit, self.max_params),
            (ram_limit, self.max_ram),
            (flash_limit, self.max_flash),
        )
        return tuple(limit(bound) for limit, bound in bounds if bound is not None)


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A candidate that was trained (``accuracy`` is its proxy validation top-1, 0 to 1) or failed (``reason``)."""

    number: int
    candidate: Candidate
    known_as: str | None
    accuracy: float | None
    reason: str | None
    result: RunResult | None

    @property
    def name(self) -> str:
        """What tables and figures call it."""
        return self.known_as or f"found-{self.number}"


class Study:
    """One study: its trials are in a storage from the moment they are asked for, in ``journal.log`` of its directory
    unless ``trials`` are elsewhere."""

    outcomes: Callable[[str], Outcomes] | None = None
    """What came of the finals and of the transfers, where they are not files of the directory."""

    def __init__(
        self,
        directory: Path,
        settings: Settings,
        space: SearchSpace,
        cost: Cost = OPS,
        trials: OptunaStudy | None = None,
    ) -> None:
        self.directory, self.settings, self.space, self.cost = directory, settings, space, cost
        self.goal: Goal = TargetGoal() if settings.maximises == "belief" else ProxyGoal(space)
        self._limits = (budget_limit(cost, settings.budget), *settings.limits)
        self.known = {
            candidate.archid: (name, candidate)
            for name, candidate in space.known_candidates()
            if self.allows(candidate)
        }
        self._sampler = make_sampler(
            *(settings.sampler, space, settings.budget, settings.seed, cost, settings.limits, self.goal),
            self.asked if settings.maximises == "belief" else (),
        )
        self._distributions = self._sampler.distributions
        self._journal = Journal(directory / "journal.log") if trials is None else trials
        self._optuna = self._journal.study
        self._optuna.sampler = self._sampler
        self._finished: dict[int, bool] = {}
        self._sampler.reads = self._is_own
        if trials is None:
            self.enqueue_known()

    @property
    def asked(self) -> list[float]:
        """The costs within which the best found network is wanted: what the known ones cost, and the budgets."""
        return sorted({*(self.cost.of(c) for _, c in self.known.values()), *self.settings.all_budgets})

    def enqueue_known(self) -> None:
        """Have the known networks within the limits trained first."""
        for _, candidate in self.known.values():
            params = dict(zip(self.space.axes, candidate.params, strict=True))
            self._optuna.enqueue_trial(params, skip_if_exists=True)

    @property
    def num_rejected(self) -> int:
        """Candidates that counting decided, whichever sampler looked at them: over a limit, impossible or duplicates, and
        so never trained."""
        pruned = len(self._optuna.get_trials(deepcopy=False, states=(TrialState.PRUNED,)))
        return pruned + sum(int(t.user_attrs.get(DECIDED, 0)) for t in self._optuna.get_trials(deepcopy=False))

    @property
    def num_foreign(self) -> int:
        """Trials that another program put into the study's journal, which are left out."""
        return sum(not self._is_own(trial) for trial in self._optuna.get_trials(deepcopy=False))

    def allows(self, candidate: Candidate) -> bool:
        """Is it within the budget and all other limits?"""
        return within(candidate, self._limits)

    def proxy_task(self, candidate: Candidate) -> Task:
        """The training that gives a candidate its proxy accuracy."""
        made = self.settings
        return proxy_task(candidate.spec, self.space, made.data, made.seed, made.skip_bad, made.device)

    def records(self) -> list[TrialRecord]:
        """All candidates that were trained, in the order they were asked for."""
        finished = self._optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        told = [trial for trial in finished if has_landed(trial) and self._is_own(trial)]
        return [self._record(trial) for trial in sorted(told, key=lambda trial: trial.number)]

    def run(self, trainings: Trainings[Any], timeout: float | None = None) -> Iterator[TrialRecord]:
        """Train candidates until ``settings.trials`` are done; yields each as it is told.

        After ``timeout`` seconds no new candidate is started. Raises ``MissingError`` when a worker is killed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        lag = self.settings.lag
        flights = self._interrupted()
        self._start(flights, trainings)
        while True:
            told = len(self.records())
            while len(flights) < (lag or trainings.workers) and self._may_ask(told + len(flights), deadline):
                trial = self._ask()
                if trial is None:
                    break
                flights.append(trial)
                self._start([trial], trainings)
            if not flights:
                return
            while (trial := _next_told(flights, lag)) is None:
                self._write_down(flights, trainings)
            flights.remove(trial)
            yield self._tell(trial)

    def _may_ask(self, asked: int, deadline: float | None) -> bool:
        return asked < self.settings.trials and (deadline is None or time.monotonic() < deadline)

    def _ask(self) -> optuna.trial.Trial | None:
        """A new trial whose candidate is within all limits and new; None when there is none left."""
        while True:
            self._leave_out_waiting()
            try:
                trial = self._journal.ask(self._distributions)
            except FailedError:
                self._drop_last()
                return None
            except ValueError as error:  # a name that has another kind of values in somebody else's first trial
                raise BadInputError(
                    f"{self.directory / 'journal.log'}: it holds trials of another program: {error}",
                    "start again with --force, or another --study",
                ) from None
            if self._accept(trial):
                return trial

    def _is_own(self, trial: FrozenTrial) -> bool:
        """Is it a trial of this search? Others can come from whatever program opens the journal: with other parameters,
        or with values for which nothing was trained. One that waits with the space's parameters is welcome."""
        if (known := self._finished.get(trial.number)) is not None:
            return known
        is_own = self._sampler.fits(trial) and (trial.state != TrialState.COMPLETE or has_landed(trial))
        if (
            trial.state.is_finished()
        ):  # and never changes again; of thousands, holding each against the space takes long
            self._finished[trial.number] = is_own
        return is_own

    def _leave_out_waiting(self) -> None:
        """End the trials that wait with parameters which are not the space's: Optuna would take them as they are."""
        for trial in self._optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            if not self._is_own(trial):
                self._journal.end(trial)

    def _accept(self, trial: optuna.trial.Trial) -> bool:
        """Write down what counting says of a trial; one that came about in another way than by the sampler, and may not
        be trained, is told at once."""
        candidate = self._sampler.candidate(trial.params)
        taken = {other.archid for other in self._sampler.history(self._optuna, trial.number).candidates}
        if self._sampler.num_decided:
            trial.set_user_attr(DECIDED, self._sampler.num_decided)
        over = 1.0 if candidate is None else self.cost.of(candidate) / self.settings.budget - 1
        if self.cost.key not in trial.constraints:  # of a trial that a killed process asked for
            trial.set_constraint(self.cost.key, over)
        if candidate is not None and candidate.archid not in taken and self.allows(candidate):
            return True
        self._optuna.tell(trial, state=TrialState.PRUNED)
        return False

    def _drop_last(self) -> None:
        """End the trial for which nothing could be proposed."""
        running = self._optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        last = max(running, key=lambda trial: trial.number)
        self._optuna.tell(last.number, state=TrialState.FAIL)

    def _interrupted(self) -> list[optuna.trial.Trial]:
        """Trials that a killed process left behind, to be trained again with the same seed. One that was killed while it
        was asked for gets the parameters that it would have had."""
        left = self._optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        trials = []
        for number in sorted(trial.number for trial in left if self._is_own(trial)):
            trial = self._journal.running_trial(number)
            try:
                suggest_all(trial, self._distributions)
            except FailedError:
                self._optuna.tell(trial, state=TrialState.FAIL)
                continue
            if "result" in trial.user_attrs or "reason" in trial.user_attrs or self._accept(trial):
                trials.append(trial)
        return trials

    def _start(self, trials: Sequence[optuna.trial.Trial], trainings: Trainings[Any]) -> None:
        for trial in trials:
            if not has_landed(trial):
                trainings.start(trial.number, self.proxy_task(self._candidate(trial)))

    def _write_down(self, flights: Sequence[optuna.trial.Trial], trainings: Trainings[Any]) -> None:
        """Every result as soon as it is there, also of trials whose turn to be told has not come."""
        by_number = {trial.number: trial for trial in flights}
        for number, outcome in trainings.ended():
            key, value = ("reason", outcome.reason) if isinstance(outcome, Failure) else ("result", outcome.fields())
            try:
                by_number[number].set_user_attr(key, value)
            except optuna.exceptions.UpdateFinishedTrialError:
                raise BadInputError(
                    f"{self.directory}: another program ended trial {number} while it was trained",
                    "change no trials while a search runs; --resume goes on",
                ) from None

    def _tell(self, trial: optuna.trial.Trial) -> TrialRecord:
        result = trial.user_attrs.get("result")
        if result is None:
            self._optuna.tell(trial, state=TrialState.FAIL)
        else:
            self._optuna.tell(trial, [result["validation_top1"], self.cost.of(self._candidate(trial))])
        return self._record(self._journal.frozen(trial.number))

    def _candidate(self, trial: optuna.trial.Trial | FrozenTrial) -> Candidate:
        candidate = self._sampler.candidate(trial.params)
        assert candidate is not None
        return candidate

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        candidate, result = self._candidate(trial), _result(trial.user_attrs.get("result"))
        return TrialRecord(
            trial.number,
            candidate,
            self.known[candidate.archid][0] if candidate.archid in self.known else None,
            None if result is None else result.last.validation_top1,
            trial.user_attrs.get("reason"),
            result,
        )


def _next_told(flights: Sequence[optuna.trial.Trial], lag: int | None) -> optuna.trial.Trial | None:
    """The trial whose turn it is to be told: the first, or, without a lag, any that has landed; None if it has not."""
    return next((trial for trial in (flights if lag is None else flights[:1]) if has_landed(trial)), None)


def has_landed(trial: optuna.trial.Trial | FrozenTrial) -> bool:
    """Is its training's outcome written down?"""
    return "result" in trial.user_attrs or "reason" in trial.user_attrs


def _result(fields: dict[str, Any] | None) -> RunResult | None:
    if fields is None:
        return None
    from meliuscli.training.run import RunResult  # loads torch

    return RunResult.from_fields(fields)
