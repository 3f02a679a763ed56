"""``meliuscli check-proxy``: does a short training rank networks as a long one does?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from meliuscli.cli import completion, options
from meliuscli.cli.console import give, is_given, status, talk
from meliuscli.cli.progress import SHELL
from meliuscli.units import parse_count


def check_proxy(
    context: typer.Context,
    space: Annotated[
        str,
        typer.Argument(metavar="SPACE", help="A search space's name or TOML file.", autocompletion=completion.spaces),
    ] = "meliusnet",
    networks: Annotated[
        int | None,
        typer.Option("--networks", min=4, max=10_000, help="How many to sample (default: 24).", show_default=False),
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="None above these OPs: 5e8, 500M, 0.5G.", show_default=False)
    ] = None,
    changes: Annotated[
        Path | None,
        typer.Option("--check", help="TOML with [long] and [proxies.NAME]: what differs from the space's [proxy]."),
    ] = None,
    long: Annotated[
        str | None,
        typer.Option("--long", metavar="RECIPE", help="Recipe of the long training (default: the space's final one)."),
    ] = None,
    long_epochs: Annotated[
        float | None,
        typer.Option("--long-epochs", help="Default: that of the recipe, at least 4 times the proxy's if the space's."),
    ] = None,
    long_dataset: Annotated[
        str | None, typer.Option("--long-dataset", help="Data set of the long training (default: the proxy's).")
    ] = None,
    against: Annotated[
        Literal["long", "published"],
        typer.Option("--against", help="Judge by long trainings, or by what is published on ImageNet."),
    ] = "long",
    device: options.Device = "cpu",
    data: options.Data = None,
    skip_bad: options.SkipBad = False,
    at_fraction: Annotated[
        list[float] | None,
        typer.Option(
            "--at-fraction", help="Also read the long training after this part of it; repeatable (default: 0.25, 0.5)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 3, help="Everything random follows from it.")] = 0,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=256, help="Trainings at a time (default: cores).", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the check's folder (default: check- and the space).", show_default=False),
    ] = None,
    reports: Annotated[Path, typer.Option("--reports", help="Where the folder is.")] = Path("reports"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue: the same command again; --check may have more proxies.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete a check of that name first.")] = False,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Check whether a space's proxy, and other short trainings, rank its networks as a long training does.

    Samples networks spread over OPs, trains each long from two seeds and once in every short way, and holds the short
    ones against the long and against what is known for nothing (packed size, params, OPs). With --against published the
    networks are the topologies whose ImageNet results are published with MeliusNet's recipe, nothing is trained long,
    and the question is what a proxy adds to beliefs about ImageNet. A proxy of the --check file may have a teacher, a
    network that is trained in the same way first. Writes reports/NAME with check.json, report.md, check.csv and a plot.

    Example: meliuscli check-proxy meliusnet --networks 24"""
    options.refuse_both(resume, force)
    asked: dict[str, Any] = {name: context.params[name] for name in AS_GIVEN}
    with status("loading"):
        from meliuscli.api.proxy_checks import checked_again, checked_anew
        from meliuscli.search.checking import AskedCheck
        from meliuscli.training.recipe import find_recipe

        asked["budget"] = None if budget is None else parse_count(budget, "--budget")
        asked["long"] = None if long is None else find_recipe(long)
        asked["fractions"] = None if at_fraction is None else tuple(at_fraction)
    num_workers = workers or os.cpu_count() or 1
    if resume:
        given = {FIELDS.get(option, option) for option in context.params if is_given(context, option)}
        anew = {field: value for field, value in asked.items() if field in given}
        report = checked_again(name, anew, num_workers, reports, SHELL)
    else:
        report = checked_anew(AskedCheck(**asked), num_workers, reports, name, force, SHELL)
    give(report.answer(), fmt, output)
    talk(f"written: {report.directory} (report.md, check.csv, check.png, check.json)")
    report.require_judged()


AS_GIVEN = (
    *("space", "networks", "changes", "long_epochs", "long_dataset", "against", "device", "data", "skip_bad", "seed"),
)
"""Options that ``AskedCheck`` has under the same name and as they are."""
FIELDS = {"at_fraction": "fractions"}
"""Options that it has under another name."""
