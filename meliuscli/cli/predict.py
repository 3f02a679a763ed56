"""``meliuscli predict``: what a network is believed to reach on ImageNet, and how sure that is; with images, what a trained
network says of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meliuscli.arch.zoo import is_name
from meliuscli.cli import completion, options
from meliuscli.cli.console import give, is_given, status
from meliuscli.cli.networks import count_named, is_own
from meliuscli.counting.counts import Storage
from meliuscli.errors import BadInputError
from meliuscli.exchange.headers import names_file
from meliuscli.report.predict import predict_answer
from meliuscli.report.tables import Format
from meliuscli.runs import REPORTS

if TYPE_CHECKING:
    from meliuscli.evidence.belief import Belief
    from meliuscli.report.counted import Counted


def predict(
    context: typer.Context,
    networks: Annotated[
        list[str],
        typer.Argument(
            metavar="NETWORK",
            help="Names (meliuscli list) or TOML files of networks; or run:ID, FILE.packed.safetensors, FILE.onnx or a"
            " directory of C with images behind it.",
            show_default=False,
            autocompletion=completion.networks,
        ),
    ],
    set_: options.Set = None,
    top: Annotated[int, typer.Option("--top", min=1, max=100, help="With images: how many classes of each.")] = 5,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=2**31 - 1, help="With images: which seed of the run.", show_default=False),
    ] = None,
    reports: options.Reports = REPORTS,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Say what ImageNet top-1 a network is believed to reach, with an interval, from 17 published runs of one recipe. With
    images behind a trained network: say which classes it takes them for.

    Nothing is run without images, and nothing is believed with them. Images go through what the file of the network says of
    them (size, crop, mean, deviation).

    So meliuscli predict run:1a2b cat.jpg dog.jpg --top 3 names three classes for each image.

    Example: meliuscli predict meliusnet29 --set growth_rate=48"""
    _refuse_folders(networks)
    if any(map(_is_image, networks)):
        _classify(networks, set_ or [], top, seed, reports, fmt, output)
        return
    if unused := [f"--{name}" for name in ("top", "seed") if is_given(context, name)]:
        hint = "name image files behind run:ID"
        raise BadInputError(f"{' and '.join(unused)}: for images, and none are given", hint)
    for name in networks:
        if is_own(name):
            raise BadInputError(
                f"{name}: nothing is believed about modules of your own", "name a network or a TOML file"
            )
    counted = [count_named(name, set_ or [], None, Storage(), reports) for name in networks]
    give(predict_answer(counted, _believed(networks, counted)), fmt, output)


def _believed(words: list[str], counted: list[Counted]) -> list[Belief]:
    """Raises ``BadInputError`` for a network that the evidence does not cover; of a trained one, images may have been meant."""
    from meliuscli.evidence.belief import believe  # loads numpy

    try:
        return believe([n.spec for n in counted if n.spec is not None], [n.name for n in counted])
    except BadInputError as error:
        trained = [word for word in words if word.lower().startswith("run:") or names_file(word)]
        hint = f"; to classify images, name them behind it: meliuscli predict {trained[0]} cat.jpg" if trained else ""
        raise BadInputError(error.message, f"{error.hint}{hint}") from None


def _refuse_folders(words: list[str]) -> None:
    """Raise ``BadInputError`` for a directory behind a network that is no network itself."""
    for word in words[1:]:
        if Path(word).is_dir() and not is_name(word) and not names_file(word):
            hint = f"meliuscli predict {words[0]} {Path(word) / '*.jpg'}"
            raise BadInputError(f"{word}: is a directory; images are named one by one", hint)


def _is_image(word: str) -> bool:
    from meliuscli.data.folder import SUFFIXES

    return Path(word).suffix.lower() in SUFFIXES


def _classify(
    words: list[str], set_: list[str], top: int, seed: int | None, reports: Path, fmt: Format, output: Path | None
) -> None:
    """The first word is the trained network, the others are its images."""
    network, *images = words
    if set_:
        raise BadInputError("--set: a trained network stays what it is", "leave --set out")
    if _is_image(network) or (others := [word for word in images if not _is_image(word)]):
        what = network if _is_image(network) else others[0]
        raise BadInputError(
            f"{what}: name one trained network (run:ID or a file), and then its images",
            "meliuscli predict run:1a2b cat.jpg",
        )
    from meliuscli.report.evaluation import classes_answer

    with status("loading torch"):
        from meliuscli.exchange.evaluation import classify
        from meliuscli.exchange.opened import open_network

        opened = open_network(network, reports, seed)
    give(classes_answer(opened.name, classify(opened, list(map(Path, images)), top)), fmt, output)
