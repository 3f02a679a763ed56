"""``meliuscli compare``: networks side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meliuscli.arch.zoo import arch_names
from meliuscli.cli import completion, options
from meliuscli.cli.console import answer, answer_tables, talk, talk_of
from meliuscli.cli.networks import count_any, is_own, words_of
from meliuscli.errors import BadInputError, SpecError
from meliuscli.report.compare import compare_table, compare_warnings
from meliuscli.report.count import count_object, make_view
from meliuscli.report.predict import believed_object
from meliuscli.report.published import published_object
from meliuscli.report.tables import to_json
from meliuscli.runs import REPORTS


def compare(
    archs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names, TOML files, run:ID or FILE.py:FACTORY; ratios are to the first.",
            show_default=False,
            autocompletion=completion.networks,
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All named networks, behind those given.")] = False,
    set_: options.Set = None,
    convention: options.ConventionName = "melius",
    float_bits: options.FloatBits = None,
    bn_params: options.BnParams = None,
    input_: options.Inputs = None,
    binary: options.Binary = None,
    bits: options.Bits = None,
    pareto: Annotated[
        Path | None,
        typer.Option(
            "--pareto", help="Draw published top-1 against our OPs into this file (.png, .svg).", show_default=False
        ),
    ] = None,
    reports: options.Reports = REPORTS,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Compare the costs of networks, with published figures and accuracies beside our counts.

    Example: meliuscli compare mobilenet-v1 meliusnet22"""
    view = make_view(convention, float_bits, bn_params)
    names = [*(archs or []), *(name for name in arch_names() if all_ and name not in (archs or []))]
    if not names:
        raise BadInputError("no network to compare", "name some (meliuscli list), or give --all")
    if (binary or bits) and not any(map(is_own, names)):
        option = "--binary" if binary else "--bits"
        raise BadInputError(f"{option} is for modules of your own (FILE.py:FACTORY), and none is given")
    words = words_of(bits, binary)
    counted = []
    for name in names:
        try:
            counted.append(count_any(name, set_ or [], words, input_ or [], view.storage, reports))
        except SpecError as error:
            if name in (archs or []):
                raise BadInputError(f"{name}: {error.message}", error.hint) from None
            talk(f"left out: {name}: {error.message}")
    if not counted:
        raise BadInputError("none of the networks can be that", "the lines above say why")
    if pareto is not None:
        from meliuscli.report.pareto import draw_published

        missing = draw_published(counted, view, pareto)
        talk(f"{pareto} written" + (f"; not in it, without a published top-1: {', '.join(missing)}" if missing else ""))
    talk_of(fmt, compare_warnings(counted, view))
    if fmt == "json":
        objects = [
            {
                **count_object(network, "stage", view, None),
                "published": list(map(published_object, network.published)),
                "believed": believed_object(network),
            }
            for network in counted
        ]
        answer(to_json(objects), output)
        return
    answer_tables([compare_table(counted, view)], fmt, output)
