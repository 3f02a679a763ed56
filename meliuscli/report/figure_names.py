"""Names beside the marks of a picture, so that no name can be read for another's and no line crosses another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from meliuscli.report.labels import Box, Label, Line, Point, place

FONT = 7.5


@dataclass(frozen=True, slots=True)
class Named:
    """A mark in the units of the axes, and how its name is written."""

    name: str
    x: float
    y: float
    color: str
    weight: str = "normal"


def write_names(
    figure: Any, axes: Any, points: Sequence[Named], lines: Sequence[Line] = (), marks: Sequence[Point] = ()
) -> None:
    """Write the names. They keep off one another, the legend, ``lines`` and nameless ``marks`` (both in the units of the
    axes). Those for which there is no such place are numbered, and listed in a corner."""
    renderer, pixels = figure.canvas.get_renderer(), figure.dpi / 72

    def at(x: float, y: float) -> Point:
        across, up = axes.transData.transform((x, y)) / pixels
        return float(across), float(up)

    def box(extent: Any) -> Box:
        return Box(extent.x0 / pixels, extent.y0 / pixels, extent.x1 / pixels, extent.y1 / pixels)

    spots = [at(point.x, point.y) for point in points]
    sizes = []
    for point in points:
        text = axes.annotate(point.name, (point.x, point.y), fontsize=FONT, fontweight=point.weight)
        extent = text.get_window_extent(renderer)
        sizes.append((extent.width / pixels, extent.height / pixels))
        text.remove()
    legend = axes.get_legend()
    taken = [] if legend is None else [box(legend.get_window_extent(renderer))]
    taken += [Box(x, y, x, y).grown(4) for x, y in (at(*mark) for mark in marks)]
    drawn = [(at(*one), at(*other)) for one, other in lines]
    labels = place(spots, sizes, box(axes.get_window_extent(renderer)), taken, drawn)
    numbered: list[str] = []
    for point, spot, label in zip(points, spots, labels, strict=True):
        if label is not None:
            _write(axes, point, spot, label)
            continue
        numbered.append(f"{len(numbered) + 1}: {point.name}")
        where = {"ha": "center", "va": "center", "fontsize": 5, "color": "white", "zorder": 5}
        axes.annotate(str(len(numbered)), (point.x, point.y), **where)
    if numbered:
        axes.text(0.01, 0.99, "\n".join(numbered), transform=axes.transAxes, va="top", fontsize=FONT, color="#5b6b7b")


def _write(axes: Any, point: Named, spot: Point, label: Label) -> None:
    where = {"xycoords": "data", "textcoords": "offset points"}
    if label.line is not None:
        end = (label.line[1][0] - spot[0], label.line[1][1] - spot[1])
        arrow = {"arrowstyle": "-", "linewidth": 0.5, "color": point.color, "shrinkA": 0, "shrinkB": 3}
        axes.annotate("", (point.x, point.y), xytext=end, arrowprops=arrow, zorder=2.5, **where)
    offset = (label.box.left - spot[0], label.box.bottom - spot[1])
    style = {"fontsize": FONT, "color": point.color, "fontweight": point.weight, "va": "bottom", "zorder": 4}
    axes.annotate(point.name, (point.x, point.y), xytext=offset, **style, **where)


def step_lines(points: Sequence[Point]) -> list[Line]:
    """The pieces of a front that is drawn in steps."""
    corners = [((x1, y1), (x2, y1), (x2, y2)) for (x1, y1), (x2, y2) in pairwise(points)]
    return [line for corner in corners for line in pairwise(corner)]
