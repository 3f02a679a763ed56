"""``meliuscli show``: one network, drawn, with what is published of it and its TOML."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meliuscli.arch.spec import ArchSpec
from meliuscli.cli import completion, options
from meliuscli.cli.console import answer, give, status, talk
from meliuscli.cli.networks import count_named, load_network
from meliuscli.errors import BadInputError
from meliuscli.report.answers import Answer
from meliuscli.report.counted import make_view
from meliuscli.report.drawing import network_answer
from meliuscli.report.evaluation import preprocessing_table
from meliuscli.report.runs import run_answer
from meliuscli.report.tables import Format
from meliuscli.report.works import find_work, show_work
from meliuscli.runs import REPORTS, load_run

if TYPE_CHECKING:
    from meliuscli.search.space import SearchSpace
    from meliuscli.training.recipe import Recipe


NO_NETWORKS = {
    "run": "a training",
    "study": "a study",
    "check": "a check of proxies",
    "space": "a search space",
    "recipe": "a recipe",
}


def show(
    arch: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A network (meliuscli list, a TOML file, FILE.packed.safetensors, FILE.onnx, a directory of C), run:ID, study:NAME, check:NAME,"
            " space:NAME or recipe:NAME.",
            show_default=False,
            autocompletion=completion.targets,
        ),
    ],
    set_: options.Set = None,
    input_: options.Input = None,
    toml: Annotated[bool, typer.Option("--toml", help="Only the TOML, for a file of your own.")] = False,
    reports: Annotated[Path, typer.Option("--reports", help="Where recorded runs lie.")] = REPORTS,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Show a network, a recorded training, a study, a check, a search space or a recipe.

    Of a network its stages are drawn, published figures are held against our count, and its TOML is printed. Of a
    training, a search's study and a check of proxies: what came of it, how far it is, and what goes on with it. A
    search space or a recipe is printed as TOML, for a file of your own to begin with.

    Example: meliuscli show reactnet-b"""
    before, _, name = arch.partition(":")
    if (kind := before.lower()) in NO_NETWORKS and (set_ or input_ is not None):
        raise BadInputError(f"--set and --input change a network, and {arch} is {NO_NETWORKS[kind]}", "leave them out")
    if kind in ("study", "check"):
        _show_work(kind, name, toml, reports, fmt, output)
    elif kind in ("space", "recipe"):
        _show_settings(kind, name, toml, fmt, output)
    elif kind == "run":
        run = load_run(name, reports, unfinished=True)
        if toml:
            _print_toml(load_network(arch, (), reports).spec, fmt, output)
        else:
            give(run_answer(run), fmt, output)
    else:
        view = make_view("melius", None, None)
        network = count_named(arch, set_ or [], input_, view.storage)
        if toml and network.spec is not None:
            _print_toml(network.spec, fmt, output)
        else:
            shown = network_answer(network, view)
            if network.preprocessing is not None:
                shown = replace(shown, tables=(*shown.tables, preprocessing_table(network.preprocessing)))
            give(shown, fmt, output)


def _show_work(kind: str, name: str, toml: bool, reports: Path, fmt: Format, output: Path | None) -> None:
    if toml:
        raise BadInputError(f"--toml: {kind}:{name} is {NO_NETWORKS[kind]}, which has no TOML", "leave it out")
    directory = find_work(kind, name, reports)
    with status("loading"):
        shown = show_work(kind, directory)
    give(shown.answer, fmt, output)
    if fmt != "json":
        talk(f"made by: {shown.command}\n{shown.state}; {shown.way}")


def _show_settings(kind: str, name: str, toml: bool, fmt: Format, output: Path | None) -> None:
    """A search space's file as it is, or a recipe with every field."""
    if toml:
        _require_no_format(fmt)
    if fmt not in ("table", "json"):
        raise BadInputError(f"{kind}:{name} is TOML or JSON, and no table", "leave --format out")
    value: SearchSpace | Recipe
    if kind == "space":
        from meliuscli.search.space import load_space

        _, value, text = load_space(name)
    else:
        from meliuscli.training.recipe import find_recipe

        value = find_recipe(name)
        text = value.to_toml()
    give(Answer((), lambda: value.model_dump(mode="json"), endings={"table": text}), fmt, output)


def _require_no_format(fmt: Format) -> None:
    if fmt != "table":
        raise BadInputError("--toml has a format of its own: leave --format out")


def _print_toml(spec: ArchSpec, fmt: Format, output: Path | None) -> None:
    _require_no_format(fmt)
    answer(spec.to_toml(), output)
