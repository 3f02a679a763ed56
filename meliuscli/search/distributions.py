"""A space's parameters as Optuna has them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from meliuscli.search.axis import Axis
from meliuscli.search.space import Candidate, SearchSpace, params_from_mapping


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """The parameters of a space as Optuna's distributions."""
    return {name: _distribution(axis) for name, axis in space.axes.items()}


def suggest(trial: optuna.trial.Trial, space: SearchSpace) -> Candidate:
    """The candidate of a trial, each parameter suggested. Raises ``SpecError`` where its parameters give no network."""
    suggest_all(trial, distributions(space))
    return space.candidate(params_from_mapping(space, trial.params))


def suggest_all(trial: optuna.trial.Trial, parameters: Mapping[str, BaseDistribution]) -> None:
    """Suggest each of ``parameters`` that a trial does not have yet."""
    for name, values in parameters.items():
        if isinstance(values, IntDistribution):
            trial.suggest_int(name, values.low, values.high, step=values.step)
        elif isinstance(values, CategoricalDistribution):
            trial.suggest_categorical(name, values.choices)


def _distribution(axis: Axis) -> BaseDistribution:
    numbers = [] if axis.is_words else [int(value) for value in axis.values]
    steps = {after - before for before, after in pairwise(numbers)}
    if len(steps) == 1:
        return IntDistribution(numbers[0], numbers[-1], step=steps.pop())
    return CategoricalDistribution(axis.values)
