"""Does a cheap number rank networks as an expensive training does? Numpy only.

Kendall's tau-b, also given the networks' OPs (which are known anyway), bootstrap intervals over networks, the regret of
trusting a ranking, and whether a number adds to what is known for nothing. Larger scores stand for better networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meliuscli.search.ridge import Array, fit

MIN_NETWORKS = 4
"""Below this there are no figures of a ranking."""
ENOUGH_NETWORKS = 12
"""Below this there is no verdict: resamples of a few networks are too much alike for an honest interval."""
RESAMPLES = 1000
LEVEL = 0.9


@dataclass(frozen=True, slots=True)
class Trust:
    """How far a score of ``n`` networks can be trusted; NaN or None where that is not defined.

    ``tau`` and ``tau_given_ops`` lie in [-1, 1]; ``interval`` is the bootstrap interval of the latter. Regrets and
    errors are in the unit of the truth (accuracy, 0 to 1). ``error`` is the leave-one-out error (root mean square) of
    a ridge regression on the free numbers with the score, ``free_error`` that without it."""

    n: int
    tau: float = float("nan")
    tau_given_ops: float = float("nan")
    interval: tuple[float, float] | None = None
    regret: float = float("nan")
    regret_of_quarter: float = float("nan")
    error: float = float("nan")
    free_error: float = float("nan")

    @property
    def beyond_ops(self) -> bool:
        """Is the lower end of the interval above 0, from enough networks?"""
        return self.n >= ENOUGH_NETWORKS and self.interval is not None and self.interval[0] > 0

    @property
    def adds_to_free(self) -> bool:
        """Does it rank beyond OPs and add to the free numbers?"""
        return self.beyond_ops and self.error < self.free_error


def kendall_tau(x: Array, y: Array) -> Array:
    """Kendall's tau-b of x and y (..., N) along the last axis; NaN where one of them is constant."""
    a, b = (np.sign(values[..., :, None] - values[..., None, :]) for values in (x, y))
    untied = np.sqrt((a**2).sum((-1, -2)) * (b**2).sum((-1, -2)))
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum((-1, -2)) / untied)


def residuals(values: Array, ops: Array) -> Array:
    """What a straight line in log OPs leaves of the values (..., N), as shares of their largest deviation.

    Rounded, so that what is equal stays tied and a function of OPs alone leaves exact zeros."""
    logs = np.log(ops)
    x, y = (v - v.mean(-1, keepdims=True) for v in (logs, values))
    spread = (x**2).sum(-1, keepdims=True)
    slope = np.divide((x * y).sum(-1, keepdims=True), spread, out=np.zeros_like(spread), where=spread > 1e-12)
    scale = np.abs(y).max(-1, keepdims=True)
    rounding = 1e-12 * np.abs(values).max(-1, keepdims=True)
    return np.asarray(np.round((y - slope * x) / np.where(scale > rounding, scale, np.inf), 9))


def tau_given_ops(score: Array, truth: Array, ops: Array) -> Array:
    """Kendall's tau-b of what log OPs do not explain of both (..., N); NaN where nothing is left of one of them."""
    return kendall_tau(residuals(score, ops), residuals(truth, ops))


def bootstrap_interval(
    statistic: Callable[[npt.NDArray[np.intp]], Array], n: int, seed: int
) -> tuple[float, float] | None:
    """The percentile interval of ``statistic`` over resamples of ``n`` networks, which it gets as indices (R, N).

    None where more than half of the resamples have no value."""
    rows = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    values = statistic(rows)
    values = values[np.isfinite(values)]
    if 2 * len(values) < RESAMPLES:
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def regret(score: Array, truth: Array, kept: int = 1) -> float:
    """The best truth minus the best among the ``kept`` networks of the highest scores; ties are broken against it."""
    chosen = np.lexsort((truth, -score))[:kept]
    return float(truth.max() - truth[chosen].max())


def left_out(x: Array, truth: Array) -> Array:
    """For each network, what a ridge regression on features (N, F) of all others expects of it (N,)."""
    others = ~np.eye(len(truth), dtype=bool)
    expected = (fit(x[kept], truth[kept]).predict(x[~kept])[0][0] for kept in others)
    return np.fromiter(expected, np.float64, len(truth))


def judge(score: Array, truth: Array, ops: Array, free: Array | None, seed: int) -> Trust:
    """Judge scores by truths, both (K, N): K pairs of rankings of the same networks, whose figures are averaged.

    ``ops`` is (N,). ``free`` are features known without training (N, F) that the score has to add to, or None for a
    score that is one of them. Networks of which a score or the truth is NaN are left out."""
    known = np.isfinite(score).all(0) & np.isfinite(truth).all(0)
    n = int(known.sum())
    if n < MIN_NETWORKS:
        return Trust(n)
    score, truth, ops = score[:, known], truth[:, known], ops[known]

    def given_ops(rows: npt.NDArray[np.intp]) -> Array:
        pairs = zip(score, truth, strict=True)
        return np.asarray(np.mean([tau_given_ops(s[rows], t[rows], ops[rows]) for s, t in pairs], axis=0))

    def regret_among(kept: int) -> float:
        return float(np.mean([regret(s, t, kept) for s, t in zip(score, truth, strict=True)]))

    given = float(given_ops(np.arange(n)))
    interval = bootstrap_interval(given_ops, n, seed) if np.isfinite(given) else None
    errors = (float("nan"), float("nan")) if free is None else _errors(score, truth, free[known])
    tau = float(kendall_tau(score, truth).mean())
    return Trust(n, tau, given, interval, regret_among(1), regret_among(-(-n // 4)), *errors)


def _errors(score: Array, truth: Array, free: Array) -> tuple[float, float]:
    """Root mean square leave-one-out errors with the score among the features, and without."""
    both = [(np.column_stack([free, s]), t) for s, t in zip(score, truth, strict=True)]
    with_score = np.concatenate([left_out(x, t) - t for x, t in both])
    without = np.concatenate([left_out(free, t) - t for t in truth])
    return float(np.sqrt((with_score**2).mean())), float(np.sqrt((without**2).mean()))
