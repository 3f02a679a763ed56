"""What a study says, as tables and sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from meliuscli.arch.families import family_class
from meliuscli.report.believed import believed_table, best_lines, comparison_lines, comparisons
from meliuscli.report.study import StudyReport
from meliuscli.report.tables import Column, Table
from meliuscli.search.cost import OPS, Cost
from meliuscli.search.entrants import Entrant
from meliuscli.search.finals import Standing, Verdict, verdicts
from meliuscli.search.space import Candidate
from meliuscli.units import format_figure


def front_table(report: StudyReport) -> Table:
    """The Pareto front of beliefs, with the published networks beside it, or of the proxy trainings."""
    columns, cells = _cost_columns(report.cost)
    if report.beliefs:
        against = f"believed ImageNet top-1 against {report.cost.noun}, budget {budget_text(report)}"
        title = f"Pareto front, and the published networks: {against}"
        legend = report.space.any_candidate.spec.legend
        return believed_table(report.front, report.records, report.beliefs, title, (columns, cells), legend)
    return Table(
        f"Pareto front: proxy accuracy against {report.cost.noun}, budget {budget_text(report)}",
        (
            Column("trial"),
            Column("network", numeric=False),
            *columns,
            Column("MiB"),
            Column("proxy top-1 %"),
        ),
        tuple(
            (
                record.number,
                record.known_as or record.candidate.spec.summary(),
                *cells(record.candidate),
                format_figure(record.candidate.count.size_bytes / 2**20),
                f"{100 * (record.accuracy or 0):.2f}",
            )
            for record in report.front
        ),
        notes=(
            "proxy top-1: validation split, one short training each; it ranks, and is not ImageNet accuracy",
            family_class(report.space.family).legend,
        ),
    )


def finals_table(report: StudyReport) -> Table:
    """Finalists and known networks, trained longer, best validation accuracy first."""
    title = f"Finals: trained longer on the proxy data, {_seeds(report)}"
    return _standings_table(report, report.standings, title, verdict_lines(report))


def _seeds(report: StudyReport) -> str:
    number = report.settings.final_seeds
    return f"n={number} seed{'' if number == 1 else 's'}"


def transfer_table(report: StudyReport) -> Table:
    """Finalists and known networks, trained on data that the search never used."""
    title = f"Transfer to {transfer_data(report)}, which the search never used, {_seeds(report)}"
    return _standings_table(report, report.transfer, title, transfer_lines(report))


def _standings_table(report: StudyReport, table: Sequence[Standing], title: str, lines: Sequence[str]) -> Table:
    columns, cells = _cost_columns(report.cost)
    return Table(
        title,
        (
            Column("network", numeric=False),
            *columns,
            Column("MiB"),
            Column("validation %"),
            Column("test %"),
            Column("± spread"),
        ),
        tuple(
            (
                _entrant_name(standing.entrant),
                *cells(standing.entrant.candidate),
                format_figure(standing.entrant.candidate.count.size_bytes / 2**20),
                f"{100 * standing.validation_mean:.2f}",
                f"{100 * standing.test_mean:.2f}",
                "" if standing.test_spread is None else f"{100 * standing.test_spread:.2f}",
            )
            for standing in table
        ),
        notes=(
            "found-N is trial N of the search; the others are published networks, trained the same way",
            "validation chooses, test is scored once a training; spread is the sample standard deviation over seeds",
            family_class(report.space.family).legend,
        ),
        lines=(*lines, *_chance_lines(sum(s.num_at_chance for s in table), sum(len(s.test) for s in table))),
    )


def _chance_lines(number: int, trainings: int) -> list[str]:
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
    return [f"On {transfer_data(report)} {tally}:", *(_claim(verdict, report.cost) for verdict in compared)]


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
    if report.beliefs:
        return [
            *best_lines(report.records, report.beliefs, report.cost, report.budgets),
            *comparison_lines(comparisons(report.records, report.beliefs, report.cost), report.beliefs, report.cost),
            *_on_proxy(report),
        ]
    return _proxy_lines(report)


def _on_proxy(report: StudyReport) -> list[str]:
    """What the finals add where the answer does not rest on them."""
    if (tally := _tally(report.verdicts, report.cost)) is None:
        return []
    return [f"On the proxy's data, {report.space.proxy.dataset}, {tally}; that does not change the beliefs."]


def _proxy_lines(report: StudyReport) -> list[str]:
    lines = []
    best, known = report.best, next((s for s in report.standings if s.entrant.known_as is not None), None)
    if best is not None and known is not None:
        lines.append(f"Best within the budget of {budget_text(report)}: {_claim(Verdict(known, best), report.cost)}")
    if report.verdicts:
        beaten = sum(verdict.beaten for verdict in report.verdicts)
        lines.append(
            f"At no more {report.cost.noun} the search beat {beaten} of {len(report.verdicts)} known networks by more than"
            " the spread:"
        )
    lines += [_claim(verdict, report.cost) for verdict in report.verdicts]
    return lines


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


def _cost_columns(cost: Cost) -> tuple[list[Column], Callable[[Candidate], list[str]]]:
    """Columns of the cost, and of OPs where that is another, and a candidate's cells in them."""
    costs = [cost] if cost is OPS else [cost, OPS]
    return [Column(one.unit) for one in costs], lambda candidate: [one.text(one.of(candidate)) for one in costs]


def budget_text(report: StudyReport) -> str:
    """All budgets, the smallest first."""
    return f"{', '.join(map(report.cost.text, report.budgets))} {report.cost.unit}"


def _entrant_name(entrant: Entrant) -> str:
    return entrant.name if entrant.known_as else f"{entrant.name}: {entrant.candidate.spec.summary()}"


def study_tables(report: StudyReport) -> list[Table]:
    """What a search prints."""
    transfer = [transfer_table(report)] if report.transfer else []
    at_chance = _chance_lines(report.num_at_chance, len(report.trained))
    if not report.standings:
        return [replace(front_table(report), lines=(*verdict_lines(report), *at_chance)), *transfer]
    return [replace(front_table(report), lines=tuple(at_chance)), *transfer, finals_table(report)]


def study_value(report: StudyReport) -> dict[str, Any]:
    """What a search answers, as JSON values."""
    return {
        "study": str(report.directory),
        "front": [
            {
                "trial": r.number,
                "archid": r.candidate.archid,
                **_costs(report, r.candidate),
                "proxy_top1": r.accuracy,
                "believed": report.beliefs[r.candidate.archid].fields() if report.beliefs else None,
            }
            for r in report.front
        ],
        "finals": _standings(report, report.standings),
        "transfer": _standings(report, report.transfer),
        "at_chance": report.num_at_chance,
        "answers_for": report.answers_for,
        "verdicts": verdict_lines(report) + (transfer_lines(report) if report.transfer else []),
    }


def _costs(report: StudyReport, candidate: Candidate) -> dict[str, float]:
    return {report.cost.key: report.cost.of(candidate), "ops": candidate.ops}


def _standings(report: StudyReport, table: Sequence[Standing]) -> list[dict[str, Any]]:
    return [
        {
            "name": s.entrant.name,
            "archid": s.entrant.candidate.archid,
            **_costs(report, s.entrant.candidate),
            "validation_top1": s.validation,
            "test_top1": s.test,
            "at_chance": s.num_at_chance,
        }
        for s in table
    ]
