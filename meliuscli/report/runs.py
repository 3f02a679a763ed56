"""Recorded runs as lists and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from meliuscli.arch.zoo import spec_from_fields
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import MELIUS
from meliuscli.errors import BadInputError
from meliuscli.report.answers import Answer
from meliuscli.report.tables import Cell, Column, Table
from meliuscli.report.text_plot import curves_drawing
from meliuscli.runs import Left, Run
from meliuscli.units import format_count, format_mib

COLUMNS = ("id", "time", "arch", "dataset", "n", "validation", "test", "OPs", "MiB", "state")
LEFT = ("seeds", "epochs", "epochs_done", "resume")
"""In the records of a list of runs alone; people read it under the table."""


def runs_table(runs: Sequence[Run], broken: Mapping[str, BadInputError]) -> Table:
    """A row a run: what was trained on what, how often, to what, what that network costs, and whether to the end; then
    those that are ``broken``. Under it how to go on with those that are unfinished."""
    records = [*map(_record, runs), *(_broken_record(run_id, error) for run_id, error in broken.items())]
    unfinished = [
        line
        for run in runs
        if (left := _left(run))
        for line in (f"run:{run.id} is unfinished: {left.sentence}", f"  go on with: {left.resume}")
    ]
    unreadable = [
        f"run:{run_id} cannot be read and is left out: {error.message} ({error.hint})"
        for run_id, error in broken.items()
    ]
    return Table(
        "Recorded runs (meliuscli show run:ID); mean top-1 over n seeds on validation and test, in %",
        tuple(Column(heading, numeric=heading in ("OPs", "MiB"), optional=heading == "time") for heading in COLUMNS),
        (*map(_cells, runs), *((run_id, *[""] * (len(COLUMNS) - 2), "unreadable") for run_id in broken)),
        lines=(*unfinished, *unreadable),
        notes=(
            "OPs and MiB are those of the network that was trained, at its input and widths",
            *(("an unfinished run may also be one that is being trained now",) if unfinished else ()),
        ),
        records=tuple(records),
    )


def _left(run: Run) -> Left | None:
    """What is left to train. A failed run, which may have a checkpoint to look into, is at its end."""
    return None if run.fields.get("failed") else run.left


def _cells(run: Run) -> tuple[Cell, ...]:
    """A row for people."""
    record = _record(run)
    ops, size = record["trained_ops"], record["trained_size_bytes"]
    trained_here = ("", "") if run.fields.get("imported") else (record["dataset"], record["n"])
    return (
        *(record[key] for key in ("id", "time", "arch")),
        *trained_here,
        _mean(run.fields["validation_top1"]),
        _mean(run.fields["test_top1"]),
        format_count(ops) if isinstance(ops, int | float) else "",
        f"{size / 2**20:.3f}" if isinstance(size, int) else "",
        record["state"],
    )


def _record(run: Run) -> dict[str, Cell]:
    """A row of CSV and JSON: accuracies from 0 to 1."""
    fields, left, trained = run.fields, _left(run), _trained(run)
    return {
        "id": run.id,
        "time": fields["origin"]["time"][:16],
        "arch": fields["arch"],
        "archid": fields["archid"],
        "dataset": fields["dataset"]["name"],
        "n": fields["n"],
        "validation_top1": fields["validation_top1"]["mean"],
        "validation_spread": fields["validation_top1"]["spread"],
        "test_top1": fields["test_top1"]["mean"],
        "test_spread": fields["test_top1"]["spread"],
        **{f"trained_{key}": trained.get(key) for key in ("archid", "ops", "size_bytes")},
        "state": _state(run),
        **{key: getattr(left, key, None) for key in LEFT},
        "problem": fields.get("failed"),
    }


def _state(run: Run) -> str:
    if run.fields.get("failed"):
        return "failed"
    if run.left:
        return "unfinished"
    if run.fields.get("imported"):
        return "imported"
    return "interrupted" if run.fields.get("interrupted") else "finished"


RECORD = (
    *("id", "time", "arch", "archid", "dataset", "n", "validation_top1", "validation_spread", "test_top1"),
    *("test_spread", "trained_archid", "trained_ops", "trained_size_bytes", "state", *LEFT, "problem"),
)


def _broken_record(run_id: str, error: BadInputError) -> dict[str, Cell]:
    return {**dict.fromkeys(RECORD), "id": run_id, "state": "unreadable", "problem": error.message}


def _trained(run: Run) -> dict[str, Any]:
    """What the network costs that was trained: ``archid, ops, params, size_bytes``, as recorded or, in older records,
    counted; nothing where this version has no such network any more."""
    if isinstance(recorded := run.fields.get("trained"), dict):
        return recorded
    try:
        spec = spec_from_fields(run.fields["trained_as"])
    except BadInputError:
        return {}
    total = count_spec(spec).total
    costs = {"ops": MELIUS.derive(total).ops, "params": total.params, "size_bytes": total.size_bytes}
    return {"archid": spec.archid, **costs}


def imported_table(run: Run) -> Table:
    """A network that was trained elsewhere: what it is of, and what it costs. Nothing is known of its training."""
    fields, about, trained, origin = run.fields, run.fields["imported"], _trained(run), run.fields["origin"]
    costs = (format_count(trained["ops"] or 0), f"{trained['size_bytes'] / 2**20:.3f}") if trained else ("", "")
    return Table(
        f"Run {run.id}: {fields['arch']} at {_shape(fields['trained_as'])}, trained elsewhere",
        (*(Column(heading, numeric=False) for heading in ("file", "format")), Column("OPs"), Column("MiB")),
        ((about["file"], about["format"], *costs),),
        records=tuple({"run": run.id, **one} for one in fields["runs"]),
        lines=(
            *_network_lines(run),
            f"made by: {origin['command']}",
            f"at {origin['time']}",
            *_execution_lines(fields),
        ),
        notes=(f"nothing is known of its accuracy here: meliuscli evaluate run:{run.id} scores it",),
    )


def _shape(spec: Mapping[str, Any]) -> str:
    return f"{spec['input_channels']}x{spec['input_size']}x{spec['input_size']}"


def run_table(run: Run) -> Table:
    """A run's seeds and their mean, with the recipe and where it was made."""
    if run.fields.get("imported"):
        return imported_table(run)
    fields = run.fields
    recipe, origin = fields["recipe"], fields["origin"]
    rows = tuple(
        (
            f"seed {one['seed']}",
            _percent(one["validation_top1"]),
            _percent(one["test_top1"]),
            *(
                "" if one[key] is None else f"{one[key]:{digits}}"
                for key, digits in (("train_loss", ".4f"), ("seconds", ".1f"), ("images_per_second", ".0f"))
            ),
        )
        for one in fields["runs"]
    )
    mean = (f"mean, n={fields['n']}", _mean(fields["validation_top1"]), _mean(fields["test_top1"]), "", "", "")
    machine = origin["machine"]
    return Table(
        f"Run {run.id}: {fields['arch']} on {fields['dataset']['name']} at {_shape(fields['trained_as'])}",
        (Column("run", numeric=False), *map(Column, ("validation %", "test %", "train loss", "seconds", "images/s"))),
        rows,
        total=mean,
        records=tuple({"run": run.id, **one} for one in fields["runs"]),
        lines=(
            *_ending_lines(run),
            *_network_lines(run),
            f"made by: {origin['command']}",
            f"at {origin['time']} on {machine['processor']}, {machine['cores']} cores,"
            f" torch {origin['versions']['torch']}, meliuscli {origin['versions']['meliuscli']}",
            *_execution_lines(fields),
            "recipe: " + ", ".join(f"{key} {value}" for key, value in recipe.items()),
        ),
        notes=("± is the sample standard deviation over seeds; test is scored once, at the end of each training",),
    )


def _network_lines(run: Run) -> list[str]:
    """Which network these accuracies are of, and which one it stands for."""
    fields, trained = run.fields, _trained(run)
    if not trained:
        return []
    costs = f"{format_count(trained['ops'] or 0)} OPs, {format_mib(trained['size_bytes'])}"
    target = "" if trained["archid"] == fields["archid"] else f", made of {fields['arch']} ({fields['archid']})"
    counted = "" if fields["trained_as"].get("family") == "own" else f" (meliuscli count run:{run.id})"
    return [f"the network that was trained: {trained['archid']}, {costs}{target}{counted}"]


def run_answer(run: Run) -> Answer:
    """A run's seeds and their mean; as JSON its record."""
    return Answer((run_table(run),), lambda: run_object(run), drawing=partial(curves_drawing, run.fields))


def run_object(run: Run) -> dict[str, Any]:
    """The record as it is in its file, with what is left of an unfinished run."""
    return run.fields if run.left is None else {**run.fields, "unfinished": asdict(run.left)}


def _ending_lines(run: Run) -> list[str]:
    """How a run ended that did not come to its end."""
    if failed := run.fields.get("failed"):
        return [f"failed: {failed}"]
    if run.left:
        return [f"unfinished: {run.left.sentence}", f"go on with: {run.left.resume}"]
    return ["interrupted before all seeds were trained"] if run.fields.get("interrupted") else []


def _execution_lines(fields: dict[str, Any]) -> list[str]:
    """How it was trained; records of before say nothing of it."""
    lines = []
    if left_out := fields["dataset"].get("left_out"):
        lines.append(f"image files that could not be read and were left out: {left_out:,}")
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
    if about := fields.get("imported"):
        lines.append(f"imported from {about['file']} ({about['format']}, sha256 {about['sha256']})")
        lines += [f"  {note}" for note in about["notes"]]
    if joules and all(joules):
        lines.append(f"energy of the processors: {sum(joules) / len(joules):.0f} J a training")
    return lines


def _mean(summary: dict[str, Any]) -> str:
    spread = summary["spread"]
    return _percent(summary["mean"]) + ("" if spread is None else f" ± {_percent(spread)}")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
