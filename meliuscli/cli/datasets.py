"""Data sets for commands: loaded and prepared, with what takes long, or is worth knowing, on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meliuscli.cli.console import SHELL

if TYPE_CHECKING:
    from meliuscli.data.batches import Prepared
    from meliuscli.data.catalog import Dataset
    from meliuscli.data.folder import ImageFolder


def prepare_and_tell(dataset: Dataset | ImageFolder, input_size: int) -> Prepared:
    """``prepare``, with its progress and notes."""
    from meliuscli.data.decoding import prepare_and_tell as prepare

    return prepare(dataset, input_size, SHELL)
