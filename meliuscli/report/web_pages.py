"""The web pages of a run, of a check of proxies, and of a comparison of networks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from meliuscli.report.chart import Chart, Curve, Mark
from meliuscli.report.check_report import CheckReport
from meliuscli.report.compare import compare_table
from meliuscli.report.counted import Counted, View
from meliuscli.report.reached import PUBLISHED, Reached, Reaches, reaches
from meliuscli.report.runs import run_table
from meliuscli.report.study_web import spent_shares
from meliuscli.report.web_page import Code, Content, WebSection, document
from meliuscli.runs import Run
from meliuscli.search.pareto import front
from meliuscli.units import format_count


def run_web_page(run: Run) -> str:
    """A recorded training: its table, its curves, and where it comes from."""
    fields = run.fields
    sections = [
        WebSection("Result", (run_table(run),)),
        WebSection("Learning curves", (curves(fields), losses(fields))),
        WebSection(
            "To repeat it", (Code(str(fields["origin"]["command"])), Code(json.dumps(fields["origin"], indent=2)))
        ),
    ]
    return document(f"Run {run.id}: {fields['arch']}", f"Made at {fields['origin']['time']}", sections)


def curves(fields: dict[str, Any]) -> Chart:
    """Validation top-1 of a recorded run, a line a seed."""
    marks, curves = [], []
    for one in fields["runs"]:
        points = [(float(entry["epoch"]), 100 * float(entry["validation_top1"])) for entry in one["curve"]]
        curves.append(Curve(tuple(points), "found", text=f"seed {one['seed']}"))
        marks += [Mark(x, y, f"seed {one['seed']}, epoch {x:g}: {y:.2f} %", "front") for x, y in points]
    return Chart(
        "Validation after each epoch, a line a seed", "epoch", "validation top-1 (%)", tuple(marks), tuple(curves)
    )


def losses(fields: dict[str, Any]) -> Chart:
    """Losses of a recorded run in training and validation."""
    curves = [
        Curve(
            tuple((float(entry["epoch"]), float(entry[key])) for entry in one["curve"]),
            kind,
            text=f"seed {one['seed']}, {key.replace('_', ' ')}",
        )
        for one in fields["runs"]
        for key, kind in (("train_loss", "front"), ("validation_loss", "found"))
    ]
    legend = "In the front's colour: the mean training loss since the entry before; in grey: the validation loss."
    return Chart("Losses, a line a seed", "epoch", "loss (nats)", (), tuple(curves), legend=legend)


def check_web_page(name: str, report: CheckReport, command: str, state: str) -> str:
    """A check of proxies: its table, and how much each score says beyond OPs against what it costs."""
    chart = _scores(report.value["rows"])
    contents: tuple[Content, ...] = (report.table, chart) if chart.marks else (report.table,)
    sections = [WebSection("Answer", contents), WebSection("To repeat it", (Code(command),))]
    return document(f"Check {name}", f"Made by {command}; {state}", sections)


def _scores(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """A mark a score, with its interval: how well it ranks networks of equal OPs, against the seconds that it takes."""
    marks = []
    for row in rows:
        name, tau, seconds = row.get("proxy", row.get("score")), row["tau_given_ops"], row["seconds"]
        low, high = (row.get(f"interval_{end}", row.get(f"ops_{end}")) for end in ("low", "high"))
        if tau is None or seconds is None:
            continue
        interval = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
        kind = "published" if row["kind"] == "free" else "front" if row["kind"] == "trained" else "found"
        text = f"{name}: tau given OPs {tau:.2f}{interval}, {seconds:.1f} s"
        shown = name if row["kind"] != "free" else ""
        marks.append(Mark(seconds, tau, text, kind, shown, low if interval else None, high if interval else None))
    legend = (
        "In the front's colour: proxies; in grey: what is read off the long training, or before any; squares: free numbers."
        " Bars are 90 % intervals; one that holds 0 may say nothing beyond OPs."
    )
    title = "How well a score ranks networks of equal OPs, against its cost"
    return Chart(title, "seconds", "tau given OPs", tuple(marks), legend=legend)


def comparison_web_page(networks: Sequence[Counted], view: View, command: str) -> str:
    """Networks side by side, published accuracy against our OPs, and where each one spends."""
    contents: list[Content] = [compare_table(networks, view)]
    contents += _reached_charts(reaches(networks, view), view)
    spent = tuple(
        part
        for one in networks[:MOST_SPENT]
        if one.spec is not None
        for part in (f"`{one.name}`", spent_shares(one.spec))
    )
    sections = [
        WebSection("Costs", tuple(contents)),
        WebSection("Where they spend", spent),
        WebSection("To repeat it", (Code(command),)),
    ]
    return document(f"{len(networks)} networks compared", f"Made by {command}", sections)


MOST_SPENT = 12
"""Networks of which the parts are shown; more than these nobody reads."""


def _reached_charts(known: Reaches, view: View) -> tuple[Content, ...]:
    """A chart for the published accuracies and one for the runs on each data set, and who is in none of them."""
    charts = tuple(_reached_chart(what, points, view) for what, points in known.panels.items())
    absent = [*known.missing, *(name for name, _ in known.untrained)]
    if not absent:
        return charts
    where = "in no chart" if charts else "no chart is here"
    names = ", ".join(f"`{name}`" for name in absent)
    return (*charts, f"Without a published top-1 or one of a run, {where}: {names}.")


def _reached_chart(what: str, points: Sequence[Reached], view: View) -> Chart:
    best = front([(point.ops / 1e6, point.top1) for point in points])
    marks = tuple(
        _reached_mark(point, "front" if index in best else "found", what) for index, point in enumerate(points)
    )
    curve = Curve(
        tuple((points[index].ops / 1e6, points[index].top1) for index in best), steps=True, text="Pareto front"
    )
    legend = (
        "Accuracies are their papers' own: recipes, epochs and teachers differ."
        if what == PUBLISHED
        else "Means over seeds on the test images; a bar is the sample deviation on both sides."
    )
    title = f"{what[0].upper()}{what[1:]} against our count"
    return Chart(title, f"{view.convention.unit} by our count (millions)", what, marks, (curve,), legend=legend)


def _reached_mark(point: Reached, kind: str, what: str) -> Mark:
    ops, spread = point.ops / 1e6, point.spread
    low, high = (None, None) if spread is None else (point.top1 - spread, point.top1 + spread)
    said = f"{point.top1:g} % as published" if what == PUBLISHED else f"{point.top1:.2f} %"
    return Mark(ops, point.top1, f"{point.name}: {format_count(point.ops)}, {said}", kind, point.name, low, high)
