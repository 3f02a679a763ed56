"""Where the images of a folder lie on disk once they are decoded, and the reading of it. Nothing is written here."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from meliuscli import results
from meliuscli.data.decode import read_image
from meliuscli.data.folder import Files, ImageFolder
from meliuscli.data.idx import Bytes
from meliuscli.data.pixels import Histogram
from meliuscli.data.splits import Labels

FORMAT = 1
"""Of the files; part of their key."""


@dataclass(frozen=True, slots=True)
class Cached:
    """Images (N, 3, side, side), memory-mapped, and the labels of each split; ``histogram`` is that of train."""

    train: tuple[Bytes, Labels]
    validation: tuple[Bytes, Labels]
    test: tuple[Bytes, Labels]
    histogram: Histogram
    notes: tuple[str, ...]


def cache_directory() -> Path:
    """Where decoded images are kept."""
    return results.cache_directory() / "images"


class Layout:
    """One folder at one size: train, validation and test lie one after the other in the file."""

    def __init__(self, folder: ImageFolder, side: int) -> None:
        self.folder, self.side = folder, side
        self.splits = (folder.train, folder.validation, folder.test)
        self.total = sum(map(len, self.splits))
        self.place = cache_directory() / self._key
        self.images, self.part = self.place / "images.npy", self.place / "images.part"
        self.progress, self.about = self.place / "progress", self.place / "about.json"

    @property
    def _key(self) -> str:
        """Another name, order, size or time of any file, or another side, is another key."""
        sha = hashlib.sha256(f"{FORMAT} {self.side} {self.folder.digest}".encode())
        for split in self.splits:
            sha.update(split.stamps.tobytes())
        return sha.hexdigest()[:16]

    @cached_property
    def header(self) -> bytes:
        out, shape = io.BytesIO(), (self.total, 3, self.side, self.side)
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return out.getvalue()

    def offset(self, row: int) -> int:
        return len(self.header) + row * 3 * self.side**2

    def load(self) -> Cached | None:
        """None where it is not complete, is damaged, or has files left out that must not be and can be read by now."""
        try:
            about = json.loads(self.about.read_text(encoding="utf-8"))
            images: Bytes = np.load(self.images, mmap_mode="r")
            bad, histogram, shared = set(about["bad"]), np.array(about["histogram"], np.int64), about["shared"]
            if images.shape != (self.total, 3, self.side, self.side):
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError):
            return None
        paths = self.paths(0, self.total)
        if bad and not self.folder.skip_bad:
            read_image(self.folder.root / paths[min(bad)], self.side)
            return None
        parts = []
        for start, split in self.starts():
            rows = compacted(start, len(split), bad)
            parts.append((images[start : start + len(rows)], split.labels[rows - start]))
        notes = (
            f"{len(bad)} of {self.total:,} image files could not be read and were left out: {self.about} lists them",
        )
        return Cached(parts[0], parts[1], parts[2], histogram, (*(notes if bad else ()), *shared))

    def starts(self) -> Iterator[tuple[int, Files]]:
        start = 0
        for split in self.splits:
            yield start, split
            start += len(split)

    def paths(self, start: int, stop: int) -> Sequence[str]:
        """The files of some rows."""
        found: list[str] = []
        for first, split in self.starts():
            found += split.paths[max(0, start - first) : max(0, stop - first)]
        return found


def compacted(start: int, count: int, bad: set[int]) -> Labels:
    """Which rows of ``start ... start + count`` make up its beginning when the last ones fill the places of bad ones."""
    rows = np.arange(start, start + count)
    is_bad = np.isin(rows, list(bad))
    kept = count - int(is_bad.sum())
    result = rows[:kept].copy()
    result[is_bad[:kept]] = rows[kept:][~is_bad[kept:]]
    return result
