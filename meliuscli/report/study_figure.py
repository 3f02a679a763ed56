"""The Pareto plot of a study."""

from __future__ import annotations

from meliuscli.report.figure_names import Named, step_lines, write_names
from meliuscli.report.figures import encode, subplots
from meliuscli.report.study import StudyReport
from meliuscli.search.cost import OPS
from meliuscli.search.records import TrialRecord

PUBLISHED, FRONT = "#b84a00", "#1f6f8b"


def plot(report: StudyReport, suffix: str) -> bytes:
    """What the search maximises against cost: all trials, the front, and the known networks by name."""
    scale = 1e6 if report.cost is OPS else 1

    def x(record: TrialRecord) -> float:
        return report.cost.of(record.candidate) / scale

    figure, axes = subplots(figsize=(8, 5))
    y, trained = report.percent, report.drawn
    known, found = ([r for r in trained if (r.known_as is not None) == is_known] for is_known in (True, False))
    for kind, marker, color, label in ((found, "o", "#7f8c9b", "found"), (known, "s", PUBLISHED, "published networks")):
        if kind:
            axes.scatter([*map(x, kind)], [*map(y, kind)], marker=marker, color=color, label=label, zorder=3)
    believed = [(x(r), report.beliefs[r.candidate.archid]) for r in trained] if report.believes else []
    intervals = [((ops, belief.low), (ops, belief.high)) for ops, belief in believed]
    for (ops, low), (_, high) in intervals:
        axes.vlines(ops, low, high, color="#c4cad2", linewidth=1, zorder=1)
    line = [(cost / scale, value) for cost, value in report.front_line]
    corners = [*line, *((report.settings.budget / scale, value) for _, value in line[-1:])]
    if line:
        axes.step(*zip(*corners, strict=True), where="post", color=FRONT, label="Pareto front", zorder=2)
    axes.axvline(report.settings.budget / scale, color="black", linestyle=":", linewidth=1, label="budget")
    axes.set_xlabel(
        f"{report.cost.noun} ({'millions' if report.cost is OPS else report.cost.unit}; {report.cost.rule})"
    )
    axes.set_ylabel("believed ImageNet top-1, 90 % interval (%)" if report.believes else "proxy validation top-1 (%)")
    axes.set_title(f"{len(trained)} trained candidates of the space {report.settings.space}")
    axes.grid(alpha=0.25)
    axes.margins(x=0.06, y=0.08)
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    named = report.named
    points = [Named(r.name, x(r), y(r), PUBLISHED if r.known_as else FRONT) for r in named]
    others = [(x(r), y(r)) for r in trained if r not in named]
    write_names(figure, axes, points, [*step_lines(corners), *intervals], others)
    return encode(figure, suffix)
