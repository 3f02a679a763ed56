"""``meliuscli train``: train one network from several seeds and write the result down."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from meliuscli.arch.zoo import parse_overrides
from meliuscli.cli import completion, options
from meliuscli.cli.console import SHELL, answer, answer_tables, is_given, talk
from meliuscli.cli.networks import is_own, load_network, own_arch, the_one
from meliuscli.cli.watch import train_all
from meliuscli.errors import BadInputError, MeliusError
from meliuscli.report.runs import run_table
from meliuscli.report.tables import to_json
from meliuscli.runs import REPORTS, Run, record_path
from meliuscli.training.start import Ready, Wanted, begin_run, resume_run

if TYPE_CHECKING:
    from meliuscli.report.tables import Format
    from meliuscli.training.recipe import Recipe

GOES_WITH_RESUME = ("resume_", "data", "reports", "fmt", "output")


def train(
    context: typer.Context,
    network_: options.Network = None,
    arch_: options.Arch = None,
    set_: options.Set = None,
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset", help="A data set's name (meliuscli list datasets).", autocompletion=completion.datasets
        ),
    ] = ("fashion-mnist-mini"),
    data: options.Data = None,
    skip_bad: options.SkipBad = False,
    recipe_name: Annotated[
        str,
        typer.Option(
            "--recipe",
            help="quick, paper (MeliusNet's own), paper-meliusnet59, or a TOML file.",
            autocompletion=completion.recipes,
        ),
    ] = "quick",
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Instead of the recipe's.", show_default=False)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Images a step, instead of the recipe's.", show_default=False)
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", help="At the first step, instead of the recipe's.", show_default=False),
    ] = None,
    recipe_set: Annotated[
        list[str] | None,
        typer.Option("--recipe-set", metavar="KEY=VALUE", help="Change a field of the recipe; repeatable."),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, max=1000, help="How many trainings (one, where --seed is given).")
    ] = 3,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=2**31 - 1001, help="The first of the seeds (0).", show_default=False),
    ] = None,
    input_size: Annotated[
        int, typer.Option("--input-size", min=1, max=1024, help="Height and width to train at.")
    ] = 32,
    width_divisor: Annotated[
        int, typer.Option("--width-divisor", min=1, max=1024, help="Divide all widths by this.")
    ] = 1,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            metavar="run:ID",
            help="A recorded run to distil from, by the recipe's distill_weight (0.5 where it has none).",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"], typer.Option("--device", help="Where to train; auto: CUDA, MPS, CPU.")
    ] = "auto",
    compile_: Annotated[
        Literal["auto", "on", "off"],
        typer.Option("--compile", help="torch.compile; auto: where it pays within the run, by a short measurement."),
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            max=256,
            help="Of the CPU (default: torch's choice, all cores; take 1 where others use them).",
            show_default=False,
        ),
    ] = None,
    resume_: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="run:ID",
            help="Go on with an unfinished run.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    weights: Annotated[
        bool, typer.Option("--weights/--no-weights", help="Write the trained weights beside the result.")
    ] = True,
    reports: Annotated[Path, typer.Option("--reports", help="Where the result is written.")] = REPORTS,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Train a network and report mean and spread over seeds.

    Inputs below 50 pixels take the thumbnail stem. The test split is scored once, at the end of each training. A run
    that was killed goes on with --resume, and under torchrun (-m meliuscli train) several devices train one network.

    Example: meliuscli train meliusnet22 --input-size 8 --width-divisor 8 --epochs 0.4 --seeds 1 --compile off"""
    leads = os.environ.get("RANK", "0") == "0"
    try:
        if resume_ is not None:
            if is_own(arch_ or ""):
                own_arch(str(arch_), [])  # so the command line names the file that the run wants executed
            _refuse_changes(context, is_own(arch_ or ""))
            ready = resume_run(resume_, data, reports, SHELL)
        else:
            arch = the_one(network_, arch_)
            named = own_arch(arch, set_ or []) if is_own(arch) else load_network(arch, set_ or [], reports)
            changes = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
            recipe = _recipe(recipe_name, recipe_set or [], changes)
            if seed is not None and not is_given(context, "seeds"):
                seeds = 1
            sizes = (seeds, input_size, width_divisor)
            ready = begin_run(
                Wanted(
                    named,
                    dataset,
                    data,
                    skip_bad,
                    recipe,
                    *sizes,
                    weights,
                    teacher,
                    device,
                    compile_,
                    threads=threads,
                    first_seed=seed or 0,
                    overrides=tuple(set_ or []),
                ),
                reports,
                SHELL,
            )
        _run(ready, reports, fmt, output)
    except MeliusError as error:
        if leads:
            raise
        # All processes find the same; one says it.
        raise typer.Exit(error.exit_code) from None


def _run(ready: Ready, reports: Path, fmt: Format, output: Path | None) -> None:
    from meliuscli.training.processes import leave

    failure = train_all(ready)
    record, run_id = ready.session.finish(failure), ready.session.plan.id
    if record is not None and ready.session.processes.leads:
        path = record_path(reports, run_id)
        if fmt == "json":
            answer(to_json(record), output)
        else:
            answer_tables([run_table(Run(path, record))], fmt, output)
        talk(f"written: {path} (meliuscli show run:{run_id})")
    leave()
    if failure is not None:
        raise failure


def _recipe(name: str, overrides: Sequence[str], changes: dict[str, Any]) -> Recipe:
    from meliuscli.training.recipe import find_recipe

    given = {key: value for key, value in changes.items() if value is not None}
    changed = parse_overrides(overrides, "--recipe-set")
    for key in given.keys() & changed:
        raise BadInputError(f"--{key.replace('_', '-')} and --recipe-set {key}: they say the same", "give one of them")
    return find_recipe(name, {**changed, **given})


def _refuse_changes(context: typer.Context, names_file: bool) -> None:
    """A resumed run is what it was begun as. ``names_file``: --arch only says that the run's file may be executed."""
    names = {
        "fmt": "format",
        "set_": "set",
        "network_": "arch",
        "arch_": "arch",
        "recipe_name": "recipe",
        "compile_": "compile",
    }
    for name in context.params:
        if name == "arch_" and names_file:
            continue
        if name not in GOES_WITH_RESUME and is_given(context, name):
            option = names.get(name, name).replace("_", "-")
            raise BadInputError(f"--{option}: a run goes on as it was begun", "leave it out with --resume")
