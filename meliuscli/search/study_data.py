"""The data of a study: what its origin says of them, and those of ``--transfer``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from meliuscli.data.batches import num_left_out
from meliuscli.data.catalog import load_dataset
from meliuscli.data.decoding import prepare_and_tell
from meliuscli.data.folder import ImageFolder
from meliuscli.data.names import DATASETS, IMAGE_FOLDER
from meliuscli.data.splits import Cut
from meliuscli.errors import BadInputError, MissingError
from meliuscli.search.settings import Settings
from meliuscli.search.space import SearchSpace
from meliuscli.work.folders import STUDY
from meliuscli.work.listener import Listener
from meliuscli.work.sameness import other_option


def with_transfer(settings: Settings, space: SearchSpace, asked: str | None, made: Path | None = None) -> Settings:
    """The settings with the data of ``--transfer``, checked before anything is trained. A study that was ``made`` without
    may be given some, but no others."""
    if asked is None:
        return settings
    name, _, place = asked.partition(":")
    if not asked:
        raise BadInputError("--transfer: names nothing", f"a directory of images, or one of {', '.join(DATASETS)}")
    if name not in DATASETS:
        if not Path(asked).is_dir():
            raise MissingError(
                f"--transfer {asked}: neither a data set nor a directory", f"data sets: {', '.join(DATASETS)}"
            )
        name, place = IMAGE_FOLDER, asked
    directory = str(Path(place).resolve()) if place else None
    if (name, directory) == (settings.transfer, settings.transfer_dir):
        return settings
    if settings.transfer is not None and made is not None:
        raise other_option(STUDY, made, "--transfer", f"with --transfer {settings.transfer_dir or settings.transfer}")
    if (name, directory) == (space.proxy.dataset, settings.data_dir):
        raise BadInputError(f"--transfer {asked}: the search itself uses these data", "name others")
    try:
        data = load_dataset(
            name, None if directory is None else Path(directory), space.transfer.recipe.cut, settings.skip_bad
        )
    except MissingError as error:
        raise MissingError(
            f"--transfer {asked}: {error.message}", f"--transfer {name}:DIR names its directory"
        ) from None
    space.check_way(space.transfer, data.num_classes, data.channels)
    return replace(settings, transfer=name, transfer_dir=directory)


def data_facts(space: SearchSpace, settings: Settings, listener: Listener) -> dict[str, Any]:
    """What the origin says of the proxy's data, and of those of ``--transfer`` where there are some.

    Raises ``BadInputError`` where both are the same images."""
    cuts = (space.proxy.recipe.cut, space.final.recipe.cut)
    skip_bad, way = settings.skip_bad, space.transfer
    facts = {"dataset": _facts(space.proxy.dataset, settings.data, cuts, space.proxy.input_size, skip_bad, listener)}
    if settings.transfer is not None:
        place, cut = settings.transfer_data, way.recipe.cut
        facts["transfer"] = _facts(settings.transfer, place, (cut,), way.input_size, skip_bad, listener)
        if {*str(facts["dataset"]["digest"]).split("-")} & {*str(facts["transfer"]["digest"]).split("-")}:
            raise BadInputError(
                f"--transfer {settings.transfer_dir or settings.transfer}: these are the images that the search itself uses",
                "name others",
            )
    return facts


def _facts(
    dataset: str, place: Path | None, cuts: tuple[Cut, ...], input_size: int, skip_bad: bool, listener: Listener
) -> dict[str, str | int]:
    """Name and digest of data, and how many files were left out, where they may be. Image folders are decoded here,
    once: the workers then find them in memory-mapped files."""
    digests, left_out = [], dict[str, int]()
    for cut in dict.fromkeys(cuts):
        loaded = load_dataset(dataset, place, cut, skip_bad)
        if isinstance(loaded, ImageFolder):
            prepared = prepare_and_tell(loaded, input_size, listener)
            left_out = {"left_out": num_left_out(loaded, prepared)} if skip_bad else {}
        digests.append(loaded.digest)
    return {"name": dataset, "digest": "-".join(digests), **left_out}
