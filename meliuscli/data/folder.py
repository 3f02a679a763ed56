"""Image folders: which files there are, in which class and split. Nothing is decoded here. No torch, no Pillow."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
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
    (
        *(".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm"),
    )
)
"""Files that end otherwise are left out, with a count."""
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What the folders of splits are called, in capitals too."""
OF_SYSTEMS = frozenset(
    (
        *("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"),
        *("desktop.ini", "thumbs.db", "ehthumbs.db"),
    )
)
"""These, and hidden ones, are folders and files of operating systems and no part of the data."""


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
    notes: tuple[str, ...] = ()

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
    """The splits of ``root/train/CLASS/*`` and of ``val`` and ``test`` (or as ``SPLITS`` has them).

    Where only one of these two is there it is the test split, and validation is cut from train. ``notes`` count what lies
    there and is left out. Raises ``MissingError`` (not there, not readable) or ``BadInputError`` (no images, one class,
    other classes) naming the folder."""
    places, others = _split_folders(root)
    if "train" not in places:
        there = f"; it has {_some(others)}" if others else ""
        raise MissingError(f"{root}: no folder train in it{there}")
    if len(places) == 1:
        raise MissingError(f"{root}: no folder val or test in it")
    classes = _classes(places["train"])
    for place in list(places.values())[1:]:
        _check_classes(place, _classes(place), classes)
    if len(classes) == 1:
        raise BadInputError(
            f"{places['train']}: one class, {classes[0]}: there is nothing to tell it from",
            "it needs a folder for each class; did an archive unpack into a folder of its own name?",
        )
    left_out = Counter({f"folder{'s' * (len(others) > 1)} {_some(others)}": 0} if others else {})
    train, *evaluated = (_list_split(root, place, classes, left_out) for place in places.values())
    notes = _notes(root, left_out)
    if len(evaluated) == 2:
        if cut != Cut():
            raise BadInputError(f"{root}: it has validation images of its own, so none can be cut from train")
        return ImageFolder(root, classes, train, evaluated[0], evaluated[1], skip_bad, notes)
    chosen = held_out(train.labels, len(classes), cut, places["train"])
    return ImageFolder(root, classes, train.select(~chosen), train.select(chosen), evaluated[0], skip_bad, notes)


def _split_folders(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folders of the splits that are there, train first, and the names of other folders."""
    by_split: dict[str, list[str]] = {split: [] for split in SPLITS}
    others: list[str] = []
    for name in _folders(root):
        split = next((split for split, names in SPLITS.items() if name.lower() in names), None)
        (others if split is None else by_split[split]).append(name)
    for names in by_split.values():
        if len(names) > 1:
            raise BadInputError(f"{root}: it has both {' and '.join(names)}: which one is meant?")
    return {split: root / names[0] for split, names in by_split.items() if names}, others


def _notes(root: Path, left_out: Counter[str]) -> tuple[str, ...]:
    if not left_out:
        return ()
    counted = ", ".join(f"{count:,} {what}" if count else what for what, count in left_out.most_common())
    return (f"left out of {root}: {counted}",)


def _some(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")


def _folders(place: Path) -> list[str]:
    """The names of the folders in one, sorted, without those of operating systems."""
    try:
        with os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if not _is_of_system(entry.name) and entry.is_dir())
    except OSError as error:
        _unreadable(error)


def _is_of_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in OF_SYSTEMS


def _classes(place: Path) -> tuple[str, ...]:
    """The names of the folders in one: class 0 first."""
    names = _folders(place)
    for path in place.iterdir():
        if path.is_symlink() and not path.exists() and not _is_of_system(path.name):
            raise MissingError(f"{path}: a link to {path.readlink()}, which is not there", "mend or delete the link")
    if not names:
        raise BadInputError(f"{place}: no folders in it", "it needs one for each class, with that class's images")
    return tuple(names)


def _check_classes(place: Path, found: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    for which, names in (("not in train", set(found) - set(wanted)), ("missing", set(wanted) - set(found))):
        if names:
            some = _some(list(names))
            raise BadInputError(
                f"{place}: {len(names)} of its class folders {'is' if len(names) == 1 else 'are'} {which}: {some}"
                if which == "not in train"
                else f"{place}: {len(names)} of train's {len(wanted)} classes missing: {some}",
                "train, val and test need folders of the same names",
            )


def _list_split(root: Path, place: Path, classes: tuple[str, ...], left_out: Counter[str]) -> Files:
    """The images of a split; ``left_out`` counts the files that are none."""
    paths: list[str] = []
    stamps: list[tuple[int, int]] = []
    labels: list[int] = []
    _count_beside(place, left_out)
    for label, name in enumerate(classes):
        before = len(paths)
        for folder, names in _walk(place / name):
            below = Path(folder).relative_to(root).as_posix()
            images = [file for file in names if _suffix(file) in SUFFIXES]
            left_out.update(_kind(file) for file in names if _suffix(file) not in SUFFIXES)
            paths += [f"{below}/{file}" for file in images]
            stamps += [_stamp(f"{folder}/{file}") for file in images]
        if len(paths) == before:
            raise BadInputError(
                f"{place / name}: no image in it",
                f"images end in {', '.join(sorted(SUFFIXES))}; delete an empty folder",
            )
        labels += [label] * (len(paths) - before)
    return Files(tuple(paths), np.array(labels, np.int64), np.array(stamps, np.int64).reshape(-1, 2))


def _walk(top: Path) -> Iterator[tuple[str, list[str]]]:
    """A class's folder and those below, each with the names of its files. Links are followed, a circle of them once."""
    seen = set[str]()
    for folder, inner, names in os.walk(top, onerror=_unreadable, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(sub for sub in inner if not _is_of_system(sub))
        yield folder, sorted(file for file in names if not _is_of_system(file))


def _count_beside(place: Path, left_out: Counter[str]) -> None:
    """Files beside the class folders belong to no class."""
    with os.scandir(place) as entries:
        names = [entry.name for entry in entries if not _is_of_system(entry.name) and not entry.is_dir()]
    if beside := sum(_suffix(name) in SUFFIXES for name in names):
        left_out[f"of the images in {place.name} (they are in no class)"] += beside


def _kind(file: str) -> str:
    suffix = Path(file).suffix.lower()
    return f"{suffix} files" if suffix else "files without a suffix"


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
