"""``meliuscli worker``: one of many processes that work on a shared study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meliuscli.cli import options
from meliuscli.cli.console import answer, doing, status
from meliuscli.cli.progress import SHELL
from meliuscli.errors import InterruptedByUser
from meliuscli.units import parse_duration
from meliuscli.work.folders import REPORTS


def worker(
    study: Annotated[str, typer.Option("--study", help="Name of the study.", show_default=False)],
    storage: options.Storage = "journal",
    max_trials: Annotated[
        int | None,
        typer.Option(
            "--max-trials",
            min=1,
            help="Leave after so many trainings (search --trials says how many the study has).",
            show_default=False,
        ),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            "--time-limit", help="Hand back what is in training and leave after this (3h50m).", show_default=False
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="auto|cpu|cuda|cuda:N|mps",
            help="Where to train (default: as the study was made); cuda: a GPU that no other worker has.",
            show_default=False,
        ),
    ] = None,
    per_device: Annotated[int, typer.Option("--per-device", min=1, max=64, help="Workers that share a GPU.")] = 1,
    data: options.Data = None,
    reports: Annotated[Path, typer.Option("--reports", help="Where study folders are.")] = REPORTS,
) -> None:
    """Work on a study that meliuscli search --storage has made: candidates, then finals, one at a time, until nothing is left.

    SIGTERM and SIGUSR1 make it hand back what it trains, for others, and leave with exit code 0. A worker with other data,
    another space, recipe or release is refused.

    Example: meliuscli worker --study night --storage journal:studies/night.log --time-limit 3h50m"""
    limit = None if time_limit is None else parse_duration(time_limit, "--time-limit")
    with status("loading"):
        from meliuscli.search.together import join_and_work

    with doing(f"working on the study {study}"):
        left = join_and_work(study, storage, reports, limit, max_trials, device, per_device, data, SHELL)
    answer(f"{left.sentence}\n", None)
    if left.interrupted:
        raise InterruptedByUser("interrupted; what was in training is handed back", "the same command goes on")
