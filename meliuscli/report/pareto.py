"""Published accuracy against our count of operations, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meliuscli.errors import BadInputError
from meliuscli.report.count import Counted, View
from meliuscli.report.published import best_published
from meliuscli.results import require_directory, write_bytes
from meliuscli.search.pareto import front

FORMATS = ("png", "svg")
FRONT_COLOR, OTHER_COLOR = "#c0392b", "#5b6b7b"
NEAR = ((7, -3, "left"), (-7, -3, "right"), (0, 7, "center"), (0, -14, "center"), (6, 6, "left"), (-6, 6, "right"))
FAR = tuple(
    (side * dx, dy, "left" if side > 0 else "right")
    for dx, dy in ((20, 14), (20, -20), (34, 26), (34, -32), (50, 4), (56, 38), (56, -44), (80, -14))
    for side in (1, -1)
)
FRONT_PLACES = ((-6, 5, "right"), (0, 8, "center"), (7, -13, "left"))
"""Where a label may stand beside its mark: offset in points and alignment, the best first; from afar with a line."""


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
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "meliuscli"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 7.5), dpi=120)
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
    out = io.BytesIO()
    figure.savefig(out, format=suffix, metadata={"Date": None} if suffix == "svg" else None)
    plt.close(figure)
    return out.getvalue()


def _label(figure: Any, axes: Any, best: Sequence[Any], others: Sequence[Any]) -> None:
    """Names beside the marks, the front's first, each where it covers no other name and no mark if there is room."""
    renderer, pixels = figure.canvas.get_renderer(), figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    marks = {point: axes.transData.transform(point[1:]) for point in (*best, *others)}
    taken = [_Box(x - 4, y - 4, x + 4, y + 4) for x, y in marks.values()]
    for point, (x, y) in marks.items():
        on_front = point in best
        color = FRONT_COLOR if on_front else OTHER_COLOR
        text = axes.annotate(
            point[0],
            point[1:],
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=7.5,
            color=color,
            fontweight="bold" if on_front else "normal",
            zorder=4,
        )
        extent = text.get_window_extent(renderer)
        choices = []
        for index, (dx, dy, align) in enumerate((*(FRONT_PLACES if on_front else NEAR), *FAR)):
            left = x + dx * pixels - {"left": 0.0, "center": 0.5, "right": 1.0}[align] * extent.width
            box = _Box(left, y + dy * pixels, left + extent.width, y + dy * pixels + extent.height)
            outside = extent.width * extent.height - box.overlap(_Box(frame.x0, frame.y0, frame.x1, frame.y1))
            covered = round(sum(box.overlap(other) for other in taken) + outside)
            choices.append((covered, index, box, (dx, dy, align)))
        _, _, box, (dx, dy, align) = min(choices, key=lambda choice: choice[:2])
        text.remove()
        line = {"arrowstyle": "-", "linewidth": 0.4, "color": color, "shrinkA": 0}
        axes.annotate(
            point[0],
            point[1:],
            xytext=(dx, dy),
            textcoords="offset points",
            fontsize=7.5,
            ha=align,
            color=color,
            fontweight="bold" if on_front else "normal",
            arrowprops=line if max(abs(dx), abs(dy)) > 14 else None,
            zorder=4,
        )
        taken.append(box)


class _Box(tuple[float, float, float, float]):
    """A rectangle in pixels: left, bottom, right, top."""

    def __new__(cls, *edges: float) -> _Box:
        return super().__new__(cls, edges)

    def overlap(self, other: _Box) -> float:
        width = min(self[2], other[2]) - max(self[0], other[0])
        height = min(self[3], other[3]) - max(self[1], other[1])
        return max(width, 0.0) * max(height, 0.0)
