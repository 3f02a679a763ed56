"""Search: spaces, Pareto arithmetic, the ridge, proposals, and studies that survive anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import optuna.storages.journal
import pytest
from conftest import TINY_SPACE
from hypothesis import given
from hypothesis import strategies as st

from meliuscli.arch.zoo import load_name
from meliuscli.errors import BadInputError, FailedError, SpecError
from meliuscli.search import pareto
from meliuscli.search.accuracy import MOST_OBSERVED, thinned
from meliuscli.search.entrants import Entrant, believed_accuracy, choose, choose_entrants
from meliuscli.search.finals import Standing, finals_of, verdicts
from meliuscli.search.gain import expected_answers, expected_gain
from meliuscli.search.objective import proxy_spec
from meliuscli.search.proposals import Proposer
from meliuscli.search.ridge import fit
from meliuscli.search.space import Candidate, SearchSpace, load_space
from meliuscli.search.study import MIN_LAG, STUDY_NAME, Settings, Study, TrialRecord
from meliuscli.search.trainings import Trainings

POINTS = st.lists(st.tuples(st.integers(0, 20).map(float), st.integers(0, 20).map(float)), max_size=12)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space("meliusnet")[1]


# Pareto arithmetic


@given(POINTS)
def test_the_front_is_what_nothing_beats(points: list[pareto.Point]) -> None:
    kept = [points[index] for index in pareto.front(points)]
    for cost, accuracy in points:
        assert any(c <= cost and a >= accuracy for c, a in kept)
    for point in kept:
        assert not any(c <= point[0] and a >= point[1] and (c, a) != point for c, a in points)
    assert [cost for cost, _ in kept] == sorted({cost for cost, _ in kept})


@given(POINTS)
def test_front_and_hypervolume_agree_with_optuna(points: list[pareto.Point]) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize", "maximize"])
    for point in points:
        study.add_trial(optuna.create_trial(values=list(point)))
    assert {tuple(trial.values) for trial in study.best_trials} == {points[index] for index in pareto.front(points)}
    area = sum(  # by brute force on the unit grid that the points lie on
        any(cost <= x and accuracy >= y + 1 for cost, accuracy in points) for x in range(20) for y in range(20)
    )
    assert pareto.hypervolume(points, 20.0, 0.0) == area


# Spaces


def test_the_default_space_holds_every_published_meliusnet(space: SearchSpace) -> None:
    assert [name for name, _ in space.known_candidates()] == list(space.known)
    assert {"meliusnet22", "meliusnet29", "meliusnet42", "meliusnet-a", "meliusnet-b", "meliusnet-c"} <= set(
        space.known
    )
    for name, candidate in space.known_candidates():
        assert candidate.spec == load_name(name)


def test_the_smallest_network_is_the_smallest(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    sampled = [space.try_candidate(space.random_params(rng)) for _ in range(300)]
    assert space.smallest.ops < min(candidate.ops for candidate in sampled if candidate is not None)
    assert space.smallest.params == (1, 1, 1, 1, 32, 64, 96, 128, 8, 32)


def test_transition_widths_are_multiples_of_32(space: SearchSpace) -> None:
    widths = [axis.values for name, axis in space.axes.items() if name.startswith("transition_channels")]
    assert len(widths) == 3
    assert all(width % 32 == 0 for values in widths for width in values)


def test_the_proxy_has_the_candidates_own_topology(space: SearchSpace) -> None:
    for _, candidate in space.known_candidates():
        proxied = proxy_spec(candidate.spec, space)
        kinds = [
            [layer.kind for layer in spec.layers() if not layer.name.startswith("stem")]
            for spec in (candidate.spec, proxied)
        ]
        assert kinds[0] == kinds[1]
        assert proxied.input_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('family = "meliusnet"', 'family = "mobilnet"', "unknown family"),
        ("growth_rate = { choices = [32, 64] }", "growth = { choices = [32, 64] }", "parameters.growth"),
        ("growth_rate = { choices = [32, 64] }", "growth_rate = { low = 64, high = 32 }", "growth_rate"),
        ("growth_rate = { choices = [32, 64] }", "growth_rate = { low = 0, high = 32 }", "growth_rate"),
        ("growth_rate = { choices = [32, 64] }", "growth_rate = 64", "growth_rate"),
        ("growth_rate = { choices = [32, 64] }", "num_classes = { choices = [10] }", "num_classes"),
        ('known = ["meliusnet22"]', 'known = ["meliusnet2"]', "unknown network"),
        ("epochs = 0.05", "epochs = -1", "epochs"),
        ("epochs = 0.05", "epoch = 1", "epoch: unknown key"),
        ("width_divisor = 16", "width_divisor = 0", "width_divisor"),
        ("[target]", "[target", "not valid TOML"),
    ],
)
def test_a_bad_space_is_refused_by_file_and_key(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in TINY_SPACE
    path = tmp_path / "bad.toml"
    path.write_text(TINY_SPACE.replace(old, new, 1))
    with pytest.raises(BadInputError) as caught:
        load_space(str(path))
    assert "bad.toml" in caught.value.message or says.startswith("unknown")
    assert says in caught.value.message


def test_a_space_of_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    path.write_text(TINY_SPACE.replace("input_size = 64", "input_size = 3"))
    with pytest.raises(SpecError, match="no values give a network"):
        _ = load_space(str(path))[1].smallest


# The ridge and proposals


def test_the_surrogate_finds_a_linear_law_under_noise() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6))
    truth = 70 + 3 * x[:, 0] - 2 * x[:, 3]
    model = fit(x, truth + rng.normal(scale=0.5, size=40))
    fresh = rng.normal(size=(200, 6))
    mean, deviation = model.predict(fresh)
    wanted = 70 + 3 * fresh[:, 0] - 2 * fresh[:, 3]
    assert np.abs(mean - wanted).mean() < 0.4
    inside = np.abs(mean - wanted) < 2 * deviation
    assert 0.7 < inside.mean() <= 1.0


def test_the_surrogate_believes_in_the_mean_when_there_is_only_noise() -> None:
    rng = np.random.default_rng(1)
    model = fit(rng.normal(size=(30, 5)), 50 + rng.normal(size=30))
    mean, _ = model.predict(rng.normal(size=(100, 5)))
    assert mean.std() < 0.5


@given(
    POINTS.filter(bool),
    st.integers(0, 24).map(float),
    st.integers(0, 25).map(float),
)
def test_the_expected_gain_of_a_certain_candidate_is_the_growth_of_the_area(
    points: list[pareto.Point], cost: float, accuracy: float
) -> None:
    floor = min(a for _, a in points)
    before = pareto.hypervolume(points, 25.0, floor)
    after = pareto.hypervolume([*points, (cost, accuracy)], 25.0, floor)
    gain = expected_gain(points, np.array([cost]), np.array([accuracy]), np.array([0.0]), 25.0)
    assert gain[0] == pytest.approx(after - before, abs=1e-6)


def test_expected_answers_match_a_simulation() -> None:
    points, asked = [(3.0, 5.0), (9.0, 7.0)], [2.0, 4.0, 6.0, 9.5]
    answers = expected_answers(points, np.array([4.0, 1.0]), np.array([6.0, 5.5]), np.array([1.5, 0.0]), asked, 4.0)
    drawn = np.random.default_rng(0).normal(6.0, 1.5, 200_000)
    gained = 2 * np.maximum(drawn - 5.0, 0) + np.maximum(drawn - 7.0, 0)
    assert answers[0] == pytest.approx(gained.mean() / 4, rel=0.01)
    assert answers[1] == pytest.approx((1.5 + 0.5 + 0.5 + 0) / 4), "where nothing answers, the floor counts"


def test_the_expected_gain_matches_a_simulation() -> None:
    points, rng = [(2.0, 5.0), (6.0, 8.0)], np.random.default_rng(0)
    gain = expected_gain(points, np.array([4.0]), np.array([6.0]), np.array([1.5]), 10.0)[0]
    draws = [
        pareto.hypervolume([*points, (4.0, accuracy)], 10.0, 5.0) - pareto.hypervolume(points, 10.0, 5.0)
        for accuracy in rng.normal(6.0, 1.5, 20_000)
    ]
    assert gain == pytest.approx(float(np.mean(draws)), rel=0.03)


def law(candidate: Candidate, noise: float = 0.3) -> float:
    """A made-up accuracy: power laws in exact costs, noise that belongs to the candidate."""
    own = np.random.default_rng(int(candidate.archid, 16)).normal(scale=noise)
    return 50 + 6 * math.log10(candidate.count.binary_macs / 1e9) + 5 * math.log10(candidate.count.params / 1e6) + own


def race(space: SearchSpace, budget: float, seed: int, model: bool, trials: int = 16) -> float:
    """The area under the true front after some trials, with or without the model."""
    proposer = Proposer(space, budget, seed)
    observed = [(c, law(c)) for _, c in space.known_candidates() if c.ops <= budget]
    for number in range(trials):
        candidate = proposer.propose(number, number < 6 or not model, observed, [])
        observed.append((candidate, law(candidate)))
    return pareto.hypervolume([(c.ops, law(c, 0.0)) for c, _ in observed], budget, 35.0)


def test_proposals_are_new_within_budget_and_repeatable(space: SearchSpace) -> None:
    known = [c for _, c in space.known_candidates() if c.ops <= 2.5e8]
    observed = [(candidate, law(candidate)) for candidate in known]
    proposer = Proposer(space, 2.5e8, 7)
    for number in range(12):
        candidate = proposer.propose(number, number < 6, observed, [])
        assert candidate.ops <= 2.5e8
        assert candidate.archid not in {c.archid for c, _ in observed}
        observed.append((candidate, law(candidate)))
    again = Proposer(space, 2.5e8, 7).propose(11, False, observed[:-1], [])
    assert again.params == observed[-1][0].params


def test_the_model_beats_spreading_out(space: SearchSpace) -> None:
    gains = [race(space, 2.5e8, seed, True) - race(space, 2.5e8, seed, False) for seed in range(2)]
    assert min(gains) > 0


def test_an_exhausted_space_says_so(tiny_space: Path) -> None:
    space = load_space(str(tiny_space))[1]
    proposer = Proposer(space, 1e9, 0)
    everything = [(candidate, law(candidate)) for candidate in proposer.pool]
    assert len(everything) <= space.size

    def exhaust() -> None:
        for _ in range(space.size + 1):
            new = proposer.propose(0, False, everything, [])
            everything.append((new, law(new)))

    with pytest.raises(FailedError, match="no new network"):
        exhaust()


# Studies (these train for real, on a tiny space)


def settings(**changes: object) -> Settings:
    fields = {
        "space": "tiny",
        "budget": 10**8,
        "trials": 7,
        "seed": 0,
        "sampler": "cost-aware",
        "finalists": 1,
        "final_seeds": 2,
        "lag": MIN_LAG,
        **changes,
    }
    return Settings(**fields)  # type: ignore[arg-type]


def facts(records: Sequence[TrialRecord]) -> list[tuple[object, ...]]:
    return [(record.candidate.params, record.accuracy, record.reason) for record in records]


def run(study: Study, workers: int = 1) -> list[TrialRecord]:
    with Trainings[Any](workers) as trainings:
        return list(study.run(trainings))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    """An uninterrupted study with two workers."""
    directory = tmp_path_factory.mktemp("whole")
    (directory / "tiny.toml").write_text(TINY_SPACE)
    space = load_space(str(directory / "tiny.toml"))[1]
    return run(Study(directory, settings(), space), workers=2)


def test_no_candidate_is_trained_twice_or_over_budget(whole: list[TrialRecord]) -> None:
    assert len(whole) == 7
    assert len({record.candidate.archid for record in whole}) == 7
    assert all(record.candidate.ops <= 10**8 for record in whole)
    assert all(record.accuracy is not None and 0 < record.accuracy < 1 for record in whole)


def test_an_abandoned_study_goes_on_to_the_same_trials(
    tmp_path: Path, tiny_space: Path, whole: list[TrialRecord]
) -> None:
    """Stopped after three trials with others in the air, then resumed with one worker: nothing is different."""
    space = load_space(str(tiny_space))[1]
    with Trainings[Any](2) as trainings:
        for record in Study(tmp_path, settings(), space).run(trainings):
            if record.number == 2:
                break
    resumed = Study(tmp_path, settings(), space)
    assert facts(resumed.records()) == facts(whole)[:3]
    run(resumed)
    assert facts(resumed.records()) == facts(whole)


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("random", marks=pytest.mark.slow)])
def test_other_samplers_reject_by_counting(tmp_path: Path, tiny_space: Path, sampler: str) -> None:
    space = load_space(str(tiny_space))[1]
    budget = int(space.smallest.ops * 1.6)
    study = Study(tmp_path, settings(sampler=sampler, budget=budget, trials=3), space)
    records = run(study, workers=2)
    assert len(records) == 3
    assert all(record.candidate.ops <= budget for record in records)
    assert study.num_rejected > 0


def test_a_trial_killed_before_it_was_rejected_does_not_stop_the_study(tmp_path: Path, tiny_space: Path) -> None:
    space = load_space(str(tiny_space))[1]
    study = Study(tmp_path, settings(budget=int(space.smallest.ops * 1.6), trials=1), space)
    dearest = {name: axis.values[-1] for name, axis in space.axes.items()}
    inner = optuna.load_study(study_name=STUDY_NAME, storage=journal(tmp_path))
    inner.enqueue_trial(dearest)
    inner.ask(study._distributions)  # asked, never told
    records = run(Study(tmp_path, study.settings, space))
    assert len(records) == 1
    assert records[0].candidate.ops <= study.settings.budget


def journal(directory: Path) -> optuna.storages.JournalStorage:
    path = str(directory / "journal.log")
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))


@pytest.mark.parametrize("sampler", ["cost-aware", "tpe", "nsga2"])
def test_a_space_of_one_network_ends_after_it(tmp_path: Path, sampler: str) -> None:
    """A public report of a categorical with one choice: Optuna asks no sampler for it, and the search went on for ever."""
    fixed = TINY_SPACE.replace("low = 1, high = 2", "low = 1, high = 1").replace("[32, 64]", "[32]")
    fixed = fixed.replace("low = 32, high = 96", "low = 32, high = 32").replace(
        "low = 32, high = 64", "low = 32, high = 32"
    )
    (tmp_path / "one.toml").write_text(fixed.replace("[1, 2]", "[1]").replace('["meliusnet22"]', "[]"))
    space = load_space(str(tmp_path / "one.toml"))[1]
    assert space.size == 1
    study = Study(tmp_path, settings(sampler=sampler), space)
    assert study._ask() is not None
    assert study._ask() is None


def test_a_training_that_learns_nothing_is_known_as_one(tmp_path: Path) -> None:
    path = tmp_path / "cold.toml"
    path.write_text(TINY_SPACE.replace("learning_rate = 0.05", "learning_rate = 1e-30", 1))
    study = Study(tmp_path, settings(trials=1), load_space(str(path))[1])
    (record,) = run(study)
    assert record.accuracy is not None
    assert record.accuracy < 0.12
    assert record.result is not None
    assert record.result.at_chance
    assert study.records() == [record]


def test_a_failing_training_is_recorded_and_the_study_goes_on(tmp_path: Path) -> None:
    """optuna#2151: trainings that fail are named with their reason, and end no search."""
    path = tmp_path / "hot.toml"
    path.write_text(TINY_SPACE.replace("learning_rate = 0.05", "learning_rate = 1e30", 1))
    study = Study(tmp_path, settings(trials=2), load_space(str(path))[1])
    records = run(study)
    assert [record.accuracy for record in records] == [None, None]
    assert all("diverged" in (record.reason or "") for record in records)


# Finals


def standing(name: str, known: bool, ops: float, validation: float, test: tuple[float, ...]) -> Standing:
    _, space, _ = load_space("meliusnet")
    candidate = next(space.known_candidates())[1]
    moved = Candidate(candidate.params, candidate.spec, candidate.archid, candidate.count, ops)
    return Standing(Entrant(name, name if known else None, moved), (validation,) * len(test), test)


def test_a_verdict_is_chosen_on_validation_and_judged_on_test() -> None:
    known = standing("known", True, 100.0, 0.70, (0.70, 0.71, 0.72))
    dear = standing("dear", False, 101.0, 0.99, (0.99, 0.99, 0.99))
    lucky = standing("lucky", False, 90.0, 0.73, (0.90, 0.90, 0.90))
    chosen = standing("chosen", False, 80.0, 0.75, (0.72, 0.73, 0.74))
    (verdict,) = verdicts(sorted([known, dear, lucky, chosen], key=lambda s: -s.validation_mean))
    assert verdict.found is chosen
    assert verdict.gain == pytest.approx(0.02)
    assert verdict.spread == pytest.approx(0.01)
    assert verdict.beaten


def test_a_gain_within_the_spread_is_no_victory() -> None:
    known = standing("known", True, 100.0, 0.70, (0.68, 0.71, 0.74))
    found = standing("found", False, 80.0, 0.75, (0.72, 0.73, 0.74))
    (verdict,) = verdicts([found, known])
    assert verdict.gain == pytest.approx(0.02)
    assert not verdict.beaten
    (nothing,) = verdicts([known])
    assert nothing.found is None
    assert not nothing.beaten


def test_no_victory_from_a_single_seed() -> None:
    (verdict,) = verdicts([standing("found", False, 1.0, 0.9, (0.9,)), standing("known", True, 2.0, 0.1, (0.1,))])
    assert verdict.spread is None
    assert not verdict.beaten


def test_finalists_are_the_best_and_the_best_answers_to_known_networks() -> None:
    asked = [100.0, 200.0, 300.0, 500.0]
    found = [(450.0, 70.0), (310.0, 69.5), (290.0, 68.0), (190.0, 66.0), (99.0, 63.5), (50.0, 50.0)]
    assert choose(found, asked, [500.0], 2) == [0, 4], "99 answers three of them by more than 50"
    assert choose(found, asked, [500.0], 3) == [0, 4, 3]
    assert choose(found, asked, [500.0], 4) == [0, 4, 3, 2], "290 is the best within 300"
    assert choose(found, asked, [200.0, 500.0], 2) == [0, 3]
    assert choose(found, [500.0], [500.0], 2) == [0, 1], "the next best, where nothing else is asked"
    assert choose([], asked, [500.0], 3) == []


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(50, 70)), min_size=1, max_size=8), st.integers(1, 8))
def test_more_finalists_answer_no_worse(found: list[tuple[float, float]], most: int) -> None:
    asked = [20.0, 60.0]
    few, many = choose(found, asked, [100.0], most), choose(found, asked, [100.0], most + 1)
    assert many[: len(few)] == few
    assert len(set(many)) == min(most + 1, len(found))


def test_of_many_trials_each_is_believed_by_the_model_and_its_own_training(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    candidates = {c.archid: c for _ in range(400) if (c := space.try_candidate(space.random_params(rng))) is not None}
    truth = np.array([0.1 * math.log(c.ops) + 0.02 * math.log(c.count.params) for c in candidates.values()])
    measured = truth + rng.normal(scale=0.03, size=len(truth))
    records = [
        TrialRecord(i, c, None, float(y), None, None)
        for i, (c, y) in enumerate(zip(candidates.values(), measured, strict=True))
    ]
    by_archid = believed_accuracy(space, records)
    believed = np.array([by_archid[archid] for archid in candidates])
    assert len(records) > MOST_OBSERVED
    unseen = np.setdiff1d(np.arange(len(truth)), thinned(len(truth)))
    errors, luck = (np.abs(values[unseen] - truth[unseen]).mean() for values in (believed, measured))
    assert errors < 0.6 * luck


def test_finalists_come_from_trials_and_unfinished_ones_have_no_standing(
    tmp_path: Path, tiny_space: Path, whole: list[TrialRecord]
) -> None:
    space = load_space(str(tiny_space))[1]
    believed = believed_accuracy(space, whole)
    assert set(believed) == {record.candidate.archid for record in whole}
    study = Study(tmp_path, settings(), space)
    assert choose_entrants(study) == []
    assert finals_of(study).standings([]) == []
