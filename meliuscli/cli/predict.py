"""``meliuscli predict``: what a network is believed to reach on ImageNet, and how sure that is."""

from __future__ import annotations

from typing import Annotated

import typer

from meliuscli.cli import completion, options
from meliuscli.cli.console import answer, answer_tables
from meliuscli.cli.networks import count_named, is_own
from meliuscli.counting.counts import Storage
from meliuscli.errors import BadInputError
from meliuscli.report.predict import predict_object, predict_table
from meliuscli.report.tables import to_json


def predict(
    networks: Annotated[
        list[str],
        typer.Argument(
            help="Names (meliuscli list) or TOML files of networks.",
            show_default=False,
            autocompletion=completion.networks,
        ),
    ],
    set_: options.Set = None,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Say what ImageNet top-1 a network is believed to reach, with an interval, from 17 published runs of one recipe.

    Example: meliuscli predict meliusnet29 --set growth_rate=48"""
    from meliuscli.evidence.belief import believe, sentence  # loads numpy

    for name in networks:
        if is_own(name):
            raise BadInputError(
                f"{name}: nothing is believed about modules of your own", "name a network or a TOML file"
            )
    counted = [count_named(name, set_ or [], None, Storage()) for name in networks]
    beliefs = believe([n.spec for n in counted if n.spec is not None], [n.name for n in counted])
    if fmt == "json":
        objects = [predict_object(network, belief) for network, belief in zip(counted, beliefs, strict=True)]
        answer(to_json({"networks": objects, "evidence": sentence()}), output)
    else:
        answer_tables([predict_table(counted, beliefs)], fmt, output)
