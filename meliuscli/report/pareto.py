"""Published accuracy against our count of operations, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from meliuscli.errors import BadInputError
from meliuscli.report.count import Counted, View
from meliuscli.report.figures import encode, subplots
from meliuscli.report.labels import Box, place
from meliuscli.report.published import best_published
from meliuscli.results import require_directory, write_bytes
from meliuscli.search.pareto import front

FORMATS = ("png", "svg")
FRONT_COLOR, OTHER_COLOR = "#c0392b", "#5b6b7b"


def draw_published(networks: Sequence[Counted], view: View, path: Path) -> list[str]:
    """Write the picture to ``path``; the names of networks that are not in it for want of a published accuracy.

    Raises ``BadInputError`` when the suffix is none of ``FORMATS``, the convention has no total, or nothing is left,
    and ``MissingError`` where the file cannot be written."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise BadInputError(f"--pareto {path}: not a picture file", "name it .png or .svg")
    require_directory(path, "--pareto")
    if not view.convention.unit:
        raise BadInputError(f"--pareto: the convention {view.convention.name} has no total to draw")
    points, missing = [], []
    for network in networks:
        row = best_published(network.published)["top1"]
        ops = view.convention.derive(network.count.total, view.float_bits).ops
        if row is None or ops is None:
            missing.append(network.name)
        else:
            points.append((network.name, float(ops), float(row.top1)))
    if not points:
        raise BadInputError("--pareto: none of these networks has a published top-1", "meliuscli list shows who has")
    write_bytes(path, _picture(points, view, suffix))
    return missing


def _picture(points: Sequence[tuple[str, float, float]], view: View, suffix: str) -> bytes:
    figure, axes = subplots(figsize=(11, 7.5))
    best = [points[index] for index in front([(ops, top1) for _, ops, top1 in points])]
    others = [point for point in points if point not in best]
    for chosen, color, label in ((others, OTHER_COLOR, "other networks"), (best, FRONT_COLOR, "Pareto front")):
        if chosen:
            axes.scatter([p[1] for p in chosen], [p[2] for p in chosen], color=color, label=label, s=28, zorder=3)
    axes.step([p[1] for p in best], [p[2] for p in best], where="post", color=FRONT_COLOR, linewidth=1, zorder=2)
    axes.set_xscale("log")
    axes.margins(x=0.08, y=0.08)
    axes.set_xlabel(f"{view.convention.unit} by our count (convention {view.convention.name}), logarithmic")
    axes.set_ylabel("published ImageNet-1k top-1 (%)")
    axes.set_title("Accuracies are their papers' own: recipes, epochs and teachers differ", fontsize=10)
    axes.grid(alpha=0.25, which="both")
    axes.legend(loc="lower right")
    figure.tight_layout()
    _label(figure, axes, best, others)
    return encode(figure, suffix)


def _label(figure: Any, axes: Any, best: Sequence[Any], others: Sequence[Any]) -> None:
    """Names beside the marks, so that no name can be read for another's. Those for which there is no
    such place are numbered, and listed in a corner."""
    renderer, pixels = figure.canvas.get_renderer(), figure.dpi / 72
    points, texts = (*best, *others), []
    for point in points:
        style = {"color": FRONT_COLOR, "fontweight": "bold"} if point in best else {"color": OTHER_COLOR}
        texts.append(axes.annotate(point[0], point[1:], xycoords="data", fontsize=7.5, zorder=4, **style))
    marks = [tuple(axes.transData.transform(point[1:]) / pixels) for point in points]
    extents = [text.get_window_extent(renderer) for text in texts]
    sizes = [(extent.width / pixels, extent.height / pixels) for extent in extents]
    frame, legend = (
        Box(edge.x0 / pixels, edge.y0 / pixels, edge.x1 / pixels, edge.y1 / pixels)
        for edge in (axes.get_window_extent(renderer), axes.get_legend().get_window_extent(renderer))
    )
    corners = [((x1, y1), (x2, y1), (x2, y2)) for (x1, y1), (x2, y2) in pairwise(marks[: len(best)])]
    steps = [line for corner in corners for line in pairwise(corner)]
    unplaced = []
    for point, text, mark, label in zip(points, texts, marks, place(marks, sizes, frame, [legend], steps), strict=True):
        if label is None:
            unplaced.append(point[0])
            text.remove()
            axes.annotate(str(len(unplaced)), point[1:], ha="center", va="center", fontsize=5, color="white", zorder=5)
            continue
        text.remove()
        offset = (label.box.left - mark[0], label.box.bottom - mark[1])
        if label.line is not None:
            end = tuple(there - here for there, here in zip(label.line[1], mark, strict=True))
            line = {"arrowstyle": "-", "linewidth": 0.5, "color": text.get_color(), "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", point[1:], xytext=end, textcoords="offset points", arrowprops=line, zorder=2.5)
        axes.annotate(
            point[0],
            point[1:],
            xytext=offset,
            textcoords="offset points",
            fontsize=7.5,
            color=text.get_color(),
            fontweight=text.get_fontweight(),
            va="bottom",
            zorder=4,
        )
    if unplaced:
        listed = "\n".join(f"{number}: {name}" for number, name in enumerate(unplaced, start=1))
        axes.text(0.01, 0.99, listed, transform=axes.transAxes, va="top", fontsize=7.5, color=OTHER_COLOR)
