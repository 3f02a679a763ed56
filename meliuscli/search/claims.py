"""Who trains what of a shared study: a worker claims a training, and it is free again when that worker is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from meliuscli.search.backend import Backend
from meliuscli.search.records import has_landed
from meliuscli.search.storage import OptunaStudy
from meliuscli.training.pool import Task
from meliuscli.work.owner import Owner

OWNER, LOST, KILLED = "owner", "times_lost", "times_killed"
"""Attributes of a trial: who trains it, how often its worker ended meanwhile, how often its training process did."""
MAX_LOST, MAX_KILLED = 20, 2
"""After so many it has failed. A worker is killed from outside far more often than by what it trains."""
Stage = Literal["trial", "final", "transfer"]


@dataclass(frozen=True, slots=True)
class Assignment:
    """A training that a worker has taken."""

    stage: Stage
    number: int
    trial_id: int
    task: Task
    text: str


class Claims:
    """The trials of one stage of a study, and who has claimed them."""

    def __init__(self, trials: OptunaStudy, backend: Backend) -> None:
        self.trials, self._backend = trials, backend

    def claim(self, trial: FrozenTrial, me: Owner) -> None:
        """From now on this worker trains it."""
        self._backend.beat(me, self.trials.id_of(trial.number))  # or it would be silent as it was before
        self._set(trial, OWNER, me.fields())

    def land(self, job: Assignment, me: Owner, fields: dict[str, Any]) -> bool:
        """Write down what came of a training; False where it is not this worker's any more."""
        trial = self.trials.frozen(job.number)
        if trial.state != TrialState.RUNNING or has_landed(trial) or not _is_owned(trial, me):
            return False
        key, value = ("reason", fields["reason"]) if "reason" in fields else ("result", fields)
        try:
            self._set(trial, key, value)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        return True

    def hand_back(self, job: Assignment, me: Owner, killed: bool = False) -> None:
        """Let others train it. ``killed`` says that its training process was, from outside."""
        trial = self.trials.frozen(job.number)
        if trial.state == TrialState.RUNNING and _is_owned(trial, me):
            self._free(trial, KILLED if killed else None)

    def left_behind(self, me: Owner) -> FrozenTrial | None:
        """The first trial that was handed back, or whose worker is gone, or that this worker took without being told so."""
        for trial in self.trials.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if OWNER not in trial.user_attrs or has_landed(trial):
                continue
            left = trial
            if (fields := trial.user_attrs[OWNER]) is not None and not _is_owned(trial, me):
                if not self._is_lost(Owner.from_fields(fields), trial):
                    continue
                self._free(trial, LOST)
                left = self.trials.frozen(trial.number)
            if (reason := _why_failed(left)) is None:
                return left
            self._set(left, "reason", reason)
        return None

    def _free(self, trial: FrozenTrial, counter: str | None) -> None:
        """Nobody's again; ``counter`` is the attribute that counts why."""
        if counter is not None:
            self._set(trial, counter, trial.user_attrs.get(counter, 0) + 1)
        self._set(trial, OWNER, None)

    def _set(self, trial: FrozenTrial, key: str, value: Any) -> None:
        self.trials.storage.set_trial_user_attr(self.trials.id_of(trial.number), key, value)

    def _is_lost(self, owner: Owner, trial: FrozenTrial) -> bool:
        if owner.is_near:
            return owner.is_gone
        return self._backend.is_silent(owner, self.trials.id_of(trial.number), self.trials.id)


def _is_owned(trial: FrozenTrial, me: Owner) -> bool:
    return (trial.user_attrs.get(OWNER) or {}).get("token") == me.token


def _why_failed(trial: FrozenTrial) -> str | None:
    killed, lost = trial.user_attrs.get(KILLED, 0), trial.user_attrs.get(LOST, 0)
    if killed >= MAX_KILLED:
        return f"its training process was killed from outside {killed} times (out of memory?)"
    if lost >= MAX_LOST:
        return f"the workers that trained it ended {lost} times (out of memory?)"
    return None
