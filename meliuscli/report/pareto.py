"""Published accuracy against our count of operations, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from meliuscli.errors import BadInputError
from meliuscli.report.count import Counted, View
from meliuscli.report.figure_names import Named, step_lines, write_names
from meliuscli.report.figures import encode, subplots
from meliuscli.report.published import best_published
from meliuscli.results import require_directory, write_bytes
from meliuscli.search.pareto import front

FORMATS = ("png", "svg", "pdf")
FRONT_COLOR, OTHER_COLOR = "#c0392b", "#5b6b7b"


def draw_published(networks: Sequence[Counted], view: View, path: Path) -> list[str]:
    """Write the picture to ``path``; the names of networks that are not in it for want of a published accuracy.

    Raises ``BadInputError`` when the suffix is none of ``FORMATS``, the convention has no total, or nothing is left,
    and ``MissingError`` where the file cannot be written."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise BadInputError(f"--pareto {path}: not a picture file", "name it .png, .svg or .pdf")
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
    names = [Named(name, ops, top1, FRONT_COLOR, "bold") for name, ops, top1 in best]
    names += [Named(name, ops, top1, OTHER_COLOR) for name, ops, top1 in others]
    write_names(figure, axes, names, step_lines([(ops, top1) for _, ops, top1 in best]))
    return encode(figure, suffix)
