"""The trials of a study: asked for, accepted when counting allows them, told and read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from meliuscli.errors import BadInputError, FailedError
from meliuscli.search.cost import OPS, Cost
from meliuscli.search.entrants import Entrant, choose_entrants
from meliuscli.search.goal import Goal, ProxyGoal, TargetGoal
from meliuscli.search.limits import budget_limit, within
from meliuscli.search.objective import proxy_task
from meliuscli.search.records import Outcomes, TrialRecord, has_landed, result_of
from meliuscli.search.sampler import make_sampler
from meliuscli.search.settings import Settings
from meliuscli.search.space import Candidate, SearchSpace
from meliuscli.search.storage import JOURNAL_FILE, Journal, OptunaStudy
from meliuscli.training.pool import Task

DECIDED = "decided_by_counting"
"""The attribute of a trial that says how many others were decided by counting before it was proposed."""


class StudyTrials:
    """A study, whoever trains it: its trials are in a storage from the moment they are asked for, in ``journal.log`` of its
    directory unless ``trials`` are elsewhere."""

    place: str | None = None
    """What the storage is called, where the trials are not in the directory."""
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
        self._journal = Journal(directory / JOURNAL_FILE) if trials is None else trials
        self._optuna = self._journal.study
        self._optuna.sampler = self._sampler
        self._finished: dict[int, bool] = {}
        self._chosen: tuple[int, list[Entrant]] | None = None
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

    _recorded: tuple[TrialState, ...] = (TrialState.COMPLETE, TrialState.FAIL)

    def records(self) -> list[TrialRecord]:
        """All candidates that were trained, in the order they were asked for."""
        finished = self._optuna.get_trials(deepcopy=False, states=self._recorded)
        told = [trial for trial in finished if has_landed(trial) and self._is_own(trial)]
        return [self._record(trial) for trial in sorted(told, key=lambda trial: trial.number)]

    def entrants(self) -> list[Entrant]:
        """Who is in the finals, of the trials that are told by now."""
        told = len(self._optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)))
        if self._chosen is None or self._chosen[0] != told:
            self._chosen = told, choose_entrants(self)
        return self._chosen[1]

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
                    f"{self.directory / JOURNAL_FILE}: it holds trials of another program: {error}",
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
        candidate, result = self._candidate(trial), result_of(trial.user_attrs.get("result"))
        return TrialRecord(
            trial.number,
            candidate,
            self.known[candidate.archid][0] if candidate.archid in self.known else None,
            None if result is None else result.last.validation_top1,
            trial.user_attrs.get("reason"),
            result,
        )
