"""``meliuscli compare``: networks side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from meliuscli.arch.zoo import arch_names
from meliuscli.cli import completion, options
from meliuscli.cli.console import give, talk, talk_of
from meliuscli.cli.networks import count_to_compare, is_own, words_of
from meliuscli.errors import BadInputError, SpecError
from meliuscli.report.compare import compare_answer, compare_warnings
from meliuscli.report.counted import Counted, View, make_view
from meliuscli.runs import REPORTS


def compare(
    archs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NETWORK",
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
            "--pareto",
            help="Draw top-1, published and of runs, against our OPs into this file (.png, .svg, .pdf).",
            show_default=False,
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
    words = words_of(bits, binary)
    if words and not any(map(is_own, names)):
        option = words[0].split()[0]
        raise BadInputError(f"{option} is for modules of your own (FILE.py:FACTORY), and none is given")
    counted = []
    for name in names:
        try:
            counted.append(count_to_compare(name, set_ or [], words, input_ or [], view.storage, reports))
        except SpecError as error:
            if name in (archs or []):
                raise BadInputError(f"{name}: {error.message}", error.hint) from None
            talk(f"left out: {name}: {error.message}")
    if not counted:
        raise BadInputError("none of the networks can be that", "the lines above say why")
    if pareto is not None:
        _draw(counted, view, pareto)
    talk_of(fmt, compare_warnings(counted, view))
    give(compare_answer(counted, view), fmt, output)


def _draw(counted: Sequence[Counted], view: View, path: Path) -> None:
    from meliuscli.report.pareto import draw_pareto

    missing = draw_pareto(counted, view, path)
    talk(f"{path} written" + (f"; not in it, without a published top-1: {', '.join(missing)}" if missing else ""))
