"""Samplers: ours and Optuna's, in studies of anybody; what they may never propose, and that they can be repeated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from conftest import TINY_SPACE, run_here
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from meliuscli.errors import BadInputError, FailedError, MissingError
from meliuscli.search import sampler as samplers
from meliuscli.search.accuracy import AccuracyModel, features
from meliuscli.search.cost import OPS
from meliuscli.search.distributions import distributions, suggest
from meliuscli.search.gain import _normal_cdf
from meliuscli.search.goal import Goal, Observed, Posterior
from meliuscli.search.limits import Limit, params_limit, size_limit
from meliuscli.search.ridge import Array
from meliuscli.search.sampler import CandidateSampler, CostAwareSampler, FeasibleAndNew, SamplerName, make_sampler
from meliuscli.search.screen import Screen, params_at, places_of, random_places, stepped
from meliuscli.search.space import Candidate, SearchSpace, load_space
from meliuscli.search.study import MIN_LAG, Settings, Study
from meliuscli.search.trainings import Trainings

NAMES: tuple[SamplerName, ...] = ("cost-aware", "tpe", "nsga2", "random")
optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    """96 small networks."""
    path = tmp_path_factory.mktemp("space") / "tiny.toml"
    path.write_text(TINY_SPACE)
    return load_space(str(path))[1]


@pytest.fixture(scope="module")
def real() -> SearchSpace:
    return load_space("meliusnet")[1]


def accuracy(candidate: Candidate) -> float:
    """A made-up one, with noise that belongs to the candidate."""
    own = np.random.default_rng(int(candidate.archid, 16)).normal(scale=0.01)
    return 0.1 * math.log(candidate.count.binary_macs) / 3 + 0.05 * math.log(candidate.count.params) / 3 + float(own)


def searched(space: SearchSpace, sampler: CandidateSampler, trials: int, pending: int = 0) -> list[Candidate]:
    """What a sampler proposes, one after the other; the last ``pending`` are never told."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    proposed = []
    for number in range(trials):
        trial = study.ask()
        candidate = suggest(trial, space)
        proposed.append(candidate)
        if number % 5 == 4:
            study.tell(trial, state=TrialState.FAIL)
        elif number < trials - pending:
            study.tell(trial, [accuracy(candidate), candidate.ops])
    return proposed


@settings(max_examples=12)
@given(
    name=st.sampled_from(NAMES),
    over=st.floats(1.3, 3.0),
    kib=st.floats(60, 300),
    seed=st.integers(0, 2**31 - 1),
    pending=st.integers(0, 3),
)
def test_no_sampler_proposes_over_a_limit_or_twice_and_each_can_be_repeated(
    space: SearchSpace, name: SamplerName, over: float, kib: float, seed: int, pending: int
) -> None:
    budget, limits = over * space.smallest.ops, (size_limit(kib * 1024), params_limit(2e5))

    def proposals() -> list[Candidate] | None:
        try:
            return searched(space, make_sampler(name, space, budget, seed, limits=limits), 12, pending)
        except FailedError:
            return None

    proposed = proposals()
    assert proposals() == proposed
    if proposed is None:
        every = [space.try_candidate(params_at(space, row)) for row in _all_places(space)]
        allowed = {c.archid for c in every if c is not None and c.ops <= budget and all(b.holds(c) for b in limits)}
        assert len(allowed) < 30, "a few of many may be missed, but not so many of 96"
        return
    assert all(candidate.ops <= budget for candidate in proposed)
    assert all(limit.holds(candidate) for candidate in proposed for limit in limits)
    assert len({candidate.archid for candidate in proposed}) == len(proposed)


def _all_places(space: SearchSpace) -> Array:
    return np.stack(np.meshgrid(*(range(len(axis.values)) for axis in space.axes.values())), -1).reshape(
        -1, len(space.axes)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_small_space_is_searched_to_its_end(space: SearchSpace, name: SamplerName) -> None:
    every = [space.try_candidate(params_at(space, row)) for row in _all_places(space)]
    budget = 1.5 * space.smallest.ops
    allowed = {c.archid for c in every if c is not None and c.ops <= budget}
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_sampler(name, space, budget, seed=0))
    found = set()

    def search_on() -> None:
        for _ in range(len(allowed) + 1):
            trial = study.ask()
            candidate = suggest(trial, space)
            found.add(candidate.archid)
            study.tell(trial, [accuracy(candidate), candidate.ops])

    with pytest.raises(FailedError, match="no new network"):
        search_on()
    assert found <= allowed
    assert len(found) >= 0.9 * len(allowed)


def test_a_study_of_ones_own_is_optimised_by_our_sampler(real: SearchSpace) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        candidate = suggest(trial, real)
        return accuracy(candidate), candidate.ops

    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=CostAwareSampler(real, 1.5e8, seed=3, limits=(params_limit(8e6),))
    )
    study.optimize(objective, n_trials=10)
    candidates = [real.candidate(tuple(trial.params[name] for name in real.axes)) for trial in study.trials]
    assert all(c.ops <= 1.5e8 and c.count.params <= 8e6 for c in candidates)
    assert len({c.archid for c in candidates}) == 10


def test_a_study_of_one_objective_is_optimised_too(space: SearchSpace) -> None:
    study = optuna.create_study(direction="maximize", sampler=CostAwareSampler(space, 1e8, seed=0))
    study.optimize(lambda trial: accuracy(suggest(trial, space)), n_trials=12)
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 12


def test_a_study_that_minimises_or_asks_for_other_parameters_is_refused(space: SearchSpace) -> None:
    study = optuna.create_study(direction="minimize", sampler=CostAwareSampler(space, 1e8, seed=0))
    with pytest.raises(BadInputError, match="to be maximised"):
        suggest(study.ask(), space)
    study = optuna.create_study(direction="maximize", sampler=CostAwareSampler(space, 1e8, seed=0))
    with pytest.raises(BadInputError, match="learning_rate: not a parameter"):
        study.ask().suggest_float("learning_rate", 0, 1)


class FewParams:
    """A goal of somebody else's: what has few parameters is best, and nothing is learned."""

    explores = False

    def fit(self, observed: Observed, pending: Sequence[Candidate] = ()) -> Posterior:
        return self

    def predict(self, candidates: Sequence[Candidate]) -> tuple[Array, Array]:
        return np.array([-math.log(c.count.params) for c in candidates]), np.full(len(candidates), 1e-3)


def test_another_goal_is_searched_for(real: SearchSpace) -> None:
    goal: Goal = FewParams()
    few = searched(real, CostAwareSampler(real, 5e8, seed=0, goal=goal), 3)
    rng = np.random.default_rng(0)
    random = [c for _ in range(200) if (c := real.try_candidate(real.random_params(rng))) is not None]
    assert min(c.count.params for c in few) < min(c.count.params for c in random)


def test_trials_in_training_count_as_believed_and_move_the_next_proposal(real: SearchSpace) -> None:
    known = [c for _, c in real.known_candidates() if c.ops <= 5e8]
    sampler = CostAwareSampler(real, 5e8, seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for candidate in known:
        study.enqueue_trial(dict(zip(real.axes, candidate.params, strict=True)))
        study.tell(study.ask(distributions(real)), [accuracy(candidate), candidate.ops])
    proposed = [suggest(study.ask(), real) for _ in range(9)]
    assert len({candidate.archid for candidate in [*known, *proposed]}) == len(known) + 9


class Stubborn(optuna.samplers.RandomSampler):
    """Proposes the largest network, whatever was thrown away."""

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        choices = getattr(param_distribution, "choices", None)
        return choices[-1] if choices else param_distribution.high


def test_a_sampler_that_insists_on_what_is_not_allowed_is_overruled(space: SearchSpace) -> None:
    budget = 1.6 * space.smallest.ops
    limit = Limit("--budget", OPS.of, budget, OPS.text)
    sampler = FeasibleAndNew(lambda seed: Stubborn(), space, (limit,), seed=0)
    assert all(candidate.ops <= budget for candidate in searched(space, sampler, 4))
    assert sampler.num_decided >= samplers.PATIENCE


@pytest.mark.parametrize("name", NAMES)
def test_what_counting_decides_is_counted_for_every_sampler(space: SearchSpace, name: SamplerName) -> None:
    sampler, decided = make_sampler(name, space, 1.4 * space.smallest.ops, 0), 0
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for _ in range(8):
        trial = study.ask()
        candidate = suggest(trial, space)
        decided += sampler.num_decided
        study.tell(trial, [accuracy(candidate), candidate.ops])
    assert decided > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_proposal_reads_the_trials_a_few_times_however_many_parameters_it_draws(
    space: SearchSpace, name: SamplerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TPE read them for each parameter of each draw, which on MariaDB took 0.5 s of CPU for one proposal."""
    sampler = make_sampler(name, space, 1e9, seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for number in range(20):
        trial = study.ask()
        candidate = suggest(trial, space)
        if number < 18:
            study.tell(trial, [accuracy(candidate), candidate.ops])
    reads, read = [], study._storage.get_all_trials
    monkeypatch.setattr(study._storage, "get_all_trials", lambda *a, **more: reads.append(a) or read(*a, **more))
    suggest(study.ask(), space)
    assert 1 <= len(reads) <= 4


def test_a_study_keeps_how_much_counting_decided(tmp_path: Path, space: SearchSpace) -> None:
    chosen = Settings("tiny", int(1.4 * space.smallest.ops), 3, 0, "cost-aware", 1, 1, MIN_LAG)
    study = Study(tmp_path, chosen, space)
    with Trainings[Any](1) as trainings:
        assert len(list(study.run(trainings))) == 3
    assert study.num_rejected > 0
    assert Study(tmp_path, chosen, space).num_rejected == study.num_rejected


@pytest.mark.slow
def test_an_abandoned_study_of_tpe_goes_on_to_the_same_trials(tmp_path: Path, space: SearchSpace) -> None:
    settings = Settings("tiny", 10**8, 9, 0, "tpe", 1, 1, MIN_LAG)
    for part in ("whole", "stopped"):
        (tmp_path / part).mkdir()
    with Trainings[Any](2) as trainings:
        whole = list(Study(tmp_path / "whole", settings, space).run(trainings))
        for record in Study(tmp_path / "stopped", settings, space).run(trainings):
            if record.number == 4:
                break
    resumed = Study(tmp_path / "stopped", settings, space)
    with Trainings[Any](1) as trainings:
        list(resumed.run(trainings))
    assert [(r.candidate.params, r.accuracy) for r in resumed.records()] == [
        (r.candidate.params, r.accuracy) for r in whole
    ]


def test_a_sampler_that_needs_scipy_says_so(space: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="SciPy"):
        make_sampler("gp", space, 1e8, 0)


def test_a_search_with_a_sampler_that_cannot_run_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samplers, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingError, match="SciPy"):
        run_here("search", "--budget", "5e8", "--sampler", "gp")
    assert list(tmp_path.iterdir()) == []


# What the proposals rest on


def test_the_model_of_accuracy_learns_and_knows_how_well(real: SearchSpace) -> None:
    rng = np.random.default_rng(1)
    candidates = [c for _ in range(160) if (c := real.try_candidate(real.random_params(rng))) is not None]
    x = features(real, candidates)
    truth = 60 + 3 * (x[:, -4] - x[:, -4].mean()) - 4 * (x[:, 0] - 0.3) ** 2 + np.sin(3 * x[:, 5])
    model = AccuracyModel.fit(x[:60], truth[:60] + rng.normal(scale=0.3, size=60))
    mean, deviation = model.predict(x[60:])
    errors = mean - truth[60:]
    assert np.sqrt((errors**2).mean()) < 0.4 * truth.std()
    assert 0.7 < (np.abs(errors) < 2 * deviation).mean() <= 1.0
    assert deviation.min() > 0


def test_the_model_stands_inputs_that_do_not_vary_and_accuracies_that_are_equal() -> None:
    rng = np.random.default_rng(0)
    x = np.hstack([np.ones((6, 3)), rng.normal(size=(6, 5))])
    mean, deviation = AccuracyModel.fit(x, np.full(6, 0.5)).predict(rng.normal(size=(4, 8)))
    assert mean == pytest.approx(np.full(4, 0.5))
    assert np.isfinite(deviation).all()


def test_estimates_of_costs_are_near_the_counted_ones(real: SearchSpace) -> None:
    rng = np.random.default_rng(2)
    candidates = [c for _ in range(320) if (c := real.try_candidate(real.random_params(rng))) is not None]
    at = np.array([places_of(real, candidate.params) for candidate in candidates])
    logs = np.log([[candidate.ops] for candidate in candidates])
    screen = Screen.fit(at[:240], logs[:240], real)
    assert np.median(np.abs(screen.estimate(at[240:]) - logs[240:])) < 0.05


@given(st.integers(0, 99))
def test_steps_move_one_to_three_parameters_and_stay_in_the_space(seed: int) -> None:
    space = load_space("meliusnet")[1]
    rng, axes = np.random.default_rng(seed), list(space.axes.values())
    before = random_places(axes, 20, rng)
    after = stepped(before, axes, rng)
    assert (np.count_nonzero(before != after, axis=1) <= 3).all()
    assert all(space.random_params(rng) and len(params_at(space, row)) == len(axes) for row in after)
    assert (np.abs(after - before) <= 2).all()


@given(st.floats(-30, 30))
def test_the_normal_distribution_is_exact_to_seven_digits(z: float) -> None:
    exact = 0.5 * math.erfc(-z / math.sqrt(2))
    assert float(_normal_cdf(np.array([z]))[0]) == pytest.approx(exact, rel=2e-7, abs=1e-300)
