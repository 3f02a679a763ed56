"""Plots in characters, for terminals: the front of a study, the learning curves of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meliuscli.report.study import StudyReport
    from meliuscli.search.records import TrialRecord


NARROWEST, WIDEST, HEIGHT = 60, 110, 16
"""Columns of a terminal below which nothing is drawn, and above which it gets no wider; rows of the plot."""


@dataclass(frozen=True, slots=True)
class Characters:
    """What marks are drawn with."""

    found: str
    front: str
    published: str
    step: str
    budget: str
    corner: str
    axis: str


UNICODE = Characters("·", "●", "■", "─", "┊", "└", "│")
ASCII = Characters(".", "o", "#", "-", ":", "+", "|")


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values between ``low`` and ``high`` to cells from 0 to ``cells - 1``."""

    low: float
    high: float
    cells: int

    def cell(self, value: float) -> int:
        part = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return min(self.cells - 1, max(0, round(part * (self.cells - 1))))


def front_drawing(report: StudyReport, width: int, with_unicode: bool) -> str:
    """What the search maximises against cost, on a logarithmic axis; empty for a terminal of less than ``NARROWEST``
    columns, and where nothing was trained."""
    trained = report.drawn
    if width < NARROWEST or not trained:
        return ""
    drawn = UNICODE if with_unicode else ASCII
    costs = [report.cost.of(record.candidate) for record in trained]
    values = [report.percent(record) for record in trained]
    x = _Scale(math.log(min(costs)), math.log(max(*costs, report.settings.budget)), _cells(width))
    y = _Scale(min(values), max(values), HEIGHT)
    grid = [[" "] * x.cells for _ in range(y.cells)]
    _draw_marks(grid, report, x, y, drawn)
    head = f"{'believed ImageNet top-1 %' if report.believes else 'proxy top-1 %'} against {report.cost.unit}"
    low, high = (report.cost.text(math.exp(end)) for end in (x.low, x.high))
    legend = f"{drawn.front} front   {drawn.found} found   {drawn.published} published   {drawn.budget} budget"
    return _framed(grid, y, (head, low, high, legend), drawn)


def curves_drawing(fields: dict[str, Any], width: int, with_unicode: bool) -> str:
    """Validation top-1 of a recorded run after each epoch, a digit a seed; empty as ``front_drawing`` is, and for a run of
    fewer than two validations."""
    curves = {
        one["seed"]: [(float(entry["epoch"]), 100 * float(entry["validation_top1"])) for entry in one.get("curve", ())]
        for one in fields["runs"]
    }
    points = [point for curve in curves.values() for point in curve]
    epochs, values = {epoch for epoch, _ in points}, [value for _, value in points]
    if width < NARROWEST or len(epochs) < 2:
        return ""
    x, y = _Scale(min(epochs), max(epochs), _cells(width)), _Scale(min(values), max(values), HEIGHT)
    grid = [[" "] * x.cells for _ in range(y.cells)]
    for seed, curve in curves.items():
        for epoch, value in curve:
            grid[y.cell(value)][x.cell(epoch)] = str(seed)[-1]
    legend = "a digit is the seed, or its last digit"
    words = ("validation top-1 % against epochs", f"{x.low:g}", f"{x.high:g}", legend)
    return _framed(grid, y, words, UNICODE if with_unicode else ASCII)


MARGIN = 7
"""Columns for the numbers on the left."""


def _cells(width: int) -> int:
    return min(width, WIDEST) - MARGIN - 1


def _framed(grid: Sequence[Sequence[str]], y: _Scale, words: tuple[str, str, str, str], drawn: Characters) -> str:
    """A grid, whose first row is the lowest, with axes; ``words`` are the head, both ends of the axis below, the legend."""
    head, low, high, legend = words
    middle = y.cells // 2
    labels = {y.cells - 1: y.high, middle: y.low + (y.high - y.low) * middle / (y.cells - 1), 0: y.low}
    rows = []
    for row in reversed(range(y.cells)):
        label = f"{labels[row]:{MARGIN - 1}.1f} " if row in labels else " " * MARGIN
        rows.append(f"{label}{drawn.axis}{''.join(grid[row])}".rstrip())
    cells = len(grid[0])
    below = f"{' ' * (MARGIN + 1)}{low}{high:>{cells - len(low)}}"
    return "\n".join([head, *rows, f"{' ' * MARGIN}{drawn.corner}{drawn.step * cells}", below, legend, ""])


def _draw_marks(grid: list[list[str]], report: StudyReport, x: _Scale, y: _Scale, drawn: Characters) -> None:
    """The budgets, the front's steps, every mark, and the names that there is room for."""

    def place(record: TrialRecord) -> tuple[int, int]:
        return y.cell(report.percent(record)), x.cell(math.log(report.cost.of(record.candidate)))

    for budget in report.budgets:
        for line in grid:
            line[x.cell(math.log(budget))] = drawn.budget
    front = [place(record) for record in report.front]
    ends = [column for _, column in front[1:]] + [x.cells]
    for (row, column), end in zip(front, ends, strict=True):
        grid[row][column:end] = drawn.step * (end - column)
    marks = [(record, place(record)) for record in report.trained]
    for record, (row, column) in sorted(marks, key=lambda mark: mark[1] in front):
        is_known = record.known_as is not None
        grid[row][column] = drawn.published if is_known else drawn.front if (row, column) in front else drawn.found
    for record in report.named:
        row, column = place(record)
        _write_beside(grid[row], column, record.name, drawn)


def _write_beside(line: list[str], column: int, name: str, drawn: Characters) -> None:
    """A name on the right of its mark, or on its left, over nothing but steps and empty cells."""
    free: Sequence[str] = (" ", drawn.step, drawn.budget)
    for start in (column + 2, column - 1 - len(name)):
        cells = line[max(0, start - 1) : start + len(name) + 1]
        beside = [cell for at, cell in enumerate(cells, max(0, start - 1)) if at != column]
        if start >= 0 and start + len(name) <= len(line) and all(cell in free for cell in beside):
            line[start : start + len(name)] = name
            return
