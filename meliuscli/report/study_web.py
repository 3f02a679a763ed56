"""The web page of a study: the answer, the front with intervals, where the best network spends, every trial, how to repeat it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from itertools import accumulate

from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import MELIUS
from meliuscli.report.background import beliefs, proxies
from meliuscli.report.believed import preferred
from meliuscli.report.chart import Chart, Curve, Mark
from meliuscli.report.study import StudyReport, best_found
from meliuscli.report.study_page import best_files, repeat_command
from meliuscli.report.study_sentences import budget_text, verdict_lines
from meliuscli.report.study_tables import study_tables
from meliuscli.report.tables import Cell, Column, Table
from meliuscli.report.web_page import Code, Shares, WebSection, document
from meliuscli.search.cost import OPS
from meliuscli.search.records import TrialRecord
from meliuscli.units import format_count, format_figure, format_ms


def study_web_page(report: StudyReport, state: str = "") -> str:
    """The page, as the text of one HTML file."""
    sections = [
        WebSection("Answer", (report.answers_for, *verdict_lines(report), *_best(report))),
        WebSection("The front", (front_chart(report), *(table_without_lines(one) for one in study_tables(report)))),
        WebSection("Trials over time", (_over_time(report),)),
        WebSection("Where the best network spends", _spent(report)),
        WebSection("How far it can be trusted", _trust(report)),
        WebSection("All trials", (_trials(report),)),
        WebSection("To repeat it", _again(report)),
    ]
    made = f"Made by {report.origin['command']} at {report.origin['time']}"
    return document(f"Search {report.directory.name}", f"{made}; {state}" if state else made, sections)


def table_without_lines(table: Table) -> Table:
    """The sentences stand in the answer."""
    return Table(table.title, table.columns, table.rows, table.total, table.notes, records=table.records)


def _best(report: StudyReport) -> list[str]:
    names = list(best_files(report))
    return [f"The network is in {', '.join(f'`{name}`' for name in names)} of the study's folder."] if names else []


def _y_label(report: StudyReport) -> str:
    return "believed ImageNet top-1 (%)" if report.believes else "proxy validation top-1 (%)"


def _cost_scale(report: StudyReport) -> tuple[float, str]:
    return (1e6, f"{report.cost.noun} (millions)") if report.cost is OPS else (1e-3, "latency (ms)")


def _mark(report: StudyReport, record: TrialRecord, on_front: bool, name: str) -> Mark:
    belief = report.beliefs.get(record.candidate.archid)
    said = f"believed {belief} %, " if belief is not None else ""
    cost = f"{report.cost.text(report.cost.of(record.candidate))} {report.cost.unit}"
    told = f"{record.name}: {record.candidate.spec.summary()}; {cost}, {said}proxy {100 * (record.accuracy or 0):.2f} %"
    kind = "published" if record.known_as else "front" if on_front else "found"
    low, high = (None, None) if belief is None else (belief.low, belief.high)
    x = report.cost.of(record.candidate) / _cost_scale(report)[0]
    return Mark(x, report.percent(record), told, kind, name, low, high)


def front_chart(report: StudyReport) -> Chart:
    """Every trained candidate against its cost, with believed intervals, the front and the budgets."""
    scale, x_label = _cost_scale(report)
    on_front, named = ({record.number for record in some} for some in (report.front, report.named))
    marks = [_mark(report, r, r.number in on_front, r.name if r.number in named else "") for r in report.drawn]
    steps = [(cost / scale, value) for cost, value in report.front_line]
    curves = (Curve(tuple(steps), steps=True, text="Pareto front"),) if steps else ()
    limits = tuple((budget / scale, f"{report.cost.text(budget)} {report.cost.unit}") for budget in report.budgets)
    legend = "Squares are published networks, circles found ones; those on the front are drawn in its colour."
    intervals = " Bars are 90 % intervals of the belief." if report.believes else ""
    title = f"{len(marks)} trained candidates of the space {report.settings.space}"
    return Chart(title, x_label, _y_label(report), tuple(marks), curves, limits, legend + intervals)


def _over_time(report: StudyReport) -> Chart:
    marks = tuple(
        Mark(
            r.number,
            report.percent(r),
            f"trial {r.number}, {r.name}: {report.percent(r):.2f} %",
            "published" if r.known_as else "found",
        )
        for r in report.drawn
    )
    best = list(accumulate((mark.y for mark in marks), max))
    curve = Curve(tuple((mark.x, y) for mark, y in zip(marks, best, strict=True)), steps=True, text="best so far")
    legend = "The line is the best so far; published networks come first."
    return Chart("Every trial in its order", "trial", _y_label(report), marks, (curve,) if marks else (), (), legend)


def _spent(report: StudyReport) -> tuple[Shares | str, ...]:
    found = best_found(report, report.budgets[-1])
    if found is None:
        return ("The search trained no network of its own.",)
    by_stage = report.cost.by_stage
    said = () if by_stage else ("How many milliseconds it takes here is measured by `meliuscli bench best.toml`.",)
    legend = f"`{found.spec.summary()}`, {found.spec.legend}."
    return (legend, spent_shares(found.spec), *([_time_shares(by_stage(found))] if by_stage else said))


def _time_shares(seconds: Mapping[str, float]) -> Shares:
    """Stage by stage: milliseconds of one image."""
    whole = sum(seconds.values())
    rows = tuple(
        (name, ((value / whole, f"{100 * value / whole:.1f} % ({format_ms(value)} ms)"),))
        for name, value in seconds.items()
    )
    return Shares(f"Its {format_ms(whole)} ms; call is what an image takes besides the stages", ("time",), rows)


def spent_shares(spec: ArchSpec) -> Shares:
    """Stage by stage: OPs, and the bytes of its weights."""
    count = count_spec(spec)
    rows = [(row, MELIUS.derive(row).ops or 0) for row in count.rows("stage")]
    ops, size = sum(value for _, value in rows), sum(row.size_bytes for row, _ in rows)
    return Shares(
        "Its parts",
        ("OPs", "bytes"),
        tuple(
            (
                row.name,
                (
                    (value / ops if ops else 0.0, f"{100 * value / ops if ops else 0:.1f} % ({format_count(value)})"),
                    (row.size_bytes / size, f"{100 * row.size_bytes / size:.1f} % ({row.size_bytes:,})"),
                ),
            )
            for row, value in rows
        ),
    )


def _trust(report: StudyReport) -> tuple[str, ...]:
    words = [str(part) for part in (beliefs()[0], beliefs()[2]) if report.believes]
    best = preferred(report.records, report.beliefs, report.cost, report.budgets[-1]) if report.believes else None
    role = str(proxies()[2]) if report.believes else str(proxies()[3])
    said = (
        []
        if best is None
        else [
            f"`{best.name}` is preferred for the lower end of its interval, {report.beliefs[best.candidate.archid].low:.1f} %."
        ]
    )
    return (*words, *said, str(proxies()[0]), role)


def _trials(report: StudyReport) -> Table:
    numeric = (
        "trial",
        report.cost.unit,
        "MiB",
        "params",
        *(("low", "believed %", "high") if report.believes else ()),
        "proxy %",
        "seconds",
    )
    heads = (numeric[0], "name", "network", *numeric[1:])
    return Table(
        f"{len(report.records)} trials, budget {budget_text(report)}",
        tuple(Column(head, numeric=head in numeric) for head in heads),
        tuple(_cells(report, record) for record in report.records),
        notes=(report.space.any_candidate.spec.legend,),
    )


def _cells(report: StudyReport, record: TrialRecord) -> tuple[Cell, ...]:
    total, belief = record.candidate.count, report.beliefs.get(record.candidate.archid)
    believed = (
        ()
        if not report.believes
        else ("",) * 3
        if belief is None
        else tuple(f"{v:.2f}" for v in (belief.low, belief.top1, belief.high))
    )
    return (
        record.number,
        record.name,
        record.candidate.spec.summary(),
        report.cost.text(report.cost.of(record.candidate)),
        format_figure(total.size_bytes / 2**20),
        total.params,
        *believed,
        record.reason or "" if record.accuracy is None else f"{100 * record.accuracy:.2f}",
        "" if record.result is None else f"{record.result.seconds:.1f}",
    )


def _again(report: StudyReport) -> tuple[str | Code, ...]:
    folder = str(report.directory)
    after = [f"meliuscli {word} {shlex.quote(f'{folder}/best.toml')}" for word in ("count", "train", "export")]
    return (
        "The same study again, in the directory that it was made in, with the versions below:",
        Code(repeat_command(report)),
        *(("What can be done with the answer:", Code("\n".join(after))) if best_files(report) else ()),
        Code(json.dumps(report.origin, indent=2)),
    )
