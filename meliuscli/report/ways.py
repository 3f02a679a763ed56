"""Ways of training, and their teachers, in a line each."""

from __future__ import annotations

from meliuscli.arch.adapt import THUMBNAIL_BELOW
from meliuscli.search.check import Check
from meliuscli.search.ways import Proxy


def describe_way(way: Proxy) -> str:
    """A way of training in a line."""
    recipe = way.recipe
    stem = "" if way.input_size < THUMBNAIL_BELOW else " through the target's stem"
    return (
        f"{way.dataset} at {way.input_size}x{way.input_size}{stem}, widths divided by {way.width_divisor}, {recipe.epochs:g}"
        f" epoch(s) at batch {recipe.batch_size}, {recipe.optimizer} {recipe.learning_rate:g} with cosine to 0."
        + (f" Scores are means of {way.seeds} trainings." if way.seeds > 1 else "")
        + (f" In the loss the outputs of {way.teacher} weigh {recipe.distill_weight:g}." if way.teacher else "")
    )


def teacher_lines(check: Check) -> list[str]:
    """What there is to know of each teacher, in a line."""
    lines = []
    for name, way in check.plan.ways.items():
        outcomes = [one for of in check.trainings.get(name, {}).values() for one in of.values()]
        taught = {
            one["taught_by"]["digest"]: one["taught_by"]["validation_top1"] for one in outcomes if "taught_by" in one
        }
        if taught:
            reached = ", ".join(f"{100 * top1:.2f} %" for top1 in sorted(taught.values()))
            others = " Not all students of a seed had the same one, to the bit." if len(taught) > way.seeds else ""
            lines.append(
                f"- The teacher of {name}, {way.teacher}, is narrowed and trained as its students are, by the labels alone,"
                f" once for each of their seeds, and reaches {reached}.{others} Its training is in no network's seconds."
            )
    return lines
