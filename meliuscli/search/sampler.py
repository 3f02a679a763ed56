"""Samplers for Optuna: ours, and a filter for everybody's that lets feasible and new candidates through alone.

Both work in any study whose trials suggest a space's parameters (``suggest``), with ``study.optimize`` too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from meliuscli.errors import BadInputError, FailedError, MissingError
from meliuscli.search.cost import OPS, Cost
from meliuscli.search.distributions import distributions
from meliuscli.search.goal import Goal
from meliuscli.search.limits import Limit, budget_limit, within
from meliuscli.search.proposals import SPREAD_STARTS, Proposer
from meliuscli.search.space import Candidate, Params, SearchSpace, params_from_mapping

SamplerName = Literal["cost-aware", "tpe", "gp", "nsga2", "random"]
POPULATION = 20
"""Of NSGA-II: Optuna's own 50 leave a search of some dozens of trainings in its first, random generation."""
MAX_DRAWS = 2000
PATIENCE = 20
"""Draws of a sampler that all are infeasible or known, after which random ones take over: what a sampler proposes may
not depend on what was thrown away, and then it would propose the same for ever."""


@dataclass(frozen=True, slots=True)
class History:
    """The trials of a study that have a network, but for the one that is asked for."""

    observed: tuple[tuple[Candidate, float], ...]
    pending: tuple[Candidate, ...]
    """In training, or failed: there is no accuracy to learn from, and they are not proposed again."""

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return (*(candidate for candidate, _ in self.observed), *self.pending)


class CandidateSampler(BaseSampler):
    """What our samplers have in common: a space, its limits, and proposals that depend on seed and history alone.

    ``num_decided`` counts the candidates that counting decided for the last proposal: over a limit, impossible or known,
    so never trained."""

    def __init__(self, space: SearchSpace, limits: Sequence[Limit], seed: int) -> None:
        self.space, self.limits, self.seed = space, tuple(limits), seed
        self.num_decided = 0
        self.distributions = distributions(space)
        self.reads: Callable[[FrozenTrial], bool] = self.fits
        """Which trials of a study the sampler learns from."""
        self._counted: dict[Params, Candidate | None] = {}

    def prepare(self, study: optuna.Study) -> None:
        """Count what a proposal will need, so that it does not take its time: the networks of the trials so far."""
        self.history(study, -1)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Optuna asks no sampler for a parameter of one value, so a space of one network would be proposed for ever.

        Raises ``FailedError`` when that network was asked for."""
        self.num_decided = 0
        if all(values.single() for values in self.distributions.values()):
            only = self.candidate({name: axis.values[0] for name, axis in self.space.axes.items()})
            asked = {other.archid for other in self.history(study, trial.number).candidates}
            if only is None or only.archid in asked or not self.allows(only):
                raise FailedError("the one network of this space was asked for, or is over a limit")

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.distributions

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, name: str, values: BaseDistribution) -> Any:
        hint = f"parameters: {', '.join(self.space.axes)}"
        raise BadInputError(f"{name}: not a parameter of the search space, or with other values", hint)

    def allows(self, candidate: Candidate) -> bool:
        """Is it within all limits?"""
        return within(candidate, self.limits)

    def fits(self, trial: FrozenTrial) -> bool:
        """Are the parameters that a trial has, or waits for, those of the space, with values that they take?"""
        axes, fixed = self.space.axes, trial.system_attrs.get("fixed_params", {})
        return trial.distributions.items() <= self.distributions.items() and all(
            name in axes and value in axes[name].values for name, value in {**fixed, **trial.params}.items()
        )

    def candidate(self, values: Mapping[str, Any]) -> Candidate | None:
        """The candidate of a trial's parameters, or None where they give no network or are not all known yet."""
        if not self.space.axes.keys() <= values.keys():
            return None
        params = params_from_mapping(self.space, values)
        if params not in self._counted:
            self._counted[params] = self.space.try_candidate(params)
        return self._counted[params]

    def history(self, study: optuna.Study, number: int) -> History:
        """All trials that are read, but for trial ``number`` and those that were pruned because they are over a limit."""
        if study.directions[0] != StudyDirection.MAXIMIZE:
            raise BadInputError("the first value of a trial must be its accuracy, to be maximised")
        observed, pending = [], []
        for other in study.get_trials(deepcopy=False):
            is_read = other.number != number and self.reads(other)
            candidate = self.candidate(other.params) if is_read else None
            if candidate is None:
                continue
            if other.state == TrialState.COMPLETE and other.values:
                observed.append((candidate, other.values[0]))
            elif other.state in (TrialState.RUNNING, TrialState.FAIL) or self.allows(candidate):
                pending.append(candidate)
        return History(tuple(observed), tuple(pending))


def read_once(study: optuna.Study) -> optuna.Study:
    """The study with its trials as they stand now: TPE reads them anew for each parameter of each draw, which on a database
    took most of a second for one proposal."""
    now, view = study.get_trials(deepcopy=False), copy.copy(study)

    def get_trials(
        deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        found = [trial for trial in now if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    view._get_trials = get_trials  # type: ignore[method-assign]
    return view


class FeasibleAndNew(CandidateSampler):
    """Another sampler's proposals, drawn until one is within the limits and new.

    ``make_inner`` makes that sampler from a seed, anew for each proposal. Nothing is told to it of draws that are thrown
    away. Raises ``FailedError`` when no candidate can be found."""

    def __init__(
        self, make_inner: Callable[[int], BaseSampler], space: SearchSpace, limits: Sequence[Limit] = (), *, seed: int
    ) -> None:
        super().__init__(space, limits, seed)
        self._make_inner = make_inner

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        super().before_trial(study, trial)
        if isinstance(inner := self._make_inner(0), NSGAIISampler):
            inner.get_trial_generation(study, trial)  # of trials that nobody samples, too, or they have no children

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        known = self.history(study, trial.number).candidates
        taken = {candidate.archid for candidate in known}
        rng = np.random.default_rng((self.seed, len(known)))
        inner, study = self._make_inner(int(rng.integers(2**31))), read_once(study)
        for self.num_decided in range(MAX_DRAWS):
            if self.num_decided < PATIENCE:
                values = self._draw(inner, study, trial)
            else:
                values = dict(zip(self.space.axes, self.space.random_params(rng), strict=True))
            candidate = self.candidate(values)
            if candidate is not None and candidate.archid not in taken and self.allows(candidate):
                return values
        raise FailedError("no new network within the limits was found in this space")

    def _draw(self, inner: BaseSampler, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        values = inner.sample_relative(study, trial, inner.infer_relative_search_space(study, trial))
        rest = {name: its for name, its in self.distributions.items() if name not in values}
        return {**values, **{name: inner.sample_independent(study, trial, name, its) for name, its in rest.items()}}


class CostAwareSampler(CandidateSampler):
    """Proposes the candidate that is expected to make the area under the front of accuracy and cost grow most.

    The cost is exact, so accuracy alone is modelled: by ``goal``, which the proxy's own accuracy is if none is given.
    Complete trials are what is known (their first value is the accuracy, 0 to 1), and running ones count as believed.
    ``budget`` bounds the cost, ``limits`` whatever else; ``asked`` are costs within which the best network that is not
    published is wanted, beside the front as a whole. The same seed and history give the same proposal. Raises
    ``FailedError`` when no new candidate within the limits can be found."""

    def __init__(
        self,
        space: SearchSpace,
        budget: float,
        *,
        seed: int,
        cost: Cost = OPS,
        limits: Sequence[Limit] = (),
        goal: Goal | None = None,
        asked: Sequence[float] = (),
    ) -> None:
        super().__init__(space, (budget_limit(cost, budget), *limits), seed)
        self._proposer = Proposer(space, budget, seed, cost, limits, goal, asked)

    def prepare(self, study: optuna.Study) -> None:
        super().prepare(study)
        self._proposer.prepare()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        history = self.history(study, trial.number)
        asked = history.candidates
        explore = sum(candidate.archid not in self._proposer.published for candidate in asked) < SPREAD_STARTS
        proposed = self._proposer.propose(len(asked), explore, history.observed, history.pending)
        self.num_decided = self._proposer.num_decided
        self._counted[proposed.params] = proposed
        return dict(zip(self.space.axes, proposed.params, strict=True))


def check_sampler(name: str) -> None:
    """Raise ``MissingError`` for a sampler that needs a package which is not installed."""
    if name == "gp" and find_spec("scipy") is None:
        raise MissingError("the sampler gp needs SciPy, which is not installed", "pip install scipy")


def make_sampler(
    name: SamplerName,
    space: SearchSpace,
    budget: float,
    seed: int,
    cost: Cost = OPS,
    limits: Sequence[Limit] = (),
    goal: Goal | None = None,
    asked: Sequence[float] = (),
) -> CandidateSampler:
    """Ours, or one of Optuna's behind the filter, by name. ``goal`` is what ours learns, and ``asked`` as of
    ``CostAwareSampler``; Optuna's see accuracies.

    Raises ``MissingError`` for a sampler that needs a package which is not installed."""
    check_sampler(name)
    if name == "cost-aware":
        return CostAwareSampler(space, budget, seed=seed, cost=cost, limits=limits, goal=goal, asked=asked)
    bounds = (budget_limit(cost, budget), *limits)
    starts = SPREAD_STARTS + sum(within(c, bounds) for _, c in space.known_candidates())
    make: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=starts),
        "gp": lambda seed: GPSampler(seed=seed, n_startup_trials=starts, deterministic_objective=False),
        "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=POPULATION),
        "random": lambda seed: RandomSampler(seed=seed),
    }
    return FeasibleAndNew(make[name], space, bounds, seed=seed)
