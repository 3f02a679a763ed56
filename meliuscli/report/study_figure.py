"""The Pareto plot of a study."""

from __future__ import annotations

from meliuscli.report.figures import encode, subplots
from meliuscli.report.study import StudyReport
from meliuscli.search.cost import OPS
from meliuscli.search.study import TrialRecord


def plot(report: StudyReport, suffix: str) -> bytes:
    """What the search maximises against cost: all trials, the front, and the known networks by name."""
    scale = 1e6 if report.cost is OPS else 1

    def x(record: TrialRecord) -> float:
        return report.cost.of(record.candidate) / scale

    def y(record: TrialRecord) -> float:
        return report.beliefs[record.candidate.archid].top1 if report.beliefs else 100 * (record.accuracy or 0)

    figure, axes = subplots(figsize=(8, 5))
    trained = [r for r in report.records if r.accuracy is not None]
    for known, marker, color, label in (
        (False, "o", "#7f8c9b", "found"),
        (True, "s", "#c0392b", "published networks"),
    ):
        chosen = [r for r in trained if (r.known_as is not None) == known]
        if chosen:
            axes.scatter(
                list(map(x, chosen)),
                list(map(y, chosen)),
                marker=marker,
                color=color,
                label=label,
                zorder=3,
            )
    for record in trained if report.beliefs else ():
        belief = report.beliefs[record.candidate.archid]
        axes.vlines(x(record), belief.low, belief.high, color="#c4cad2", linewidth=1, zorder=1)
    front = report.front
    if front:
        xs = [*map(x, front), report.settings.budget / scale]
        ys = list(map(y, front))
        axes.step(xs, [*ys, ys[-1]], where="post", color="#1f6f8b", label="Pareto front", zorder=2)
    named = sorted((r for r in trained if r.known_as is not None), key=y, reverse=True)
    for index, record in enumerate(named):  # a column of names with lines to the marks, as neighbours are close
        axes.annotate(
            record.known_as or "",
            (x(record), y(record)),
            xytext=(0.53, 0.42 - 0.055 * index),
            textcoords="axes fraction",
            fontsize=8,
            color="#c0392b",
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#c0392b", "relpos": (0, 0.5)},
        )
    axes.axvline(report.settings.budget / scale, color="black", linestyle=":", linewidth=1, label="budget")
    axes.set_xlabel(
        f"{report.cost.noun} ({'millions' if report.cost is OPS else report.cost.unit}; {report.cost.rule})"
    )
    axes.set_ylabel("believed ImageNet top-1, 90 % interval (%)" if report.beliefs else "proxy validation top-1 (%)")
    axes.set_title(f"{len(trained)} trained candidates of the space {report.settings.space}")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right")
    figure.tight_layout()
    return encode(figure, suffix)
