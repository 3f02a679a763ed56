"""A lock made of reading and writing alone: the bakery algorithm, on the trials of an Optuna study.

Whoever wants it draws a ticket higher than all that it sees, and waits for those who hold a lower one or are drawing. Nothing
has to be atomic, so the lock holds wherever a storage shows what was written before; whoever is gone is passed by.
Source: L. Lamport, A New Solution of Dijkstra's Concurrent Programming Problem, CACM 17 (8), 1974.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from meliuscli.search import backend
from meliuscli.work.owner import Owner

TICKET, HOLDER = "ticket", "holder"
"""Attributes of a worker's trial: a number from 1 on, ``DRAWING``, or None for a worker that wants nothing; who it is."""
DRAWING = 0
LOOK_SECONDS, MOST_SECONDS = 0.1, 1.0
"""How often who waits looks; and what one look may add to the silence of another: in between this process may have stood still."""


class TurnLostError(Exception):
    """Others took this worker for gone, and went on without it."""


class BakeryLock:
    """The lock ``name``. Each worker has a trial of its own in the study ``name``, which it alone writes, until it leaves or
    others fail it, which is for good: a failed one can hold no lock, and breaking one twice breaks nobody else's."""

    def __init__(self, storage: BaseStorage, name: str, me: Owner) -> None:
        self._storage, self._me = storage, me
        self._trial: int | None = None
        self._number = -1
        try:
            self._study = storage.get_study_id_from_name(name)
        except KeyError:
            try:
                self._study = storage.create_new_study([StudyDirection.MINIMIZE], name)
            except DuplicatedStudyError:
                self._study = storage.get_study_id_from_name(name)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises ``TurnLostError`` where others took this worker for gone: what it wrote may have come too late."""
        self._enter()
        self._write(DRAWING)
        ticket = 1 + max((trial.user_attrs.get(TICKET) or 0 for trial in self._others()), default=0)
        self._write(ticket)
        self._wait(ticket)
        try:
            yield
        except BaseException:
            with suppress(Exception):
                self._write(None)
            raise
        self._write(None)

    def check(self) -> None:
        """Raise ``TurnLostError`` unless this worker is among those who may hold the lock."""
        if self._trial is None or self._storage.get_trial(self._trial).state.is_finished():
            self._trial = None
            raise TurnLostError("the turn was another's meanwhile")

    def leave(self) -> None:
        """Want nothing any more."""
        if self._trial is not None:
            self._fail(self._trial)
            self._trial = None

    def _enter(self) -> None:
        if self._trial is None:
            for trial in self._others():
                if _owner(trial).is_near_and_gone:
                    self._fail(self._id_of(trial))
            attributes = {HOLDER: self._me.fields(), TICKET: None}
            template = create_trial(state=TrialState.RUNNING, user_attrs=attributes)
            self._trial = self._storage.create_new_trial(self._study, template)
            self._number = self._storage.get_trial(self._trial).number

    def _others(self) -> list[FrozenTrial]:
        trials = self._storage.get_all_trials(self._study, deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in trials if trial.number != self._number]

    def _wait(self, ticket: int) -> None:
        silence: dict[tuple[int, int], float] = {}
        looked = time.monotonic()
        while line := [trial for trial in self._others() if self._is_before(trial, ticket)]:
            now = time.monotonic()
            passed = min(now - looked, MOST_SECONDS)
            # Whoever is drawing, and the first in line, has to change; those behind wait as this one does.
            due = {sign: silence.get(sign, 0.0) + passed for sign in _due(line)}
            for trial in line:
                if due.get(_sign(trial), 0.0) > backend.GRACE_SECONDS or _owner(trial).is_near_and_gone:
                    self._fail(self._id_of(trial))
            looked, silence = now, due
            time.sleep(LOOK_SECONDS)

    def _is_before(self, trial: FrozenTrial, ticket: int) -> bool:
        other = trial.user_attrs.get(TICKET)
        return other is not None and (other, trial.number) < (ticket, self._number)

    def _write(self, ticket: int | None) -> None:
        if self._trial is None:
            raise TurnLostError("the turn was another's meanwhile")
        try:
            self._storage.set_trial_user_attr(self._trial, TICKET, ticket)
        except UpdateFinishedTrialError:
            self._trial = None
            raise TurnLostError("the turn was another's meanwhile") from None

    def _id_of(self, trial: FrozenTrial) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study, trial.number)

    def _fail(self, trial: int) -> None:
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(trial, TrialState.FAIL)


def _owner(trial: FrozenTrial) -> Owner:
    return Owner.from_fields(trial.user_attrs[HOLDER])


def _sign(trial: FrozenTrial) -> tuple[int, int]:
    return trial.user_attrs[TICKET], trial.number


def _due(line: list[FrozenTrial]) -> set[tuple[int, int]]:
    """Who has to do something next: those that draw a ticket, and whose ticket is the lowest."""
    signs = sorted(map(_sign, line))
    holders = [sign for sign in signs if sign[0] != DRAWING]
    return {sign for sign in signs if sign[0] == DRAWING} | set(holders[:1])
