"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meliuscli.report.tables import Format

Arch = Annotated[str, typer.Option("--arch", help="A network's name (meliusnet29) or a TOML file.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a field of the network; repeatable (growth_rate=48)."),
]
OutputFormat = Annotated[Format, typer.Option("--format", help="How the answer is written.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write the answer to this file.", show_default=False)
]
Verify = Annotated[
    bool, typer.Option("--verify/--no-verify", help="Check the counts against a trace of the real torch network.")
]
ConventionName = Annotated[
    str, typer.Option("--convention", help="melius: convolutions only, as the paper; full: with the classifier.")
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Directory of the data set's files (the embedded one needs none).", show_default=False),
]
