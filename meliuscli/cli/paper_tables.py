"""``meliuscli paper-tables``: MeliusNet's tables, counted again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meliuscli.cli.console import answer, status


def paper_tables(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Where the tables are written.")] = Path(
        "reports/paper-tables"
    ),
) -> None:
    """Write the tables of MeliusNet's paper, our counts beside the published ones.

    As markdown, CSV and LaTeX, with a picture of the MeliusNets and their peers.

    Example: meliuscli paper-tables my-tables"""
    from meliuscli.report.paper_tables import write_paper_tables

    with status("counting and drawing"):
        written = write_paper_tables(directory)
    answer("".join(f"{path}\n" for path in written), None)
