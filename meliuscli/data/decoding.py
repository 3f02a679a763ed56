"""Data sets made ready for training, with what takes long, or is worth knowing, told to a listener."""

from __future__ import annotations

from meliuscli.data.batches import Prepared, prepare
from meliuscli.data.catalog import Dataset
from meliuscli.data.folder import ImageFolder
from meliuscli.work.listener import SILENT, Listener


def prepare_and_tell(dataset: Dataset | ImageFolder, input_size: int, listener: Listener = SILENT) -> Prepared:
    """``prepare``, with its progress and notes."""
    with listener.counter("decoding images") as decoding:
        prepared = prepare(dataset, input_size, decoding)
    for note in prepared.notes:
        listener.talk(f"note: {note}")
    return prepared
