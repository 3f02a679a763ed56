"""Charts as SVG text for a web page: marks with intervals, lines, and names that do not cross. The same values give the same text."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from meliuscli.report.labels import Box, place

WIDTH, HEIGHT = 760.0, 420.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 16.0, 14.0, 46.0
LETTER = 6.4
"""Width of a letter of a name, in units of the drawing."""
FEW = 60


@dataclass(frozen=True, slots=True)
class Mark:
    """A point. ``kind`` chooses shape and colour (found, published, front); ``text`` is told on hover and on a tap; ``name``
    is written beside it where there is room."""

    x: float
    y: float
    text: str
    kind: str = "found"
    name: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """Points joined by straight lines, or by steps."""

    points: tuple[tuple[float, float], ...]
    kind: str = "front"
    steps: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """``limits`` are vertical lines, each with its name. ``legend`` says in words what the kinds are."""

    title: str
    x_label: str
    y_label: str
    marks: tuple[Mark, ...] = ()
    curves: tuple[Curve, ...] = ()
    limits: tuple[tuple[float, str], ...] = ()
    legend: str = ""


@dataclass(frozen=True, slots=True)
class _Axis:
    """Values from ``low`` to ``high`` on the drawing from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """About five round values."""
        rough = (self.high - self.low) / 5
        scale = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * scale for factor in (1, 2, 5, 10) if factor * scale >= rough)
        first = math.ceil(self.low / step)
        return [index * step for index in range(first, math.floor(self.high / step) + 1)]


def svg(chart: Chart) -> str:
    """The chart as an ``svg`` element, colours by the classes of the page."""
    x, y = _axes(chart)
    label = html.escape(f"{chart.title}: {chart.y_label} against {chart.x_label}", quote=True)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}">',
        *_frame(chart, x, y),
        *(_curve(curve, x, y) for curve in chart.curves),
        *(_limit(value, name, x) for value, name in chart.limits),
        *(_interval(mark, x, y) for mark in chart.marks if mark.low is not None and mark.high is not None),
        *(_mark(mark, x, y) for mark in chart.marks),
        *_names(chart, x, y),
        "</svg>",
    ]
    return "\n".join(parts)


def _axes(chart: Chart) -> tuple[_Axis, _Axis]:
    points = [point for curve in chart.curves for point in curve.points]
    xs = [*(mark.x for mark in chart.marks), *(x for x, _ in points), *(value for value, _ in chart.limits)]
    ys = [*(mark.y for mark in chart.marks), *(y for _, y in points)]
    ys += [end for mark in chart.marks for end in (mark.low, mark.high) if end is not None]
    return _Axis(*_padded(xs), LEFT, WIDTH - RIGHT), _Axis(*_padded(ys), HEIGHT - BOTTOM, TOP)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin


def _frame(chart: Chart, x: _Axis, y: _Axis) -> Iterator[str]:
    for value in x.ticks():
        at = x.at(value)
        yield f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{y.end:.1f}" y2="{y.start:.1f}"/>'
        yield f'<text class="tick" x="{at:.1f}" y="{y.start + 16:.1f}" text-anchor="middle">{value:g}</text>'
    for value in y.ticks():
        at = y.at(value)
        yield f'<line class="grid" x1="{x.start:.1f}" x2="{x.end:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield f'<text class="tick" x="{x.start - 6:.1f}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>'
    middle = (x.start + x.end) / 2
    yield f'<text class="axis" x="{middle:.1f}" y="{HEIGHT - 8:.1f}" text-anchor="middle">{html.escape(chart.x_label)}</text>'
    across = (y.start + y.end) / 2
    turned = f'transform="rotate(-90 14 {across:.1f})"'
    yield f'<text class="axis" x="14" y="{across:.1f}" text-anchor="middle" {turned}>{html.escape(chart.y_label)}</text>'


def _corners(curve: Curve, x: _Axis, y: _Axis) -> list[tuple[float, float]]:
    corners = [(x.at(a), y.at(b)) for a, b in curve.points]
    if not curve.steps:
        return corners
    return [corners[0], *(p for (_, b), (c, d) in pairwise(corners) for p in ((c, b), (c, d)))]


def _curve(curve: Curve, x: _Axis, y: _Axis) -> str:
    corners = _corners(curve, x, y)
    points, title = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners), f"<title>{html.escape(curve.text)}</title>"
    if len(corners) == 1:  # browsers draw no line of one point
        return f'<circle class="curve {curve.kind}" cx="{corners[0][0]:.1f}" cy="{corners[0][1]:.1f}" r="2.5">{title}</circle>'
    return f'<polyline class="curve {curve.kind}" points="{points}">{title}</polyline>'


def _limit(value: float, name: str, x: _Axis) -> str:
    at = x.at(value)
    line = f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP:g}" y2="{HEIGHT - BOTTOM:g}"/>'
    return f'{line}<text class="tick" x="{at - 4:.1f}" y="{TOP + 10:g}" text-anchor="end">{html.escape(name)}</text>'


def _interval(mark: Mark, x: _Axis, y: _Axis) -> str:
    assert mark.low is not None
    assert mark.high is not None
    at = f"{x.at(mark.x):.1f}"
    return (
        f'<line class="interval {mark.kind}" x1="{at}" x2="{at}" y1="{y.at(mark.low):.1f}" y2="{y.at(mark.high):.1f}"/>'
    )


def _mark(mark: Mark, x: _Axis, y: _Axis) -> str:
    a, b, text = x.at(mark.x), y.at(mark.y), html.escape(mark.text, quote=True)
    shape = (
        f'<rect x="{a - 4.5:.1f}" y="{b - 4.5:.1f}" width="9" height="9"/>'
        if mark.kind == "published"
        else f'<circle cx="{a:.1f}" cy="{b:.1f}" r="5"/>'
    )
    return f'<g class="mark {mark.kind}" tabindex="0" data-text="{text}"><title>{text}</title>{shape}</g>'


def _names(chart: Chart, x: _Axis, y: _Axis) -> Iterator[str]:
    """Names beside their marks, no two of which cross; one without room is told on hover alone."""
    named = [mark for mark in chart.marks if mark.name]
    # Among hundreds of marks there is no room beside all: names then avoid those that are more than one of many.
    avoided = [mark for mark in chart.marks if len(chart.marks) <= FEW or mark.name or mark.kind != "found"]
    others = [mark for mark in avoided if not mark.name]
    # ``place`` knows heights that grow upwards.
    spots = [(x.at(mark.x), HEIGHT - y.at(mark.y)) for mark in named]
    sizes = [(LETTER * len(mark.name), 12.0) for mark in named]
    frame = Box(x.start, BOTTOM, x.end, HEIGHT - TOP)
    boxes = [Box(a - 6, b - 6, a + 6, b + 6) for a, b in ((x.at(m.x), HEIGHT - y.at(m.y)) for m in others)]
    boxes += [Box(x.at(value) - 60, HEIGHT - TOP - 14, x.at(value) + 3, HEIGHT - TOP) for value, _ in chart.limits]
    lines = [pair for curve in chart.curves for pair in pairwise(_corners(curve, x, y))]
    lines += [((x.at(m.x), y.at(m.low)), (x.at(m.x), y.at(m.high))) for m in avoided if m.low and m.high]
    drawn = [((a, HEIGHT - b), (c, HEIGHT - d)) for (a, b), (c, d) in lines]
    for mark, spot, label in zip(named, spots, place(spots, sizes, frame, boxes, drawn), strict=True):
        if label is None:
            continue
        if label.line is not None:
            (a, b), (c, d) = (spot, label.line[1])
            yield f'<line class="leader" x1="{a:.1f}" y1="{HEIGHT - b:.1f}" x2="{c:.1f}" y2="{HEIGHT - d:.1f}"/>'
        baseline = HEIGHT - label.box.bottom - 3
        yield f'<text class="name {mark.kind}" x="{label.box.left:.1f}" y="{baseline:.1f}">{html.escape(mark.name)}</text>'
