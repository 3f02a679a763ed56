"""The networks whose results at the target are published: one of each topology, with the stem of its best result."""

from __future__ import annotations

from functools import cache

from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import MELIUS
from meliuscli.evidence.runs import TargetRun, target_runs
from meliuscli.search.space import Candidate


@cache
def topologies() -> tuple[TargetRun, ...]:
    """The best run of each topology; in the evidence that is always the one with the grouped stem."""
    best: dict[str, TargetRun] = {}
    for run in target_runs():
        if run.arch not in best or run.top1 > best[run.arch].top1:
            best[run.arch] = run
    return tuple(best.values())


@cache
def published_networks() -> tuple[Candidate, ...]:
    """The networks of ``topologies``, counted; they need not lie in any space and have no ``params``."""
    return tuple(map(_candidate, topologies()))


def target_name(candidate: Candidate) -> str:
    """The name of one of ``published_networks``."""
    return next(run.arch for run in topologies() if run.spec.archid == candidate.archid)


def _candidate(run: TargetRun) -> Candidate:
    count = count_spec(run.spec).total
    ops = MELIUS.derive(count).ops
    assert ops is not None
    return Candidate((), run.spec, run.spec.archid, count, ops)
