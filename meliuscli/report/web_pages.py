"""The web pages of a run, of a check of proxies, and of a comparison of networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from meliuscli.report.chart import Chart, Curve, Mark
from meliuscli.report.compare import compare_table
from meliuscli.report.count import Counted, View
from meliuscli.report.published import best_published
from meliuscli.report.runs import run_table
from meliuscli.report.study_web import spent_shares
from meliuscli.report.tables import Table
from meliuscli.report.web_page import Code, Content, WebSection, document
from meliuscli.runs import Run
from meliuscli.search.pareto import front


def run_web_page(run: Run) -> str:
    """A recorded training: its table, its curves, and where it comes from."""
    fields = run.fields
    sections = [
        WebSection("Result", (run_table(run),)),
        WebSection("Learning curves", (_curves(fields),)),
        WebSection(
            "To repeat it", (Code(str(fields["origin"]["command"])), Code(json.dumps(fields["origin"], indent=2)))
        ),
    ]
    return document(f"Run {run.id}: {fields['arch']}", f"Made at {fields['origin']['time']}", sections)


def _curves(fields: dict[str, Any]) -> Chart:
    marks, curves = [], []
    for one in fields["runs"]:
        points = [(float(entry["epoch"]), 100 * float(entry["validation_top1"])) for entry in one["curve"]]
        curves.append(Curve(tuple(points), "found", text=f"seed {one['seed']}"))
        marks += [Mark(x, y, f"seed {one['seed']}, epoch {x:g}: {y:.2f} %", "front") for x, y in points]
    return Chart(
        "Validation after each epoch, a line a seed", "epoch", "validation top-1 (%)", tuple(marks), tuple(curves)
    )


def check_web_page(name: str, table: Table, command: str, state: str) -> str:
    """A check of proxies: its table."""
    sections = [WebSection("Answer", (table,)), WebSection("To repeat it", (Code(command),))]
    return document(f"Check {name}", f"Made by {command}; {state}", sections)


def comparison_web_page(networks: Sequence[Counted], view: View, command: str) -> str:
    """Networks side by side, published accuracy against our OPs, and where each one spends."""
    contents: list[Content] = [compare_table(networks, view)]
    chart = _published(networks, view)
    if chart.marks:
        contents.append(chart)
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


def _published(networks: Sequence[Counted], view: View) -> Chart:
    points = []
    for network in networks:
        row = best_published(network.published)["top1"]
        ops = view.convention.derive(network.count.total, view.float_bits).ops
        if row is not None and ops is not None:
            points.append((network.name, ops / 1e6, float(row.top1)))
    best = front([(ops, top1) for _, ops, top1 in points])
    marks = tuple(
        Mark(ops, top1, f"{name}: {ops:.2f}M, {top1:g} % as published", "front" if index in best else "found", name)
        for index, (name, ops, top1) in enumerate(points)
    )
    curve = Curve(tuple((points[index][1], points[index][2]) for index in best), steps=True, text="Pareto front")
    legend = "Accuracies are their papers' own: recipes, epochs and teachers differ."
    x_label = f"{view.convention.unit} by our count (millions)"
    title = "Published accuracy against our count"
    return Chart(title, x_label, "published ImageNet top-1 (%)", marks, (curve,) if best else (), legend=legend)
