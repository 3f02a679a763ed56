"""What came of a study's trainings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from meliuscli.search.space import Candidate

if TYPE_CHECKING:
    from meliuscli.training.run import RunResult

Outcomes = dict[str, dict[str, dict[str, Any]]]
"""archid -> seed -> the fields of a training's result, or of its failure."""


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

    @property
    def title(self) -> str:
        """Its name, and what it is where a number is all that the name says."""
        return self.known_as or f"{self.name}: {self.candidate.spec.summary()}"


def has_landed(trial: optuna.trial.Trial | FrozenTrial) -> bool:
    """Is its training's outcome written down?"""
    return "result" in trial.user_attrs or "reason" in trial.user_attrs


def result_of(fields: dict[str, Any] | None) -> RunResult | None:
    """A training's result from the fields in which it is written down."""
    if fields is None:
        return None
    from meliuscli.training.run import RunResult  # loads torch

    return RunResult.from_fields(fields)
