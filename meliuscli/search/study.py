"""A study: trials asked for, trained, told and written down.

Trials are told in the order they were asked, and each proposal sees exactly the trials told ``lag`` places before it,
so a study gives the same trials whatever the number of workers, their speed, or interruptions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from meliuscli.errors import BadInputError, FailedError
from meliuscli.search.records import TrialRecord, has_landed
from meliuscli.search.sampler import SamplerName, suggest_all
from meliuscli.search.settings import MIN_LAG, Settings
from meliuscli.search.storage import STUDY_NAME
from meliuscli.search.study_trials import StudyTrials
from meliuscli.search.trainings import Failure, Trainings

__all__ = ["MIN_LAG", "STUDY_NAME", "SamplerName", "Settings", "Study", "TrialRecord"]


class Study(StudyTrials):
    """A study that one process trains."""

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


def _next_told(flights: Sequence[optuna.trial.Trial], lag: int | None) -> optuna.trial.Trial | None:
    """The trial whose turn it is to be told: the first, or, without a lag, any that has landed; None if it has not."""
    return next((trial for trial in (flights if lag is None else flights[:1]) if has_landed(trial)), None)
