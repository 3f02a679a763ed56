"""Data sets by name. Nothing is downloaded; what is missing is named, with where to get it and where to put it."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import platformdirs
import torch
from torch import Tensor

from meliuscli.data.cifar import read_cifar
from meliuscli.data.folder import ImageFolder, list_folder
from meliuscli.data.idx import Bytes, Part, check_labels, read_idx_pair
from meliuscli.data.names import CLASS_NAMES, DEFAULT_DATASET, IMAGE_FOLDER, SHAPES, SOURCES, check_dataset_name
from meliuscli.data.splits import Cut, held_out
from meliuscli.errors import BadInputError, MissingError

EMBEDDED = Path(__file__).parent / "embedded" / "fashion_mnist_mini.npz"


@dataclass(frozen=True, slots=True)
class Split:
    """Images as bytes (N, C, H, W) and labels (N,) as int64, both on the CPU."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Three disjoint splits: train to fit, validation to choose, test to report once."""

    name: str
    num_classes: int
    train: Split
    validation: Split
    test: Split
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes, or nothing where they are not known."""
        return CLASS_NAMES.get(self.name, ())

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[1])

    @property
    def digest(self) -> str:
        """Twelve hex digits of SHA-256 over all images and labels."""
        sha = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            sha.update(split.images.numpy().tobytes())
            sha.update(split.labels.numpy().tobytes())
        return sha.hexdigest()[:12]


def load_dataset(
    name: str, directory: Path | None = None, cut: Cut | None = None, skip_bad: bool = False
) -> Dataset | ImageFolder:
    """Load a data set by name; ``directory`` is where its files are (for the embedded one it is not needed).

    Without ``directory``: ``$MELIUSCLI_DATA/<name>``, then the platform's cache directory. ``cut`` says how validation
    is cut from train. Of an image folder only the files are listed; with ``skip_bad`` those that turn out to be broken
    are left out. Raises ``BadInputError`` (unknown name, corrupt file) or ``MissingError`` (files not there)."""
    check_dataset_name(name)
    cut = Cut() if cut is None else cut
    if name == DEFAULT_DATASET:
        if directory is not None:
            raise BadInputError(f"--data: {name} is embedded and is read from no directory", "--dataset idx reads one")
        if cut != Cut():
            raise BadInputError(f"{name} has validation images of its own, so none can be cut from train")
        return _load_embedded()
    place = _directory(name, directory)
    try:
        if name == IMAGE_FOLDER:
            return list_folder(place, cut, skip_bad)
        train, test, num_classes, notes = _read(name, place)
    except MissingError as error:
        raise MissingError(error.message, error.hint or _other_layout(name, place) or SOURCES[name]) from None
    return replace(_with_validation(name, num_classes, train, test, place, cut), notes=notes)


def _other_layout(name: str, place: Path) -> str | None:
    """How to read a directory that holds directories where a data set's files were looked for."""
    folders = name != IMAGE_FOLDER and place.is_dir() and any(path.is_dir() for path in place.iterdir())
    return "a directory of images in folders is read by --dataset imagefolder" if folders else None


@cache
def data_shape(name: str, directory: Path | None = None) -> tuple[int, int]:
    """Classes and channels; files are read only where the name does not say. Raises as ``load_dataset``."""
    check_dataset_name(name)
    if name in SHAPES:
        return SHAPES[name]
    found = load_dataset(name, directory)
    return found.num_classes, found.channels


def _read(name: str, directory: Path) -> tuple[Part, Part, int, tuple[str, ...]]:
    """Train and test as the source has them, the number of classes, and notes."""
    num_classes = SHAPES[name][0] if name in SHAPES else None
    if name in ("cifar10", "cifar100"):
        assert num_classes is not None
        return *read_cifar(directory, num_classes), num_classes, ()
    return read_idx_pair(directory, num_classes)


def _directory(name: str, directory: Path | None) -> Path:
    if directory is None:
        root = os.environ.get("MELIUSCLI_DATA") or platformdirs.user_cache_dir("meliuscli")
        directory = Path(root) / name
    if not directory.is_dir():
        raise MissingError(f"data set {name!r}: no directory {directory}", SOURCES[name])
    return directory


def _load_embedded() -> Dataset:
    try:
        with EMBEDDED.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            train, validation, test = (
                _split(arrays[f"{part}_images"], arrays[f"{part}_labels"], 10, EMBEDDED)
                for part in ("train", "validation", "test")
            )
    except FileNotFoundError:
        raise MissingError(f"{EMBEDDED}: the embedded data set is not there", "install meliuscli again") from None
    except (zipfile.BadZipFile, ValueError, KeyError, OSError, EOFError) as error:
        raise BadInputError(f"{EMBEDDED}: corrupt: {error}", "install meliuscli again") from None
    return Dataset(DEFAULT_DATASET, 10, train, validation, test)


def _with_validation(name: str, num_classes: int, train: Part, test: Part, source: Path, cut: Cut) -> Dataset:
    """Validation is cut from train; test stays as it is."""
    images, labels = train
    chosen = held_out(labels, num_classes, cut, source)
    return Dataset(
        name,
        num_classes,
        _split(images[~chosen], labels[~chosen], num_classes, source),
        _split(images[chosen], labels[chosen], num_classes, source),
        _split(*test, num_classes, source),
    )


def _split(images: Bytes, labels: Bytes, num_classes: int, source: Path) -> Split:
    """Checked arrays (N, H, W) or (N, C, H, W) and (N,) as tensors."""
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise BadInputError(f"{source}: images and labels do not fit together")
    check_labels(source, labels, num_classes)
    return Split(torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64)))
