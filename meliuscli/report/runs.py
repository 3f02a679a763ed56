"""Recorded runs as lists and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meliuscli.report.tables import Cell, Column, Table
from meliuscli.runs import Run


def run_records(runs: Sequence[Run]) -> list[dict[str, Cell]]:
    """One record a run: what was trained on what, how often, and to what."""
    return [
        {
            "id": run.id,
            "time": run.fields["origin"]["time"][:16],
            "arch": run.fields["arch"],
            "dataset": run.fields["dataset"]["name"],
            "n": run.fields["n"],
            "validation": _mean(run.fields["validation_top1"]),
            "test": _mean(run.fields["test_top1"]),
        }
        for run in runs
    ]


def run_table(run: Run) -> Table:
    """A run's seeds and their mean, with the recipe and where it was made."""
    fields = run.fields
    spec, recipe, origin = fields["trained_as"], fields["recipe"], fields["origin"]
    rows = tuple(
        (
            f"seed {one['seed']}",
            _percent(one["validation_top1"]),
            _percent(one["test_top1"]),
            f"{one['train_loss']:.4f}",
            f"{one['seconds']:.1f}",
            f"{one['images_per_second']:.0f}",
        )
        for one in fields["runs"]
    )
    mean = (f"mean, n={fields['n']}", _mean(fields["validation_top1"]), _mean(fields["test_top1"]), "", "", "")
    machine = origin["machine"]
    shape = f"{spec['input_channels']}x{spec['input_size']}x{spec['input_size']}"
    return Table(
        f"Run {run.id}: {fields['arch']} ({fields['archid']}) on {fields['dataset']['name']} at {shape}",
        (Column("run", numeric=False), *map(Column, ("validation %", "test %", "train loss", "seconds", "images/s"))),
        rows,
        total=mean,
        lines=(
            *([f"failed: {fields['failed']}"] if fields.get("failed") else []),
            *(["interrupted before all seeds were trained"] if fields.get("interrupted") else []),
            f"made by: {origin['command']}",
            f"at {origin['time']} on {machine['processor']}, {machine['cores']} cores,"
            f" torch {origin['versions']['torch']}, meliuscli {origin['versions']['meliuscli']}",
            *_execution_lines(fields),
            "recipe: " + ", ".join(f"{key} {value}" for key, value in recipe.items()),
        ),
        notes=("± is the sample standard deviation over seeds; test is scored once, at the end of each training",),
    )


def _execution_lines(fields: dict[str, Any]) -> list[str]:
    """How it was trained; records of before say nothing of it."""
    lines = []
    if how := fields.get("execution"):
        where = f"{how['device']} ({how['device_name']})" if how["device_name"] else how["device"]
        compiled = "compiled" if how["compiled"] else "eager"
        threads = f"{how['threads']} thread{'s' * (how['threads'] != 1)}"
        processes = f", {how['processes']} processes" if how["processes"] > 1 else ""
        lines.append(f"trained on {where}, {threads}{processes}, {how['precision']}, {compiled}")
        lines += [f"  {note}" for note in how["notes"]]
    if teacher := fields.get("teacher"):
        lines.append(f"teacher: {teacher['arch']}, run:{teacher['run']}, seed {teacher['seed']}")
    joules = [one.get("energy_joules") for one in fields["runs"]]
    if all(joules):
        lines.append(f"energy of the processors: {sum(joules) / len(joules):.0f} J a training")
    return lines


def _mean(summary: dict[str, Any]) -> str:
    spread = summary["spread"]
    return _percent(summary["mean"]) + ("" if spread is None else f" ± {_percent(spread)}")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
