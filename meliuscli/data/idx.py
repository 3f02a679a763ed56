"""The idx format of MNIST and Fashion-MNIST: big-endian magic, dimensions, bytes; plain or gzipped."""

from __future__ import annotations

import gzip
import io
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from meliuscli.errors import BadInputError, MissingError

UINT8 = 8
GZIP = b"\x1f\x8b"
PIECE = 1 << 20
"""Bytes that are unpacked at a time."""
TEST = ("t10k", "test")
FOLDERS = (".", "raw", *(f"{name}/raw" for name in ("MNIST", "FashionMNIST", "KMNIST", "EMNIST", "QMNIST")))
"""Below the directory that is named, as torchvision keeps them."""
Bytes = npt.NDArray[np.uint8]


def read_idx(path: Path, dimensions: int) -> Bytes:
    """The array of unsigned bytes in an idx file of that many dimensions.

    Raises ``MissingError`` when it is not there, ``BadInputError`` naming the file when it is corrupt or truncated."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz" or content[:2] == GZIP:
            content = _unpacked(content, dimensions)
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInputError(f"{path}: corrupt or truncated gzip file: {error}") from None
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror or error}") from None
    shape = _shape(content, dimensions)
    if shape is None:
        raise BadInputError(f"{path}: not an idx file of unsigned bytes with {dimensions} dimension(s)")
    promised, held = math.prod(shape), len(content) - _header(dimensions)
    if held != promised:
        raise BadInputError(
            f"{path}: truncated or padded: its header promises {promised} bytes, it holds {held if held < promised else 'more'}"
        )
    return np.frombuffer(content, np.uint8, offset=_header(dimensions)).reshape(shape)


def _header(dimensions: int) -> int:
    return 4 + 4 * dimensions


def _shape(content: bytes, dimensions: int) -> tuple[int, ...] | None:
    """What the header of a file of that many dimensions says; None where it is no such file."""
    header = _header(dimensions)
    if len(content) < header or content[:4] != bytes((0, 0, UINT8, dimensions)):
        return None
    return struct.unpack(f">{dimensions}I", content[4:header])


def _unpacked(content: bytes, dimensions: int) -> bytes:
    """What an archive holds, of the bytes behind those that its header promises the first one: a small archive can hold
    more than any memory. At the end of it gzip holds its checksum against what it unpacked."""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        parts = [file.read(_header(dimensions))]
        shape = _shape(parts[0], dimensions)
        left = 0 if shape is None else math.prod(shape) + 1
        while left and (part := file.read(min(left, PIECE))):
            parts.append(part)
            left -= len(part)
    return b"".join(parts)


Part = tuple[Bytes, Bytes]
"""Images (N, H, W) or (N, C, H, W) and labels (N,)."""


def read_idx_pair(directory: Path, num_classes: int | None) -> tuple[Part, Part, int, tuple[str, ...]]:
    """Train, test, the number of classes (that of train's labels if None) and notes, from four files named like MNIST's.

    They are ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same for ``t10k`` or ``test``, with a point in
    place of the hyphen before ``idx``, behind a prefix (``emnist-letters-``), plain or gzipped. Labels from 1 on, as
    EMNIST's letters have them, are taken down to 0."""
    train, train_labels = _read_part(directory, ("train",))
    test, test_labels = _read_part(directory, TEST)
    notes: tuple[str, ...] = ()
    if num_classes is None:
        if train[1].min() == test[1].min() == 1:
            train, test = ((images, labels - 1) for images, labels in (train, test))
            notes = (f"{train_labels}: its labels begin at 1; class 0 is label 1",)
        num_classes = 1 + int(train[1].max())
    if num_classes < 2:
        raise BadInputError(f"{train_labels}: all labels are {train[1][0]}: there is nothing to tell apart")
    for path, (_, labels) in ((train_labels, train), (test_labels, test)):
        check_labels(path, labels, num_classes)
    if train[0].shape[1:] != test[0].shape[1:]:
        sizes = ["x".join(map(str, images.shape[1:])) for images, _ in (train, test)]
        raise BadInputError(f"{test_labels.parent}: the training images are {sizes[0]}, those of t10k {sizes[1]}")
    return train, test, num_classes, notes


def check_labels(path: Path, labels: Bytes, num_classes: int) -> None:
    """Raise ``BadInputError`` naming the file of labels unless each class is there, and no other."""
    counts = np.bincount(labels, minlength=num_classes)
    if len(counts) > num_classes:
        raise BadInputError(f"{path}: label {labels.max()} is out of range: there are {num_classes} classes")
    if not counts.all():
        raise BadInputError(f"{path}: class {counts.argmin()} of {num_classes} has no image")


def _read_part(directory: Path, prefixes: tuple[str, ...]) -> tuple[Part, Path]:
    """Images and labels, and the file that the labels are from."""
    images_path = _find(directory, prefixes, "images", 3)
    images = read_idx(images_path, 3)
    labels_path = _find(directory, prefixes, "labels", 1)
    labels = read_idx(labels_path, 1)
    if not images.size:
        raise BadInputError(f"{images_path}: no images in it")
    if len(images) != len(labels):
        raise BadInputError(f"{labels_path}: {len(labels)} labels for {len(images)} images")
    return (images, labels), labels_path


def _find(directory: Path, prefixes: tuple[str, ...], what: str, dimensions: int) -> Path:
    """The one file of that name, however it is spelt. Raises ``BadInputError`` where there are several."""
    name = re.compile(
        rf"(.+[-_.])?({'|'.join(prefixes)})[-_.]{what}[-_.]idx{dimensions}[-_.]ubyte(\.gz)?", re.IGNORECASE
    )
    for folder in FOLDERS:
        place = directory / folder
        found = sorted(place / file for file in _files(place) if name.fullmatch(file))
        # A file and the archive that it was unpacked from are one.
        found = [path for path in found if path.with_suffix("") not in found or path.suffix != ".gz"]
        if len(found) > 1:
            raise BadInputError(f"{place}: it has both {found[0].name} and {found[1].name}", "name a directory of one")
        if found:
            return found[0]
    raise MissingError(f"{directory / prefixes[0]}-{what}-idx{dimensions}-ubyte[.gz]: no such file")


def _files(place: Path) -> list[str]:
    try:
        return [path.name for path in place.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise MissingError(f"{place}: cannot be read: {error.strerror}") from None
