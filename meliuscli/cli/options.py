"""Options that several commands share."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from meliuscli.cli import completion
from meliuscli.cli.progress import SHELL
from meliuscli.errors import BadInputError
from meliuscli.report.tables import Format
from meliuscli.work.listener import Listener

Network = Annotated[
    str | None,
    typer.Argument(
        metavar="NETWORK",
        help="A name (meliuscli list), a TOML file (- for stdin), run:ID, or FILE.py:FACTORY for a module.",
        show_default=False,
        autocompletion=completion.networks,
    ),
]
Arch = Annotated[
    str | None,
    typer.Option("--arch", help="The same as NETWORK.", show_default=False, autocompletion=completion.networks),
]
Reports = Annotated[Path, typer.Option("--reports", help="Where recorded runs lie.")]
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
    str,
    typer.Option(
        "--convention",
        metavar="melius|reactnet|larq|real2binary|ace|bnext|qonnx|full",
        help="The paper whose rule makes the totals (meliuscli explain conventions).",
        autocompletion=completion.conventions,
    ),
]
FloatBits = Annotated[
    int | None,
    typer.Option(
        "--float-bits",
        min=1,
        max=64,
        help="Bits of a float in sizes (32) and ACE (16); 8: RAM and flash with stem and head in int8 too.",
        show_default=False,
    ),
]
BnParams = Annotated[
    int | None,
    typer.Option(
        "--bn-params", min=0, max=4, help="Values of a batch-norm channel in params and sizes.", show_default=False
    ),
]
Input = Annotated[
    str | None,
    typer.Option(
        "--input", metavar="CxHxW", help="Input shape, or its size (64) for three channels.", show_default=False
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="Input shape (3x224x224), or its size (64) for three channels; repeatable, as ids=int64:1x128, for"
        " FILE.py:FACTORY.",
        show_default=False,
    ),
]
Binary = Annotated[
    list[str] | None,
    typer.Option(
        "--binary", metavar="PATTERN", help="Names of the binary modules of FILE.py:FACTORY (layer*.conv?); repeatable."
    ),
]
Bits = Annotated[
    list[str] | None,
    typer.Option(
        "--bits",
        metavar="PATTERN=WxA",
        help="Bits of weights and activations of modules of FILE.py:FACTORY (layer*=1x8; 32 is float); repeatable.",
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out image files that cannot be read, and count them.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Directory of the data set's files (the embedded one needs none).", show_default=False),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"], typer.Option("--device", help="Where to train; auto: CUDA, MPS, CPU.")
]
ReportTo = Annotated[
    str | None,
    typer.Option(
        "--report-to",
        metavar="TRACKER,...",
        help="Also write what is measured for tensorboard, wandb, mlflow, trackio (offline, into the folder of results).",
        show_default=False,
    ),
]
Storage = Annotated[
    str,
    typer.Option(
        "--storage",
        metavar="URL",
        help="Where a shared study is: journal (in its folder), journal:PATH on a file system that all see,"
        " postgresql://USER@HOST/DATABASE, mysql://, redis://, grpc://HOST:PORT, sqlite:///FILE (one worker).",
        show_default=False,
    ),
]


def reporting(report_to: str | None, reports: Path) -> AbstractContextManager[Listener]:
    """The terminal and the trackers of --report-to as one listener. Raises as ``reporting_to``."""
    if report_to is None:
        return nullcontext(SHELL)
    from meliuscli.report.trackers import reporting_to

    return reporting_to([name.strip() for name in report_to.split(",")], reports, SHELL)


def refuse_both(resume: bool, force: bool) -> None:
    """Work is either gone on with or begun anew."""
    if resume and force:
        raise BadInputError("--resume and --force exclude each other")
