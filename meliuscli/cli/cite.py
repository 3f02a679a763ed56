"""``meliuscli cite``: what to cite."""

from __future__ import annotations

from typing import Annotated

import typer

from meliuscli.arch.references import references_for, to_bibtex, tool_reference
from meliuscli.cli import completion, options
from meliuscli.cli.console import answer
from meliuscli.cli.networks import load_network

DEFAULT = "meliusnet22"
"""Whose paper is shown when no network is named."""


def cite(
    archs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NETWORK",
            help="Names or TOML files of networks; MeliusNet when there are none.",
            show_default=False,
            autocompletion=completion.networks,
        ),
    ] = None,
    output: options.Output = None,
) -> None:
    """Write BibTeX entries of meliuscli and of the papers behind networks, each once.

    Example: meliuscli cite meliusnet29 reactnet-a"""
    papers = (paper for arch in archs or [DEFAULT] for paper in references_for(load_network(arch).spec))
    entries = dict.fromkeys((tool_reference(), *papers))
    answer("\n".join(map(to_bibtex, entries)), output)
