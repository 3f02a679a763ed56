"""Image folders: which files there are, in which class and split. Nothing is decoded here. No torch, no Pillow."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from meliuscli.data.names import IMAGE_FOLDER
from meliuscli.data.splits import Cut, held_out
from meliuscli.errors import BadInputError, MissingError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
)
"""Files that end otherwise are no images and are left alone, as are hidden ones."""
VALIDATION_FOLDERS = ("val", "validation")


@dataclass(frozen=True, slots=True)
class Files:
    """The image files of one split, by class: paths below the root, labels (N,), and sizes and times in ns (N, 2)."""

    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    stamps: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, chosen: npt.NDArray[np.bool_]) -> Files:
        paths = tuple(path for path, own in zip(self.paths, chosen, strict=True) if own)
        return Files(paths, self.labels[chosen], self.stamps[chosen])


@dataclass(frozen=True)
class ImageFolder:
    """Three disjoint splits of image files, not decoded yet: ``prepare`` does that, at one size.

    ``skip_bad`` leaves out files that cannot be read in place of refusing the folder."""

    root: Path
    classes: tuple[str, ...]
    train: Files
    validation: Files
    test: Files
    skip_bad: bool = False

    name = IMAGE_FOLDER
    channels = 3

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @cached_property
    def digest(self) -> str:
        """Twelve hex digits of SHA-256 over classes, splits, and the names and sizes of the files."""
        sha = hashlib.sha256(repr(self.classes).encode("utf-8", "surrogateescape"))
        for split in (self.train, self.validation, self.test):
            sha.update(split.stamps[:, 0].tobytes())
            sha.update(os.fsencode("\0".join((*split.paths, ""))))
        return sha.hexdigest()[:12]


def list_folder(root: Path, cut: Cut, skip_bad: bool = False) -> ImageFolder:
    """The splits of ``root/train/CLASS/*`` and of ``val`` (or ``validation``) and ``test``.

    Where only one of these two is there it is the test split, and validation is cut from train.
    Raises ``MissingError`` (not there, not readable) or ``BadInputError`` (no images, other classes) naming the folder."""
    places = [root / name for name in VALIDATION_FOLDERS if (root / name).is_dir()]
    if len(places) == 2:
        raise BadInputError(f"{root}: it has both {' and '.join(VALIDATION_FOLDERS)}: which one is meant?")
    if (root / "test").is_dir():
        places.append(root / "test")
    if not (root / "train").is_dir():
        raise MissingError(f"{root}: no folder train in it")
    if not places:
        raise MissingError(f"{root}: no folder val or test in it")
    classes = _classes(root / "train")
    for place in places:
        _check_classes(place, _classes(place), classes)
    train, *others = (_list_split(root, place, classes) for place in (root / "train", *places))
    if len(others) == 2:
        if cut != Cut():
            raise BadInputError(f"{root}: it has validation images of its own, so none can be cut from train")
        return ImageFolder(root, classes, train, others[0], others[1], skip_bad)
    chosen = held_out(train.labels, len(classes), cut, root / "train")
    return ImageFolder(root, classes, train.select(~chosen), train.select(chosen), others[0], skip_bad)


def _classes(place: Path) -> tuple[str, ...]:
    """The names of the folders in one, sorted: class 0 first."""
    try:
        names = sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        _unreadable(error)
    if not names:
        raise BadInputError(f"{place}: no folders in it", "it needs one for each class, with that class's images")
    return tuple(names)


def _check_classes(place: Path, found: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    for which, names in (("not in train", set(found) - set(wanted)), ("missing", set(wanted) - set(found))):
        if names:
            some = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise BadInputError(
                f"{place}: {len(names)} of its class folders {'is' if len(names) == 1 else 'are'} {which}: {some}"
                if which == "not in train"
                else f"{place}: {len(names)} of train's {len(wanted)} classes missing: {some}",
                "train, val and test need folders of the same names",
            )


def _list_split(root: Path, place: Path, classes: tuple[str, ...]) -> Files:
    paths: list[str] = []
    stamps: list[tuple[int, int]] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        before = len(paths)
        for folder, inner, names in os.walk(place / name, onerror=_unreadable):
            inner[:] = sorted(sub for sub in inner if not sub.startswith("."))
            below = Path(folder).relative_to(root).as_posix()
            images = [file for file in sorted(names) if not file.startswith(".") and _suffix(file) in SUFFIXES]
            paths += [f"{below}/{file}" for file in images]
            stamps += [_stamp(f"{folder}/{file}") for file in images]
        if len(paths) == before:
            raise BadInputError(
                f"{place / name}: no image in it",
                f"images end in {', '.join(sorted(SUFFIXES))}; delete an empty folder",
            )
        labels += [label] * (len(paths) - before)
    return Files(tuple(paths), np.array(labels, np.int64), np.array(stamps, np.int64).reshape(-1, 2))


def _suffix(file: str) -> str:
    return file[file.rfind(".") :].lower()


def _stamp(path: str) -> tuple[int, int]:
    """Size and time; a link to nowhere is found out when it is read."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a million of them
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _unreadable(error: OSError) -> NoReturn:
    raise MissingError(f"{error.filename}: cannot be read: {error.strerror}") from None
