"""``meliuscli compare``: networks side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from meliuscli.arch.zoo import load_arch
from meliuscli.cli import options
from meliuscli.cli.console import answer, answer_tables
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import find_convention
from meliuscli.report.count import compare_table, count_object
from meliuscli.report.tables import to_json


def compare(
    archs: Annotated[
        list[str], typer.Argument(help="Names or TOML files; ratios are to the first.", show_default=False)
    ],
    set_: options.Set = None,
    convention: options.ConventionName = "melius",
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Compare the costs of networks, with published accuracies beside our counts."""
    rule = find_convention(convention)
    counted = [(named, count_spec(named.spec)) for named in (load_arch(arch, set_ or []) for arch in archs)]
    if fmt == "json":
        answer(to_json([count_object(named, count, "stage", rule, None) for named, count in counted]), output)
        return
    answer_tables([compare_table(counted, rule)], fmt, output)
