"""What a study says, as tables and sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from meliuscli.arch.families import family_class
from meliuscli.data.names import WHOLE_OF
from meliuscli.report.believed import believed_table
from meliuscli.report.study import StudyReport
from meliuscli.report.study_sentences import (
    budget_text,
    chance_lines,
    transfer_data,
    transfer_lines,
    unbelieved_lines,
    verdict_lines,
)
from meliuscli.report.tables import Column, Table
from meliuscli.search.cost import OPS, Cost
from meliuscli.search.entrants import Entrant
from meliuscli.search.finals import Standing
from meliuscli.search.space import Candidate
from meliuscli.units import format_figure


def front_table(report: StudyReport) -> Table:
    """The Pareto front of beliefs, with the published networks beside it, or of the proxy trainings."""
    columns, cells = _cost_columns(report.cost)
    if report.believes:
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
    title = f"Transfer to {transfer_data(report)}, {_relation(report)}, {_seeds(report)}"
    return _standings_table(report, report.transfer, title, transfer_lines(report))


def _relation(report: StudyReport) -> str:
    """Of the data of the transfer to those of the search."""
    if report.settings.transfer == WHOLE_OF.get(report.space.proxy.dataset):
        return "a part of whose training images the proxy used"
    return "which the search never used"


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
            "found-N is trial N of the search"
            + (
                "; the others are published networks, trained the same way"
                if any(s.entrant.known_as for s in table)
                else ""
            ),
            "validation chooses, test is scored once a training; spread is the sample standard deviation over seeds",
            family_class(report.space.family).legend,
        ),
        lines=(*lines, *chance_lines(sum(s.num_at_chance for s in table), sum(len(s.test) for s in table))),
    )


def _cost_columns(cost: Cost) -> tuple[list[Column], Callable[[Candidate], list[str]]]:
    """Columns of the cost, and of OPs where that is another, and a candidate's cells in them."""
    costs = [cost] if cost is OPS else [cost, OPS]
    return [Column(one.unit) for one in costs], lambda candidate: [one.text(one.of(candidate)) for one in costs]


def _entrant_name(entrant: Entrant) -> str:
    return entrant.name if entrant.known_as else f"{entrant.name}: {entrant.candidate.spec.summary()}"


def study_tables(report: StudyReport) -> list[Table]:
    """What a search prints."""
    transfer = [transfer_table(report)] if report.transfer else []
    said = [*unbelieved_lines(report), *chance_lines(report.num_at_chance, len(report.trained))]
    if not report.standings:
        return [replace(front_table(report), lines=(*verdict_lines(report), *said)), *transfer]
    return [replace(front_table(report), lines=tuple(said)), *transfer, finals_table(report)]


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
                "believed": report.beliefs[r.candidate.archid].fields() if report.believes else None,
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
