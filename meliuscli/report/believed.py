"""What a search that answers for ImageNet says: beliefs beside published results, and how sure each comparison is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from meliuscli.evidence.belief import Belief, known_result, outside, probabilities_above, sentence
from meliuscli.report.tables import Column, Table
from meliuscli.search.cost import Cost
from meliuscli.search.records import TrialRecord
from meliuscli.search.space import Candidate
from meliuscli.units import format_figure

Beliefs = Mapping[str, Belief]
"""archid -> what is believed of the network."""
PREFER = "the search prefers the network whose interval's lower end is the highest, not the one whose mean is"
REACHED = (
    "reached: in the last epoch of the authors' own training (papers print the best epoch, up to 0.3 points more, and of MeliusNet59"
    " another training, 70.7)"
)
OUTSIDE = (
    "*: outside the range of the runs of its family with its stem in some number (meliuscli predict says which), where nothing was measured and"
    " how wide the interval has to be is a judgement. Each number is looked at by itself: a network can also be new in how they"
    " go together"
)
ROLE_OF_PROXY = (
    "proxy top-1: one short training each, on validation, at the proxy's small input; beliefs do not use it, so it can"
    " disagree with them"
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The found network that is preferred among those of no higher cost than a published one, which reached
    ``reached`` percent on ImageNet."""

    known: TrialRecord
    reached: float
    found: TrialRecord | None


def preferred(records: Sequence[TrialRecord], beliefs: Beliefs, cost: Cost, limit: float) -> TrialRecord | None:
    """The found network within a cost whose believed interval has the highest lower end, of those that have one."""
    trained = [r for r in records if r.known_as is None and r.accuracy is not None and r.candidate.archid in beliefs]
    within = [record for record in trained if cost.of(record.candidate) <= limit]
    return max(within, key=lambda record: beliefs[record.candidate.archid].low, default=None)


def comparisons(records: Sequence[TrialRecord], beliefs: Beliefs, cost: Cost) -> list[Comparison]:
    """One for each published network with a known result, cheapest first."""
    results = [(r, reached) for r in records if r.known_as and (reached := known_result(r.candidate.spec)) is not None]
    results.sort(key=lambda pair: cost.of(pair[0].candidate))
    return [Comparison(r, reached, preferred(records, beliefs, cost, cost.of(r.candidate))) for r, reached in results]


def believed_table(
    front: Sequence[TrialRecord],
    records: Sequence[TrialRecord],
    beliefs: Beliefs,
    title: str,
    cost_columns: tuple[list[Column], Callable[[Candidate], list[str]]],
    legend: str,
) -> Table:
    """The front, and the published networks among it, cheapest first."""
    columns, cells = cost_columns
    shown = {r.number: r for r in (*front, *(r for r in records if r.known_as and r.accuracy is not None))}
    rows = []
    for record in sorted(shown.values(), key=lambda r: r.candidate.ops):
        reached = known_result(record.candidate.spec)
        rows.append(
            (
                record.title,
                *cells(record.candidate),
                format_figure(record.candidate.count.size_bytes / 2**20),
                _believed(record.candidate, beliefs),
                "" if reached is None else f"{reached:.2f}",
                f"{100 * (record.accuracy or 0):.2f}",
            )
        )
    heads = (Column("MiB"), Column("believed ImageNet %"), Column("reached %"), Column("proxy top-1 %"))
    return Table(
        title,
        (Column("network", numeric=False), *columns, *heads),
        tuple(rows),
        notes=(
            sentence(),
            *([OUTSIDE] if any("*" in row[-3] for row in rows) else []),
            f"{REACHED}; {PREFER}",
            ROLE_OF_PROXY,
            legend,
        ),
    )


def _believed(candidate: Candidate, beliefs: Beliefs) -> str:
    """A belief as cells have it; empty where there is none."""
    belief = beliefs.get(candidate.archid)
    return "" if belief is None else f"{belief}{'*' if outside(candidate.spec) else ''}"


def comparison_lines(records: Sequence[TrialRecord], beliefs: Beliefs, cost: Cost) -> list[str]:
    """A sentence a published network: who is believed to reach what at no more cost, and how probable it is."""
    unbelieved = _unbelieved(records, beliefs)
    return [_compare(comparison, beliefs, cost, unbelieved) for comparison in comparisons(records, beliefs, cost)]


def _unbelieved(records: Sequence[TrialRecord], beliefs: Beliefs) -> str:
    """What a sentence that no network was trained has to add where one was of which nothing is believed."""
    trained = [record for record in records if record.known_as is None and record.accuracy is not None]
    all_believed = all(record.candidate.archid in beliefs for record in trained)
    return "" if all_believed else " of which anything is believed"


def _compare(comparison: Comparison, beliefs: Beliefs, cost: Cost, unbelieved: str) -> str:
    known, found = comparison.known, comparison.found
    if found is None:
        return f"`{known.known_as}`: the search trained no network of its own of at most its {cost.noun}{unbelieved}."
    belief = beliefs[found.candidate.archid]
    spent, price = (f"{cost.text(cost.of(record.candidate))} {cost.unit}" for record in (found, known))
    least, most = probabilities_above(found.candidate.spec, comparison.reached)
    low, high = _probability(least), _probability(most)
    probability = f"{low} to {high}, depending on the prior of the model"
    if low == high or most - least < 0.01:
        probability = low
    return (
        f"`{found.name}` is believed to reach {belief} at {spent}; `{known.known_as}` reached"
        f" {comparison.reached:.1f} at {price}. The probability that it is better is {probability}."
    )


def _probability(value: float) -> str:
    """Two digits; no certainty is claimed."""
    return "above 0.99" if value > 0.99 else "below 0.01" if value < 0.01 else f"{value:.2f}"


def best_lines(records: Sequence[TrialRecord], beliefs: Beliefs, cost: Cost, budgets: Sequence[float]) -> list[str]:
    """The answer for each budget, in a sentence."""
    lines = []
    for budget in budgets:
        best = preferred(records, beliefs, cost, budget)
        allowed = f"{cost.text(budget)} {cost.unit}"
        if best is None:
            lines.append(f"Within {allowed} the search trained no network of its own{_unbelieved(records, beliefs)}.")
            continue
        lines.append(
            f"Within {allowed} the search prefers `{best.name}` ({best.candidate.spec.summary()}): it is believed"
            f" to reach {beliefs[best.candidate.archid]} % on ImageNet at {cost.text(cost.of(best.candidate))} {cost.unit}."
        )
    return lines
