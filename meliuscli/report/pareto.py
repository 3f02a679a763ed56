"""Accuracy, published or of recorded runs, against our count of operations, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meliuscli.errors import BadInputError
from meliuscli.report.counted import Counted, View
from meliuscli.report.figure_names import Named, step_lines, write_names
from meliuscli.report.figures import encode, subplots
from meliuscli.report.reached import PUBLISHED, Reached, reaches
from meliuscli.results import require_directory, write_bytes
from meliuscli.search.pareto import front

FORMATS = ("png", "svg", "pdf")
FRONT_COLOR, OTHER_COLOR = "#c0392b", "#5b6b7b"


def draw_pareto(networks: Sequence[Counted], view: View, path: Path) -> list[str]:
    """Write the picture to ``path``: a panel for the published accuracies, and one for the runs on each data set. A module
    of one's own, whose accuracy nobody knows, is a line at its cost. Returns the names of networks that are not in it.

    Raises ``BadInputError`` when the suffix is none of ``FORMATS``, the convention has no total, or nothing is left,
    and ``MissingError`` where the file cannot be written."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise BadInputError(f"--pareto {path}: not a picture file", "name it .png, .svg or .pdf")
    require_directory(path, "--pareto")
    if not view.convention.unit:
        raise BadInputError(f"--pareto: the convention {view.convention.name} has no total to draw")
    known = reaches(networks, view)
    if not known.panels:
        hint = "meliuscli list shows who has; meliuscli train makes run:ID of others"
        raise BadInputError("--pareto: none of these networks has a published top-1 or one of a run", hint)
    write_bytes(path, _picture(known.panels, known.untrained, view, suffix))
    return list(known.missing)


def _picture(
    panels: Mapping[str, Sequence[Reached]], untrained: Sequence[tuple[str, float]], view: View, suffix: str
) -> bytes:
    figure, axes = subplots(1, len(panels), figsize=(11 * len(panels), 7.5), squeeze=False)
    for one, (what, points) in zip(axes[0], panels.items(), strict=True):
        _panel(one, what, points, untrained, view)
    figure.tight_layout()
    for one, points in zip(axes[0], panels.values(), strict=True):
        best = _front(points)
        names = [Named(p.name, p.ops, p.top1, FRONT_COLOR, "bold") for p in best]
        names += [Named(p.name, p.ops, p.top1, OTHER_COLOR) for p in points if p not in best]
        write_names(figure, one, names, step_lines([(p.ops, p.top1) for p in best]))
    return encode(figure, suffix)


def _front(points: Sequence[Reached]) -> list[Reached]:
    return [points[index] for index in front([(p.ops, p.top1) for p in points])]


def _panel(axes: Any, what: str, points: Sequence[Reached], untrained: Sequence[tuple[str, float]], view: View) -> None:
    best = _front(points)
    others = [point for point in points if point not in best]
    for chosen, color, label in ((others, OTHER_COLOR, "other networks"), (best, FRONT_COLOR, "Pareto front")):
        if chosen:
            axes.scatter([p.ops for p in chosen], [p.top1 for p in chosen], color=color, label=label, s=28, zorder=3)
    for point in points:
        if point.spread is not None:
            axes.errorbar(point.ops, point.top1, yerr=point.spread, color=OTHER_COLOR, linewidth=1, capsize=3)
    axes.step([p.ops for p in best], [p.top1 for p in best], where="post", color=FRONT_COLOR, linewidth=1, zorder=2)
    for number, (name, ops) in enumerate(untrained):
        style = {"color": f"C{number}", "linestyle": ":", "zorder": 1}
        axes.axvline(ops, label=f"{name}, of no known top-1", **style)
    axes.set_xscale("log")
    costs = {*(p.ops for p in points), *(ops for _, ops in untrained)}
    if len(costs) == 1:
        axes.set_xlim(min(costs) / 4, max(costs) * 4)
    axes.margins(x=0.08, y=0.08)
    axes.set_xlabel(f"{view.convention.unit} by our count (convention {view.convention.name}), logarithmic")
    axes.set_ylabel(what)
    papers = "Accuracies are their papers' own: recipes, epochs and teachers differ"
    axes.set_title(papers if what == PUBLISHED else "Means over seeds on the test images, ± deviation", fontsize=10)
    axes.grid(alpha=0.25, which="both")
    axes.legend(loc="lower right")
