"""``meliuscli train``: train one network from several seeds and write the result down."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from meliuscli.arch.zoo import parse_overrides
from meliuscli.cli import completion, options
from meliuscli.cli.console import give, is_configured, is_given, talk
from meliuscli.cli.networks import is_own, load_network, own_arch, the_one
from meliuscli.errors import BadInputError, MeliusError
from meliuscli.exchange.headers import names_file
from meliuscli.report.runs import run_answer
from meliuscli.runs import REPORTS
from meliuscli.training.reopen import resume_run
from meliuscli.training.start import Wanted, begin_run

if TYPE_CHECKING:
    from meliuscli.training.recipe import Recipe


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
    report_to: options.ReportTo = None,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Train a network and report mean and spread over seeds.

    Inputs below 50 pixels take the thumbnail stem. The test split is scored once, at the end of each training. A run
    that was killed goes on with --resume, and under torchrun (-m meliuscli train) several devices train one network.

    Example: meliuscli train meliusnet22 --input-size 8 --width-divisor 8 --epochs 0.4 --seeds 1 --compile off"""
    with _one_voice(), options.reporting(report_to, reports) as listener:
        if resume_ is not None:
            _allow_file(arch_)
            ready = resume_run(resume_, data, reports, listener, _given_anew(context, arch_))
        else:
            ready = begin_run(_wanted(context), reports, listener)
        from meliuscli.training.processes import leave
        from meliuscli.training.seeds import conduct_run

        run, failure = conduct_run(ready, listener)
        if run is not None and ready.session.processes.leads:
            give(run_answer(run), fmt, output)
            talk(f"written: {run.path} (meliuscli show run:{run.id})")
        leave()
        if failure is not None:
            raise failure


@contextmanager
def _one_voice() -> Iterator[None]:
    """Of several processes all find the same error; the leader says it."""
    try:
        yield
    except MeliusError as error:
        if os.environ.get("RANK", "0") == "0":
            raise
        raise typer.Exit(error.exit_code) from None


def _wanted(context: typer.Context) -> Wanted:
    """What a new run is asked for."""
    given = context.params
    arch, set_ = the_one(given["network_"], given["arch_"]), given["set_"] or []
    is_trained = arch.lower().startswith("run:") or (not is_own(arch) and names_file(arch))
    if is_trained and os.environ.get("RANK", "0") == "0":
        talk(f"note: the network of {arch} is trained anew: its weights are not used")
    are_asked = is_given(context, "seeds") or is_configured(context, "seeds")
    seeds = 1 if given["seed"] is not None and not are_asked else given["seeds"]
    return Wanted(
        named=own_arch(arch, set_) if is_own(arch) else load_network(arch, set_, given["reports"]),
        recipe=_recipe(given["recipe_name"], given["recipe_set"] or [], {key: given[key] for key in RECIPE_OPTIONS}),
        seeds=seeds,
        first_seed=given["seed"] or 0,
        compile=given["compile_"],
        overrides=tuple(set_),
        **{key: given[key] for key in AS_GIVEN},
    )


RECIPE_OPTIONS = ("epochs", "batch_size", "learning_rate")
AS_GIVEN = (*("dataset", "data", "skip_bad", "input_size", "width_divisor", "weights", "teacher", "device", "threads"),)
"""Options that ``Wanted`` has under the same name and as they are."""


def _recipe(name: str, overrides: Sequence[str], changes: dict[str, Any]) -> Recipe:
    from meliuscli.training.recipe import find_recipe

    given = {key: value for key, value in changes.items() if value is not None}
    changed = parse_overrides(overrides, "--recipe-set")
    for key in given.keys() & changed:
        raise BadInputError(f"--{key.replace('_', '-')} and --recipe-set {key}: they say the same", "give one of them")
    return find_recipe(name, {**changed, **given})


def _allow_file(arch: str | None) -> None:
    """An unfinished run of a module of one's own is gone on with where the command line names its file."""
    if arch is not None and is_own(arch):
        own_arch(arch, [])


def _given_anew(context: typer.Context, arch: str | None) -> list[str]:
    """The options that ask for something else than what a run was begun with."""
    allowed = GOES_WITH_RESUME | ({"arch_"} if arch is not None and is_own(arch) else set())
    given = [name for name in context.params if name not in allowed and is_given(context, name)]
    return [f"--{OPTIONS.get(name, name).replace('_', '-')}" for name in given]


GOES_WITH_RESUME = {"resume_", "data", "reports", "report_to", "fmt", "output"}
OPTIONS = {"set_": "set", "network_": "arch", "arch_": "arch", "recipe_name": "recipe", "compile_": "compile"}
