"""Does a cheap score say anything of ImageNet that the free numbers do not say? Numpy only.

Rank correlation over topologies, given OPs and given OPs and params; and the error of beliefs with and without the
score, where each topology is predicted from the others. Larger scores stand for better networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from meliuscli.evidence.belief import inputs_of, leave_topologies_out, left_out, results
from meliuscli.evidence.model import SCORED_GRID, TargetModel
from meliuscli.evidence.runs import target_runs
from meliuscli.search.ridge import Array, fit
from meliuscli.search.targets import published_networks, topologies
from meliuscli.search.trust import LEVEL, MIN_NETWORKS, RESAMPLES, bootstrap_interval, kendall_tau

Interval = tuple[float, float]
PERMUTATIONS = 2000


@dataclass(frozen=True, slots=True)
class TargetTrust:
    """How far a score of ``n`` topologies can be trusted; NaN or None where that is not defined.

    Errors are leave-one-topology-out, root mean square, in points of ImageNet top-1: ``error`` with the score,
    ``free_error`` without it; ``gain_interval`` is that of the difference. ``weight`` is what a standard deviation of
    the score beyond the free numbers is worth in the model of all results, in points. Intervals resample topologies."""

    n: int
    tau: float = float("nan")
    given_ops: float = float("nan")
    ops_interval: Interval | None = None
    given_size: float = float("nan")
    size_interval: Interval | None = None
    error: float = float("nan")
    free_error: float = float("nan")
    gain_interval: Interval | None = None
    weight: float = float("nan")

    @property
    def ranks(self) -> bool:
        """Is it shown to rank beyond OPs and params?"""
        return self.size_interval is not None and self.size_interval[0] > 0

    @property
    def adds(self) -> bool:
        """Is it also shown to lower the error of beliefs?"""
        return self.ranks and self.gain_interval is not None and self.gain_interval[0] > 0


def judge_on_target(scores: Array, seed: int) -> TargetTrust:
    """Judge scores (T,) of ``topologies``, NaN where there is none."""
    known = np.isfinite(scores)
    n = int(known.sum())
    if n < MIN_NETWORKS:
        return TargetTrust(n)
    score, truth, logs = scores[known], _truth()[known], _logs()[known]
    tau = float(kendall_tau(score, truth))
    by_ops, by_size = (_partial(score, truth, logs[:, :columns], seed) for columns in (1, 2))
    error, free_error, gain, weight = _errors(beyond_free(scores), seed)
    return TargetTrust(n, tau, *by_ops, *by_size, error, free_error, gain, weight)


def beyond_free(scores: Array) -> Array:
    """What a ridge regression on log MACs, log params and family leaves of scores (T,), in standard deviations; 0 where
    there is no score. The results at the target have no part in it."""
    known = np.isfinite(scores)
    inputs = inputs_of([run.spec for run in topologies()])
    x = np.column_stack([inputs.features[:, :3], inputs.families])[known]
    rest = scores[known] - fit(x, scores[known]).predict(x)[0]
    rest -= rest.mean()
    spread = rest.std()
    left = np.zeros(len(scores))
    if spread > 1e-9 * np.abs(scores[known]).max():
        left[known] = rest / spread
    return left


def chance_of_best(scores: Sequence[Array], seed: int) -> float:
    """How often the best of these scores (T,) would agree as well with what beliefs leave of the results if none had any
    relation to them: the part of permutations whose best tau is at least the best of the scores."""
    complete = [score for score in scores if np.isfinite(score).all()]
    if not complete:
        return float("nan")
    rest, truth = np.array([beyond_free(score) for score in complete]), _unexplained()
    order = np.argsort(np.random.default_rng(seed).random((PERMUTATIONS, len(truth))), axis=1)
    best = np.nanmax(kendall_tau(rest, np.broadcast_to(truth, rest.shape)))
    taus = kendall_tau(rest[None], np.broadcast_to(truth[order][:, None], (PERMUTATIONS, *rest.shape)))
    return float((np.nanmax(taus, axis=1) >= best).mean())


def left_of(values: Array, controls: Array) -> Array:
    """What a linear regression on ``controls`` (..., N, F) leaves of values (..., N), as shares of their largest
    deviation; rounded, so that a function of the controls alone leaves exact zeros."""
    x = controls - controls.mean(-2, keepdims=True)
    y = values - values.mean(-1, keepdims=True)
    fitted = (x @ np.linalg.pinv(x, rcond=1e-9) @ y[..., None])[..., 0]
    scale = np.abs(y).max(-1, keepdims=True)
    return np.asarray(np.round((y - fitted) / np.where(scale > 0, scale, np.inf), 9))


def _partial(score: Array, truth: Array, controls: Array, seed: int) -> tuple[float, Interval | None]:
    """Kendall's tau-b given the controls (N, F), and its interval."""

    def statistic(rows: npt.NDArray[np.intp]) -> Array:
        return kendall_tau(left_of(score[rows], controls[rows]), left_of(truth[rows], controls[rows]))

    tau = float(statistic(np.arange(len(score))))
    return tau, bootstrap_interval(statistic, len(score), seed) if np.isfinite(tau) else None


def _errors(beyond: Array, seed: int) -> tuple[float, float, Interval, float]:
    """The error of beliefs with and without the score, the interval of what it gains, and its weight."""
    place = {run.arch: index for index, run in enumerate(topologies())}
    of_run = np.array([place[run.arch] for run in target_runs()])
    inputs = inputs_of([run.spec for run in target_runs()], beyond[of_run])
    with_score = leave_topologies_out(inputs, grid=SCORED_GRID)
    squares = [np.bincount(of_run, found.errors**2) for found in (left_out(), with_score)]
    runs = np.bincount(of_run)
    rows = np.random.default_rng(seed).integers(len(runs), size=(RESAMPLES, len(runs)))
    without, with_ = (np.sqrt(square[rows].sum(1) / runs[rows].sum(1)) for square in squares)
    low, high = np.quantile(without - with_, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    weight = TargetModel.fit(inputs, results(), SCORED_GRID).score_weight
    return with_score.error, left_out().error, (float(low), float(high)), weight


@cache
def _truth() -> Array:
    return np.array([run.top1 for run in topologies()])


@cache
def _unexplained() -> Array:
    """What beliefs leave of the results of each topology (T,) when it is left out, in points: the mean of its stems'."""
    errors, archs = -left_out().errors, [run.arch for run in target_runs()]
    return np.array(
        [np.mean([e for e, arch in zip(errors, archs, strict=True) if arch == run.arch]) for run in topologies()]
    )


@cache
def _logs() -> Array:
    """Logarithms of OPs and params (T, 2)."""
    return np.log([[candidate.ops, candidate.count.params] for candidate in published_networks()])
