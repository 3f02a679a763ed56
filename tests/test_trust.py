"""How far a ranking can be trusted: every statistic by a second road."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meliuscli.search.ridge import fit
from meliuscli.search.trust import (
    LEVEL,
    RESAMPLES,
    Array,
    bootstrap_interval,
    judge,
    kendall_tau,
    left_out,
    regret,
    residuals,
    tau_given_ops,
)

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=9)
"""Small whole numbers, so that ties of every kind come up."""


def columns(pairs: list[tuple[int, int]]) -> tuple[Array, Array]:
    x, y = np.array(pairs, np.float64).T
    return x, y


def tau_by_definition(x: Array, y: Array) -> float:
    """Kendall 1945: (P - Q) / sqrt((P + Q + X)(P + Q + Y)), X and Y the pairs tied in y and x only."""
    concordant = discordant = only_x = only_y = 0
    for i, j in combinations(range(len(x)), 2):
        if x[i] == x[j] and y[i] == y[j]:
            continue
        if x[i] == x[j]:
            only_x += 1
        elif y[i] == y[j]:
            only_y += 1
        elif (x[i] < x[j]) == (y[i] < y[j]):
            concordant += 1
        else:
            discordant += 1
    untied = concordant + discordant
    below = math.sqrt((untied + only_x) * (untied + only_y))
    return (concordant - discordant) / below if below else math.nan


@given(PAIRS)
def test_tau_is_its_definition(pairs: list[tuple[int, int]]) -> None:
    x, y = columns(pairs)
    assert float(kendall_tau(x, y)) == pytest.approx(tau_by_definition(x, y), nan_ok=True)


@given(PAIRS.filter(lambda pairs: len(pairs) > 1))
def test_tau_is_scipys(pairs: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    x, y = columns(pairs)
    assert float(kendall_tau(x, y)) == pytest.approx(stats.kendalltau(x, y).statistic, nan_ok=True)


@given(PAIRS)
def test_tau_sees_order_alone_and_many_rankings_at_once(pairs: list[tuple[int, int]]) -> None:
    x, y = columns(pairs)
    tau = float(kendall_tau(x, y))
    assert float(kendall_tau(y, x)) == pytest.approx(tau, nan_ok=True)
    assert float(kendall_tau(np.exp(x), 3 * y - 1)) == pytest.approx(tau, nan_ok=True)
    assert float(kendall_tau(x, -y)) == pytest.approx(-tau, nan_ok=True)
    both = kendall_tau(np.stack([x, y]), np.stack([y, y]))
    assert both == pytest.approx([tau, float(kendall_tau(y, y))], nan_ok=True)


@pytest.mark.parametrize("x", [[], [1.0], [2.0, 2.0, 2.0]])
def test_what_cannot_be_ranked_has_no_tau(x: list[float]) -> None:
    assert math.isnan(float(kendall_tau(np.array(x), np.arange(len(x), dtype=np.float64))))


def test_residuals_are_those_of_a_fitted_line() -> None:
    rng = np.random.default_rng(0)
    ops, values = np.exp(rng.normal(18, 1, 30)), rng.normal(size=30)
    line = np.polyval(np.polyfit(np.log(ops), values, 1), np.log(ops))
    wanted = (values - line) / np.abs(values - values.mean()).max()
    assert residuals(values, ops) == pytest.approx(wanted, abs=1e-8)


def test_a_function_of_ops_alone_leaves_nothing_to_rank() -> None:
    rng = np.random.default_rng(1)
    ops, truth = np.exp(rng.normal(18, 1, 30)), rng.normal(size=30)
    for score in (np.log(ops), 5 - 3 * np.log(ops), np.full(30, 0.1)):
        assert not residuals(score, ops).any()
        assert math.isnan(float(tau_given_ops(score, truth, ops)))
    assert float(tau_given_ops(truth, truth, np.full(30, 1e8))) == 1


def confounded(seed: int, shared: float) -> tuple[Array, Array, Array]:
    """A score and a truth that both rise with OPs and share something else as far as ``shared``; and OPs."""
    rng = np.random.default_rng(seed)
    logs, common = rng.normal(18, 1, 60), rng.normal(size=60)
    score, truth = (logs + 0.3 * (shared * common + (1 - shared) * rng.normal(size=60)) for _ in range(2))
    return score, truth, np.exp(logs)


def test_what_both_owe_to_ops_is_no_merit() -> None:
    score, truth, ops = confounded(0, 0.0)
    trust = judge(score[None], truth[None], ops, None, 0)
    assert trust.tau > 0.6
    assert trust.interval is not None
    assert trust.interval[0] < 0 < trust.interval[1]
    assert not trust.beyond_ops
    score, truth, ops = confounded(0, 0.8)
    assert judge(score[None], truth[None], ops, None, 0).beyond_ops


def test_the_bootstrap_is_what_a_loop_gives_and_follows_its_seed() -> None:
    score, truth, ops = confounded(2, 0.5)
    score, truth, ops = score[:12], truth[:12], ops[:12]
    free = np.log(ops)[:, None]
    trust = judge(score[None], truth[None], ops, free, 7)
    rows = np.random.default_rng(7).integers(12, size=(RESAMPLES, 12))
    slow = sorted(float(tau_given_ops(score[r], truth[r], ops[r])) for r in rows)
    assert trust.interval == pytest.approx(np.quantile(slow, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    assert trust == judge(score[None], truth[None], ops, free, 7)
    assert trust.interval != judge(score[None], truth[None], ops, None, 8).interval


def test_the_bootstrap_of_a_mean_is_the_textbooks() -> None:
    values = np.random.default_rng(3).normal(size=200)
    interval = bootstrap_interval(lambda rows: values[rows].mean(1), 200, 0)
    half = 1.645 * values.std() / math.sqrt(200)
    assert interval == pytest.approx((values.mean() - half, values.mean() + half), abs=0.2 * half)


def test_no_interval_where_hardly_a_resample_has_a_value() -> None:
    assert bootstrap_interval(lambda rows: np.where(rows[:, 0] == 0, 1.0, np.nan), 4, 0) is None


@given(PAIRS, st.integers(1, 9))
def test_regret_is_the_worst_that_the_ranking_allows(pairs: list[tuple[int, int]], kept: int) -> None:
    score, truth = columns(pairs)
    kept = min(kept, len(score))
    # All choices that the ranking allows: none left out scores higher than one that was taken.
    allowed = [
        chosen
        for chosen in combinations(range(len(score)), kept)
        if all(score[i] <= min(score[list(chosen)]) for i in range(len(score)) if i not in chosen)
    ]
    wanted = max(truth.max() - truth[list(chosen)].max() for chosen in allowed)
    assert regret(score, truth, kept) == wanted


def test_left_out_means_left_out() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(12, 3))
    truth = x @ [1.0, 2.0, 0.0] + rng.normal(scale=0.1, size=12)
    expected = left_out(x, truth)
    for index in range(12):
        rest = np.delete(np.arange(12), index)
        assert expected[index] == pytest.approx(fit(x[rest], truth[rest]).predict(x[index][None])[0][0])
    assert np.abs(expected - truth).mean() < 0.3
    other = truth.copy()
    other[5] = 100
    assert left_out(x, other)[5] == expected[5]


def test_a_score_that_knows_more_than_the_free_numbers_beats_them_and_noise_does_not() -> None:
    rng = np.random.default_rng(5)
    ops = np.exp(rng.normal(18, 1, 30))
    free = np.column_stack([np.log(ops), rng.normal(size=30)])
    hidden = rng.normal(size=30)
    truth = free.sum(1) + hidden + rng.normal(scale=0.1, size=30)
    knows = judge((truth + rng.normal(scale=0.3, size=30))[None], truth[None], ops, free, 0)
    assert knows.adds_to_free
    assert knows.error < 0.6 * knows.free_error
    noise = judge(rng.normal(size=30)[None], truth[None], ops, free, 0)
    assert not noise.adds_to_free
    # A free number in disguise ranks beyond OPs and adds nothing.
    same = judge((free[:, 1] * 2 + 1)[None], truth[None], ops, free, 0)
    assert same.error == pytest.approx(same.free_error, rel=0.1)


def test_failed_trainings_are_left_out() -> None:
    score, truth, ops = confounded(6, 0.8)
    free = np.log(ops)[:, None]
    holes = score.copy(), truth.copy()
    holes[0][:5] = holes[1][50:] = np.nan
    kept = slice(5, 50)
    trust = judge(holes[0][None], holes[1][None], ops, free, 0)
    assert trust.n == 45
    assert trust == judge(score[None, kept], truth[None, kept], ops[kept], free[kept], 0)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_of_too_few_networks_nothing_is_said(n: int) -> None:
    values = np.arange(n, dtype=np.float64)
    trust = judge(values[None], values[None], values + 1, values[:, None], 0)
    assert trust.n == n
    assert math.isnan(trust.tau)
    assert trust.interval is None
    assert not trust.adds_to_free


def test_all_equal_is_no_ranking() -> None:
    rng = np.random.default_rng(7)
    truth, ops = rng.normal(size=12), np.exp(rng.normal(size=12))
    trust = judge(np.full((1, 12), 0.1), truth[None], ops, np.log(ops)[:, None], 0)
    assert math.isnan(trust.tau)
    assert trust.interval is None
    assert trust.regret == truth.max() - truth.min()
    assert not trust.adds_to_free


def test_two_pairs_of_rankings_are_averaged() -> None:
    one, two = confounded(8, 0.7), confounded(9, 0.7)
    ops = one[2]
    trust = judge(np.stack([one[0], two[0]]), np.stack([one[1], two[1]]), ops, None, 0)
    taus = [float(kendall_tau(score, truth)) for score, truth, _ in (one, two)]
    given = [float(tau_given_ops(score, truth, ops)) for score, truth, _ in (one, two)]
    assert trust.tau == pytest.approx(np.mean(taus))
    assert trust.tau_given_ops == pytest.approx(np.mean(given))
    assert trust.regret == pytest.approx(np.mean([regret(score, truth) for score, truth, _ in (one, two)]))
