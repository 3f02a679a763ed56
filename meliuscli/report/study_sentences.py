"""What a study says in sentences: no more than its numbers do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from meliuscli.report.believed import best_lines, comparison_lines
from meliuscli.report.study import StudyReport
from meliuscli.search.cost import Cost
from meliuscli.search.finals import Verdict, verdicts


def chance_lines(number: int, trainings: int) -> list[str]:
    """That some trainings say nothing of their networks."""
    what = f"{number} of these {trainings} trainings ended no better than chance, and say nothing of their networks."
    return [what] if number else []


def transfer_data(report: StudyReport) -> str:
    settings = report.settings
    return Path(settings.transfer_dir).name if settings.transfer_dir else str(settings.transfer)


def transfer_lines(report: StudyReport) -> list[str]:
    """Who wins on data that the search never used."""
    compared = verdicts(report.transfer, report.cost.of)
    if (tally := _tally(compared, report.cost)) is None:
        return [f"On {transfer_data(report)} no finalist is within the {report.cost.noun} of a published network."]
    return [
        f"On {transfer_data(report)} {tally}:",
        *(_claim(verdict, report.cost) for verdict in compared),
        *_without_transfer(report),
    ]


def _without_transfer(report: StudyReport) -> list[str]:
    """Which networks of the finals are not trained there, or not from all seeds."""
    there = {standing.entrant.name for standing in report.transfer}
    left = [entrant.name for entrant in report.entrants if entrant.name not in there]
    return [f"Not trained there, or not from every seed: {', '.join(left)}."] if left else []


def _tally(compared: Sequence[Verdict], cost: Cost) -> str | None:
    """How often finalists win and lose against the published networks; None where there is nothing to compare."""
    answered = [verdict for verdict in compared if verdict.found is not None]
    if not answered:
        return None
    if all(verdict.spread is None for verdict in answered):
        return f"finalists of no more {cost.noun} have one seed each, which has no spread, so nothing is said of wins"
    beaten, lost = sum(verdict.beaten for verdict in answered), sum(verdict.lost for verdict in answered)
    return (
        f"finalists of no more {cost.noun} beat {beaten} of the {len(answered)} published networks that have one by more"
        f" than the spread, and lose to {lost}"
    )


def verdict_lines(report: StudyReport) -> list[str]:
    """What the search's answer is, and whether it beats the known networks: no more than the numbers say."""
    if report.believes:
        return [
            *best_lines(report.records, report.beliefs, report.cost, report.budgets),
            *comparison_lines(report.records, report.beliefs, report.cost),
            *_on_proxy(report),
        ]
    return _proxy_lines(report)


def _on_proxy(report: StudyReport) -> list[str]:
    """What the finals add where the answer does not rest on them."""
    if (tally := _tally(report.verdicts, report.cost)) is None:
        return []
    return [f"On the proxy's data, {report.space.proxy.dataset}, {tally}; that does not change the beliefs."]


def _proxy_lines(report: StudyReport) -> list[str]:
    if not report.standings:
        return []
    lines = [_best_line(report, budget) for budget in report.budgets]
    if (tally := _tally(report.verdicts, report.cost)) is not None:
        lines.append(f"{tally[0].upper()}{tally[1:]}:")
    return lines + [_claim(verdict, report.cost) for verdict in report.verdicts]


def _best_line(report: StudyReport, budget: float) -> str:
    """What validation prefers within a budget, beside the known network that it prefers there."""
    allowed = f"the budget of {report.cost.text(budget)} {report.cost.unit}"
    best, known = report.best(budget), report.best(budget, is_known=True)
    if best is None:
        return f"Within {allowed} there is no finalist whose trainings say something."
    if known is None:
        return f"Best within {allowed}: `{best.entrant.name}`, beside which no published network was trained."
    return f"Best within {allowed}: {_claim(Verdict(known, best), report.cost)}"


def _claim(verdict: Verdict, cost: Cost) -> str:
    known, found = verdict.known, verdict.found
    if found is None or verdict.gain is None:
        return f"`{known.entrant.name}`: no finalist is within its {cost.noun}, so nothing is claimed."
    spread = "one seed has no spread" if verdict.spread is None else f"spread {100 * verdict.spread:.2f}"
    points, one, other = f"{100 * abs(verdict.gain):.2f}", f"`{found.entrant.name}`", f"`{known.entrant.name}`"
    if verdict.beaten:
        claim = f"{one} beats {other} by {points} points on test"
    elif verdict.lost:
        claim = f"{one} loses to {other} by {points} points on test"
    else:
        claim = f"{one} is not shown to differ from {other}: {100 * verdict.gain:+.2f} points on test"
    ratio = cost.of(found.entrant.candidate) / cost.of(known.entrant.candidate)
    return f"{claim}, at {ratio:.2f}x its {cost.noun} ({spread})."


def budget_text(report: StudyReport) -> str:
    """All budgets, the smallest first."""
    return f"{', '.join(map(report.cost.text, report.budgets))} {report.cost.unit}"


def unbelieved_lines(report: StudyReport) -> list[str]:
    """That the evidence says nothing of some trained networks, which are in no table but trials.csv."""
    if not report.num_unbelieved:
        return []
    return [
        f"Of {report.num_unbelieved} of {len(report.trained)} trained networks nothing is believed: they lie too far from what"
        " was measured."
    ]
