"""Decoded image folders on disk: one memory-mapped file of bytes a folder and size, in the platform's cache directory.

``images.npy`` is there when all is decoded. Until then ``images.part`` has the same form, and each line of ``progress``
stands for a chunk of it that is on disk, so that work goes on where it was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import filelock
import numpy as np

from meliuscli.data.decode import Job, decode_all, require_pillow, shorter_side
from meliuscli.data.folder import Files, ImageFolder
from meliuscli.data.layout import Cached, Layout, compacted
from meliuscli.data.splits import Labels, shared_images
from meliuscli.errors import BadInputError, MissingError
from meliuscli.results import cannot_write, write_json

CHUNK_FILES, CHUNK_BYTES = 512, 1 << 24
"""What a process decodes at a time: at most so many files, and about so many bytes of pixels."""
MARGIN_FROM, SAMPLE = 64, 100
"""Of ``_stored_side``: the smallest input with a margin, and how many images are looked at."""
OnProgress = Callable[[int, int], None]
"""Called with the number of files done and of all files."""


def decoded(folder: ImageFolder, input_size: int, on_progress: OnProgress) -> Cached:
    """The images of a folder, decoded now or earlier, with a side of ``_stored_side``.

    Raises ``MissingError`` (no Pillow, disk full, a file not readable) or ``BadInputError`` (a file is no image)."""
    require_pillow()
    work = _Work(folder, _stored_side(folder, input_size))
    if (found := work.load()) is None:
        with work.lock(on_progress):
            if (found := work.load()) is None:
                work.decode(on_progress)
                found = work.load()
    assert found is not None
    return found


def _stored_side(folder: ImageFolder, input_size: int) -> int:
    """``input_size``, or from ``MARGIN_FROM`` on 8/7 of it (256 for 224) where most training images are that large.

    That is a margin for random crops, of which evaluation cuts off the border. A hundred images speak for all."""
    large = round(input_size * 8 / 7)
    if input_size < MARGIN_FROM:
        return input_size
    some = folder.train.paths[:: -(-len(folder.train) // SAMPLE)]
    sizes = [size for path in some if (size := shorter_side(folder.root / path)) is not None]
    return large if 2 * sum(size >= large for size in sizes) > len(sizes) else input_size


class _Work(Layout):
    """The making of it."""

    @contextlib.contextmanager
    def lock(self, on_progress: OnProgress) -> Iterator[None]:
        """One writer at a time; the others see how far it is, and wait."""
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.place / "lock")
            while True:
                try:
                    lock.acquire(timeout=1)
                    break
                except filelock.Timeout:
                    on_progress(sum(len(chunk["hashes"]) for chunk in self._done().values()), self.total)
        except OSError as error:
            raise cannot_write(self.place, error) from None
        try:
            yield
        finally:
            lock.release()

    def decode(self, on_progress: OnProgress) -> None:
        """All chunks that are not on disk yet, then ``about.json``, then the name that says it is complete."""
        try:
            done = self._start()
            rows_done = sum(stop - start for start, stop in self._chunks() if start in done)
            on_progress(rows_done, self.total)
            todo = [chunk for chunk in self._chunks() if chunk[0] not in done]
            with self.progress.open("a", encoding="utf-8") as log:
                for index, result in decode_all([self._job(*chunk) for chunk in todo]):
                    start, stop = todo[index]
                    done[start] = {"start": start, **asdict(result)}
                    log.write(json.dumps(done[start]) + "\n")
                    log.flush()
                    rows_done += stop - start
                    on_progress(rows_done, self.total)
            self._finish(done)
        except BrokenProcessPool:
            raise MissingError(
                "a process that decoded images was killed", "is there too little memory? the same command goes on"
            ) from None
        except OSError as error:
            raise cannot_write(self.place, error) from None

    def _job(self, start: int, stop: int) -> Job:
        folder = self.folder
        return Job(self.part, self.offset(start), folder.root, self.paths(start, stop), self.side, folder.skip_bad)

    def _chunks(self) -> list[tuple[int, int]]:
        """First row and the one after the last; none crosses a split."""
        step = max(1, min(CHUNK_FILES, CHUNK_BYTES // (3 * self.side**2)))
        return [
            (row, min(row + step, start + len(split)))
            for start, split in self.starts()
            for row in range(start, start + len(split), step)
        ]

    def _start(self) -> dict[int, dict[str, Any]]:
        """The part file at its full length, and what is in it already."""
        size = self.offset(self.total)
        self.images.unlink(missing_ok=True)
        if not self.part.is_file() or self.part.stat().st_size != size:
            self.progress.unlink(missing_ok=True)
        done = self._done()
        needed = size - self.offset(0) - len(done) * min(CHUNK_BYTES, CHUNK_FILES * 3 * self.side**2)
        if needed > shutil.disk_usage(self.place).free:
            raise MissingError(
                f"{self.place}: the decoded images need {needed / 2**30:.1f} GiB more than is free there",
                "free the disk, or name another directory in $MELIUSCLI_CACHE",
            )
        with self.part.open("r+b" if self.part.is_file() else "w+b") as file:
            file.write(self.header)
            file.truncate(size)
        return done

    def _done(self) -> dict[int, dict[str, Any]]:
        """First row -> the chunk's line in ``progress``; the last line may be cut off."""
        found = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            for line in self.progress.read_text(encoding="utf-8").splitlines():
                chunk = json.loads(line)
                if self.folder.skip_bad or not chunk["bad"]:
                    found[int(chunk["start"])] = chunk
        return found

    def _finish(self, done: dict[int, dict[str, Any]]) -> None:
        bad = {start + index for start, chunk in done.items() for index in chunk["bad"]}
        with self.part.open("r+b") as file:
            for start, split in self.starts():
                rows = compacted(start, len(split), bad)
                self._check_classes(split, split.labels[rows - start])
                for row, source in zip(range(start, start + len(rows)), rows.tolist(), strict=True):
                    if row != source:
                        file.seek(self.offset(source))
                        image = file.read(3 * self.side**2)
                        file.seek(self.offset(row))
                        file.write(image)
            file.flush()
            os.fsync(file.fileno())
        order = sorted(done)
        train = [start for start in order if start < len(self.folder.train)]
        edges = [0, len(self.folder.train), self.total - len(self.folder.test), self.total]
        hashes = [
            [value for start in order if low <= start < high for value in done[start]["hashes"]]
            for low, high in pairwise(edges)
        ]
        about = {
            "folder": str(self.folder.root.resolve()),
            "side": self.side,
            "classes": self.folder.classes,
            "histogram": np.sum([done[start]["histogram"] for start in train], 0).tolist(),
            "shared": shared_images(*hashes),
            "bad": sorted(bad),
            "left_out": [self.paths(row, row + 1)[0] for row in sorted(bad)],
        }
        write_json(self.about, about)
        self.part.replace(self.images)
        self.progress.unlink(missing_ok=True)

    def _check_classes(self, split: Files, labels: Labels) -> None:
        counts = np.bincount(labels, minlength=self.folder.num_classes)
        if not counts.all():
            label = int(counts.argmin())
            first = split.paths[int(np.flatnonzero(split.labels == label)[0])]
            raise BadInputError(f"{(self.folder.root / first).parent}: none of its images can be read")
