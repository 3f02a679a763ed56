"""``meliuscli evaluate``: what a trained network is worth on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from meliuscli.cli import options
from meliuscli.cli.console import give, is_configured, status, talk_of
from meliuscli.cli.progress import SHELL
from meliuscli.data.names import DEFAULT_DATASET, check_dataset_name
from meliuscli.export.c.manifest import c_directory
from meliuscli.report.evaluation import evaluation_answer
from meliuscli.runs import REPORTS


def evaluate(
    context: typer.Context,
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="run:ID, FILE.packed.safetensors, FILE.onnx or a directory of C.",
            show_default=False,
        ),
    ],
    dataset: Annotated[str, typer.Option("--dataset", help="meliuscli list datasets.")] = DEFAULT_DATASET,
    data: options.Data = None,
    split: Annotated[Literal["train", "validation", "test"], typer.Option("--split", help="Which images.")] = "test",
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Take so many images, evenly from the split.", show_default=False),
    ] = None,
    skip_bad: options.SkipBad = False,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, max=2**31 - 1, help="Which seed of the run (its best on validation).", show_default=False
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Threads, of ours and of torch.")] = 1,
    reports: options.Reports = REPORTS,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Score a trained network on a data set: top-1, top-5, loss, confusion matrix and images a second.

    A run is scored in torch and bit-packed, and both are held against each other image by image. The data are brought to the
    network's size, and normalised by the mean and deviation that stand with its weights.

    Example: meliuscli evaluate run:1a2b --dataset cifar10 --data ~/cifar-10-batches-bin"""
    check_dataset_name(dataset)
    with status("loading torch"):
        import torch

        from meliuscli.api import evaluating
    if is_configured(context, "threads") and c_directory(Path(network)) is not None:
        threads = 1  # as it runs, whatever the others do
    torch.set_num_threads(threads)
    result = evaluating.evaluate(
        *(network, dataset, data),
        split=split,
        limit=limit,
        skip_bad=skip_bad,
        seed=seed,
        threads=threads,
        reports=reports,
        listener=SHELL,
    )
    talk_of(fmt, [f"note: {note}" for note in result.notes])
    give(evaluation_answer(result), fmt, output)
