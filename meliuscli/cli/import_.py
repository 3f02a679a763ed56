"""``meliuscli import``: a network that was trained elsewhere, as a recorded run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meliuscli.cli import options
from meliuscli.cli.console import answer, status, talk
from meliuscli.cli.networks import load_network
from meliuscli.errors import BadInputError
from meliuscli.runs import REPORTS
from meliuscli.units import format_count, format_mib


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file of weights of another program.", show_default=False)
    ],
    arch: Annotated[
        str | None,
        typer.Option("--arch", metavar="NAME", help="The network (default: as the file says).", show_default=False),
    ] = None,
    set_: options.Set = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="larq|bmxnet|bmxnet-v2|reactnet|bnext|qonnx|ours",
            help="The program that wrote the file (default: as the file is named).",
            show_default=False,
        ),
    ] = None,
    reports: options.Reports = REPORTS,
) -> None:
    """Read a network that was trained elsewhere, and record it with its weights as a run, usable wherever run:ID is.

    Nothing of the file is executed. A file that does not fit says which tensor is missing, left over or of another shape.

    Example: meliuscli import binarized_cifar10-resnet18-64bit-0000.params"""
    if set_ and arch is None:
        raise BadInputError("--set: changes the network of --arch, and none is given", "name it too")
    with status("loading torch"):
        from meliuscli.exchange.importing import check_source, import_file
    if source is not None:
        check_source(source)
    asked = None if arch is None else load_network(arch, set_ or [], reports)
    with status(f"reading {file}"):
        run = import_file(file, asked, source, reports)
    about, trained = run.fields["imported"], run.fields["trained"]
    for note in about["notes"]:
        talk(f"note: {note}")
    costs = f"{format_count(trained['ops'] or 0)} OPs, {format_mib(trained['size_bytes'])}"
    answer(f"run:{run.id}: {run.fields['arch']} ({trained['archid']}) of {about['format']}, {costs}\n", None)
    talk(f"go on with: meliuscli show run:{run.id}, evaluate run:{run.id}, export run:{run.id}")
