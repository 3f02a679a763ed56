"""The report of a check: its table, a sentence a proxy, a plot of each against the long training, and a page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from meliuscli.report.check_report import CheckReport
from meliuscli.report.figures import encode, subplots
from meliuscli.report.study_page import left_out_line
from meliuscli.report.tables import Column, Table, to_csv, to_markdown
from meliuscli.report.ways import describe_way, teacher_lines
from meliuscli.results import write_bytes, write_text
from meliuscli.search.check import Check
from meliuscli.search.plan import LONG
from meliuscli.search.trust import ENOUGH_NETWORKS, LEVEL, MIN_NETWORKS, RESAMPLES
from meliuscli.search.verdicts import Row
from meliuscli.units import format_count

NOTES = (
    "accuracies: validation top-1; points: percentage points of it; s each: wall time of a training",
    "given OPs: tau-b of what a line in log OPs leaves of both (logarithms of the free numbers), with the bootstrap"
    f" interval over networks ({100 * LEVEL:g} %, {RESAMPLES} resamples)",
    "regret: the best long accuracy minus that of the network ranked first, and of the best in the quarter ranked first",
    "error: leave-one-out error, in points, of a ridge regression on the free numbers and this one (free: without it)",
    "own trainings are judged by the mean of two long ones of other seeds; what is read off a long training is judged by"
    " the other seed's end alone, so its figures, the ceiling's too, carry more noise",
)


def check_table(check: Check, rows: Sequence[Row]) -> Table:
    """A row for each proxy and free number."""
    return Table(
        f"Does it rank {len(check.networks)} networks of {check.plan.space} as the long training does?",
        (
            Column("proxy", numeric=False),
            Column("s each"),
            Column("of long"),
            Column("n", optional=True),
            Column("tau"),
            Column("given OPs"),
            Column(f"{100 * LEVEL:g} %"),
            Column("regret"),
            Column("of quarter", optional=True),
            Column("error"),
            Column("free"),
        ),
        tuple(_cells(row) for row in rows),
        notes=NOTES,
        lines=sentences(rows),
        records=tuple(record(row) for row in rows),
    )


def _cells(row: Row) -> tuple[str | int, ...]:
    trust = row.trust
    interval = "" if trust.interval is None else f"{trust.interval[0]:.2f} to {trust.interval[1]:.2f}"
    return (
        row.name,
        _number(row.seconds, 1) if row.seconds else "",
        f"{100 * row.share:.0f} %" if row.share > 0 else "",
        trust.n,
        _number(trust.tau, 2),
        _number(trust.tau_given_ops, 2),
        interval,
        *(_number(100 * value, 2) for value in (trust.regret, trust.regret_of_quarter, trust.error, trust.free_error)),
    )


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def record(row: Row) -> dict[str, str | float | int | None]:
    """A row's raw values, None where there is none; for CSV and JSON."""
    trust = row.trust
    low, high = trust.interval or (None, None)
    return {
        "proxy": row.name,
        "kind": row.kind,
        "seconds": _finite(row.seconds),
        "share_of_long": _finite(row.share),
        "n": trust.n,
        "failed": row.num_failed,
        "at_chance": row.num_at_chance,
        "tau": _finite(trust.tau),
        "tau_given_ops": _finite(trust.tau_given_ops),
        "interval_low": low,
        "interval_high": high,
        "regret": _finite(trust.regret),
        "regret_of_quarter": _finite(trust.regret_of_quarter),
        "error": _finite(trust.error),
        "free_error": _finite(trust.free_error),
        "adds_to_free_numbers": None if row.kind == "free" else trust.adds_to_free,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def sentences(rows: Sequence[Row]) -> tuple[str, ...]:
    """What follows from the rows of trainings, one each."""
    ops = next((row.trust.tau for row in rows if row.kind == "free" and row.name == "OPs"), math.nan)
    return tuple(sentence(row, ops) for row in rows if row.kind != "free")


def sentence(row: Row, tau_of_ops: float = math.nan) -> str:
    """What follows from a row, and no more than its numbers say."""
    trust = row.trust
    failed = f" {row.num_failed} trainings failed and are left out." if row.num_failed else ""
    failed += f" {row.num_at_chance} trainings ended at chance." if row.num_at_chance else ""
    if trust.n < MIN_NETWORKS:
        return f"{row.name}: nothing can be said: {trust.n} networks have all trainings.{failed}"
    if trust.interval is None:
        return f"{row.name}: nothing can be said beyond OPs: there is nothing to rank.{failed}"
    if row.kind == "ceiling":
        seeds = f"one long training ranks as one of another seed does with tau {trust.tau:.2f}"
        return f"{row.name}: the ceiling: {seeds}, {trust.tau_given_ops:.2f} given OPs.{failed}"
    low, high = trust.interval
    if trust.n < ENOUGH_NETWORKS:
        return f"{row.name}: {trust.n} networks are too few for a verdict ({ENOUGH_NETWORKS} are needed).{failed}"
    errors = f"{100 * trust.free_error:.2f} to {100 * trust.error:.2f} points"
    if not trust.beyond_ops:
        said = f"is not shown to rank beyond OPs: tau given OPs may be anything from {low:.2f} to {high:.2f}."
    elif trust.adds_to_free:
        said = (
            f"adds to the free numbers: it ranks beyond OPs (at least {low:.2f}) and takes their error from {errors}."
        )
    else:
        said = f"ranks beyond OPs (at least {low:.2f}) but adds nothing to the free numbers: their error goes from {errors}."
    alone = f" Alone it ranks worse than OPs do (tau {tau_of_ops:.2f})." if trust.tau < tau_of_ops else ""
    return f"{row.name}: {said}{alone}{failed}"


def write_report(check: Check, rows: Sequence[Row]) -> CheckReport:
    """report.md, check.csv and the plot, beside check.json."""
    write_text(check.directory / "check.csv", to_csv(check_table(check, rows)))
    for suffix in ("png", "svg"):
        write_bytes(check.directory / f"check.{suffix}", plot(check, rows, suffix))
    write_text(check.directory / "report.md", markdown(check, rows))
    return reported(check, rows)


def reported(check: Check, rows: Sequence[Row]) -> CheckReport:
    """The answer of a check."""
    return CheckReport(
        check.directory, check_table(check, rows), to_value(check, rows), rows[0].trust.n, check.plan.against
    )


def plot(check: Check, rows: Sequence[Row], suffix: str) -> bytes:
    """Each trained proxy and prefix against the long training, coloured by OPs."""
    drawn = [row for row in rows if row.kind != "free"]
    columns = min(3, len(drawn))
    lines = -(-len(drawn) // columns)
    figure, axes = subplots(
        lines,
        columns,
        figsize=(3.6 * columns + 1, 3.2 * lines),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    ops = np.array([candidate.ops / 1e6 for candidate in check.networks])
    colours = {"c": ops, "norm": "log", "vmin": ops.min(), "vmax": ops.max(), "cmap": "viridis"}
    for place, row in zip(axes.flat, drawn, strict=False):
        for scores, truths in zip(row.scores, row.truths, strict=True):
            points = place.scatter(100 * scores, 100 * truths, **colours, s=18)
        place.set_title(f"{row.name}: tau {_number(row.trust.tau, 2)}", fontsize=9)
        place.set_xlabel("validation top-1 (%)", fontsize=8)
        place.grid(alpha=0.25)
    for place in axes.flat[len(drawn) :]:
        place.set_visible(False)
    for place in axes[:, 0]:
        place.set_ylabel("long training, top-1 (%)", fontsize=8)
    figure.colorbar(points, ax=axes, label="OPs at the target input (millions)")
    return encode(figure, suffix)


def markdown(check: Check, rows: Sequence[Row]) -> str:
    """report.md."""
    plan = check.plan
    budget = "" if plan.budget is None else f" of at most {format_count(plan.budget)} OPs"
    low, high = (format_count(pick(c.ops for c in check.networks)) for pick in (min, max))
    first, second = plan.long_seeds
    read_off = ", ".join(f"{100 * fraction:g} %" for fraction in plan.fractions) or "nothing"
    done = [
        f"- {len(check.networks)} different networks of the space `{plan.space}`{budget}, from {low} to {high} OPs at the"
        f" target input, spread over equal parts of log OPs (seed {plan.seed}).",
        f"- {LONG}, from seeds {first} and {second}: {describe_way(plan.long)}",
        *(f"- {name}, from seed {plan.seed}: {describe_way(way)}" for name, way in plan.proxies.items()),
        *teacher_lines(check),
        f"- Read off the long training's own curve, at a part of its steps (its learning rate not yet annealed): {read_off}."
        " No training is judged by itself: the first seed's curve is judged by the second's end, and the other way round.",
        "- Everything is scored on validation splits; no test split was looked at.",
        *(left_out_line(name, facts.left_out) for name, facts in check.data.items() if facts.left_out is not None),
    ]
    parts = [
        f"# Check `{check.directory.name}`",
        f"Made by `{check.origin['command']}` at {check.origin['time']}.",
        to_markdown(check_table(check, rows)),
        "![each proxy against the long training](check.png)",
        "## What was done",
        "\n".join(done),
        "## To repeat it",
        "The command above, with the versions below; what it was given is here as `space.toml` and, where proxies were"
        " asked for, `check.toml`. `check.json` has every training's result, `check.csv` the table's raw values.",
        "```json\n" + json.dumps({"data": check.content()["data"], **check.origin}, indent=2) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def to_value(check: Check, rows: Sequence[Row]) -> dict[str, Any]:
    """The answer as JSON values."""
    return {
        "check": str(check.directory),
        "plan": check.plan.model_dump(mode="json"),
        "rows": [record(row) for row in rows],
        "sentences": list(sentences(rows)),
    }
