"""A study that many workers share: whose turn it is, what comes next, what came of it. All of it is in the storage.

One worker at a time decides, so a study gives the same trials as in one process: a trial is asked for when exactly those
``lag`` places before it are told, whoever trained them, and a trial that is taken again keeps its number, its parameters
and its seed. (Optuna's own retry gives it another number, on which proposals depend.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState, create_trial

from meliuscli.errors import FailedError
from meliuscli.search.backend import Backend
from meliuscli.search.claims import OWNER, Assignment, Claims, Stage
from meliuscli.search.distributions import suggest_all
from meliuscli.search.finals import Round, finals_of, transfer_of
from meliuscli.search.records import Outcomes, has_landed
from meliuscli.search.settings import Settings
from meliuscli.search.space import SearchSpace
from meliuscli.search.storage import OptunaStudy, has_study
from meliuscli.search.study_trials import StudyTrials
from meliuscli.training.pool import Task
from meliuscli.work.owner import Owner

EXHAUSTED = "exhausted"
"""The attribute of a study in whose space no new network is left."""
WAIT: Literal["wait"] = "wait"
"""There is nothing to do until others have finished something."""


class SharedStudy(StudyTrials):
    """A study in a storage with many workers. ``directory`` is where its report goes."""

    def __init__(self, backend: Backend, name: str, directory: Path, settings: Settings, space: SearchSpace) -> None:
        self.backend, self.name, self.place = backend, name, backend.name
        super().__init__(directory, settings, space, trials=OptunaStudy(backend.storage, name))
        self.outcomes = self._outcomes
        self._stages: dict[Stage, Claims] = {"trial": Claims(self._journal, backend)}

    # What was trained by workers that have left counts too, though nobody is there to tell it.
    _recorded = (TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING)

    def attribute(self, key: str) -> Any:
        """What is written down with the study in its storage; None where it is not."""
        return self._optuna.user_attrs.get(key)

    def set_attribute(self, key: str, value: Any) -> None:
        """Write something down with the study."""
        self._optuna.set_user_attr(key, value)

    def prepare(self) -> None:
        """Count what proposals will need. It takes seconds, in which nobody else has to wait for the turn."""
        if self._told_and_flights()[0] < self.settings.trials:
            self._sampler.prepare(self._optuna)

    def next_job(self, me: Owner) -> Assignment | Literal["wait"] | None:
        """What to train next; None when the study is done. Raises ``FailedError`` where no candidate could be trained."""
        with self.backend.turn(self.name):
            job = self._next_trial(me)
            if job is not None:
                return job
            for stage, round_ in self._rounds():
                job = self._next_of_round(stage, round_, me)
                if job is not None:
                    return job
            return None

    def land(self, job: Assignment, me: Owner, fields: dict[str, Any]) -> bool:
        """Write down what came of a training; False where it is not this worker's any more."""
        return self._claims(job.stage).land(job, me, fields)

    def hand_back(self, job: Assignment, me: Owner, killed: bool = False) -> None:
        """Let others train it. ``killed`` says that its training process was, from outside."""
        self._claims(job.stage).hand_back(job, me, killed)

    def beat(self, job: Assignment, me: Owner) -> None:
        """Show that this worker is alive."""
        self.backend.beat(me, job.trial_id)

    @property
    def is_done(self) -> bool:
        """Is nothing left to train?"""
        told, flights = self._told_and_flights()
        if flights or (told < self.settings.trials and not self._is_exhausted()):
            return False
        return all(r.num_done(self.entrants()) == r.seeds * len(self.entrants()) for _, r in self._rounds())

    def progress(self) -> str:
        """How far the study is, in words."""
        told, flights = self._told_and_flights()
        landed = sum(map(has_landed, flights))
        words = [f"{told + landed} of {self.settings.trials} trials"]
        if not flights and told:
            rounds = self._rounds()
            total = len(self.entrants())
            words += [f"{r.num_done(self.entrants())} of {r.seeds * total} {stage}s" for stage, r in rounds]
        return ", ".join(words)

    # Candidates

    def _next_trial(self, me: Owner) -> Assignment | Literal["wait"] | None:
        self._finish_asking()
        if (left := self._claims("trial").left_behind(me)) is not None:
            return self._take("trial", left, me)
        lag = self.settings.lag
        while True:
            told, flights = self._told_and_flights()
            over = told + len(flights) >= self.settings.trials or self._is_exhausted()
            full = lag is not None and len(flights) >= lag
            if lag is None or over or full:
                first = next((t for t in (flights if lag is None else flights[:1]) if has_landed(t)), None)
                if first is not None:
                    self._tell(self._journal.running_trial(first.number))
                    continue
            if over or full:
                return WAIT if flights else None
            trial = self._ask()
            if trial is None:
                self.set_attribute(EXHAUSTED, True)
            else:
                return self._take("trial", self._journal.frozen(trial.number), me)

    def _told_and_flights(self) -> tuple[int, list[FrozenTrial]]:
        """How many trials are told, and those that are asked for and not told, in order."""
        own = [trial for trial in self._optuna.get_trials(deepcopy=False) if self._is_own(trial)]
        told = sum(trial.state in (TrialState.COMPLETE, TrialState.FAIL) and has_landed(trial) for trial in own)
        return told, [trial for trial in own if trial.state == TrialState.RUNNING]

    def _is_exhausted(self) -> bool:
        return bool(self.attribute(EXHAUSTED))

    def _finish_asking(self) -> None:
        """Give the trial that a killed worker asked for, but did not take, the parameters that it would have had."""
        for frozen in self._optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if OWNER in frozen.user_attrs or not self._is_own(frozen):
                continue
            trial = self._journal.running_trial(frozen.number)
            try:
                suggest_all(trial, self._distributions)
            except FailedError:
                self._optuna.tell(frozen.number, state=TrialState.FAIL)
                continue
            if self._accept(trial):
                self._journal.storage.set_trial_user_attr(self._journal.id_of(frozen.number), OWNER, None)

    # All stages

    def _claims(self, stage: Stage) -> Claims:
        if stage not in self._stages:
            trials = OptunaStudy(self.backend.storage, f"{self.name}.{stage}", ["maximize"])
            self._stages[stage] = Claims(trials, self.backend)
        return self._stages[stage]

    def _take(self, stage: Stage, trial: FrozenTrial, me: Owner) -> Assignment:
        claims = self._claims(stage)
        claims.claim(trial, me)
        return Assignment(stage, trial.number, claims.trials.id_of(trial.number), *self._described(stage, trial))

    def _described(self, stage: Stage, trial: FrozenTrial) -> tuple[Task, str]:
        if stage == "trial":
            record = self._record(trial)
            return self.proxy_task(record.candidate), record.title
        entrants = {entrant.candidate.archid: entrant for entrant in self.entrants()}
        entrant, seed = entrants[trial.user_attrs["archid"]], trial.user_attrs["seed"]
        round_ = dict(self._rounds())[stage]
        return round_.task(entrant.candidate, seed), f"{stage} of {entrant.name}, seed {seed}"

    # Finals and transfers

    def _rounds(self) -> list[tuple[Stage, Round]]:
        """The stages after the trials. Raises ``FailedError`` where no candidate could be trained."""
        if not any(trial.state == TrialState.COMPLETE for trial in self._optuna.get_trials(deepcopy=False)):
            records = self.records()
            reason = f": {records[-1].reason}" if records else ""
            raise FailedError(f"{self.name}: no candidate could be trained{reason}")
        if all(entrant.known_as is not None for entrant in self.entrants()):
            return []  # nothing that the search found would be compared
        transfer = transfer_of(self)
        rounds: list[tuple[Stage, Round]] = [("final", finals_of(self))]
        return rounds if transfer is None else [*rounds, ("transfer", transfer)]

    def _next_of_round(self, stage: Stage, round_: Round, me: Owner) -> Assignment | Literal["wait"] | None:
        claims = self._claims(stage)
        study = claims.trials
        self._enqueue(study, round_)
        if (left := claims.left_behind(me)) is not None:
            return self._take(stage, left, me)
        is_running = False
        for trial in study.study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING and has_landed(trial):
                _tell_final(study, trial)
            elif trial.state == TrialState.RUNNING and OWNER in trial.user_attrs:
                is_running = True
            elif not trial.state.is_finished():
                if trial.state == TrialState.WAITING:
                    study.storage.set_trial_state_values(study.id_of(trial.number), TrialState.RUNNING)
                return self._take(stage, trial, me)
        return WAIT if is_running else None

    def _enqueue(self, study: OptunaStudy, round_: Round) -> None:
        there = {_training(trial) for trial in study.study.get_trials(deepcopy=False)}
        for entrant, seed in round_.in_order(self.entrants()):
            archid = entrant.candidate.archid
            if (archid, seed) not in there:
                attributes = {"archid": archid, "seed": seed, "name": entrant.name}
                study.study.add_trial(create_trial(state=TrialState.WAITING, user_attrs=attributes))

    def _outcomes(self, name: str) -> Outcomes:
        """What came of ``finals`` or ``transfer``, as their files have it for a study of one process."""
        stage: Stage = "final" if name == "finals" else "transfer"
        outcomes: Outcomes = {}
        if not has_study(self.backend.storage, f"{self.name}.{stage}"):
            return outcomes  # and reading makes none
        for trial in self._claims(stage).trials.study.get_trials(deepcopy=False):
            if has_landed(trial):
                archid, seed = _training(trial)
                attributes = trial.user_attrs
                fields = attributes["result"] if "result" in attributes else {"reason": attributes["reason"]}
                outcomes.setdefault(archid, {})[str(seed)] = fields
        return outcomes


def _training(trial: FrozenTrial) -> tuple[str, int]:
    return trial.user_attrs["archid"], trial.user_attrs["seed"]


def _tell_final(study: OptunaStudy, trial: FrozenTrial) -> None:
    if "result" in trial.user_attrs:
        study.study.tell(trial.number, trial.user_attrs["result"]["validation_top1"])
    else:
        study.study.tell(trial.number, state=TrialState.FAIL)
