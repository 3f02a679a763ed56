"""The idx format of MNIST and Fashion-MNIST: big-endian magic, dimensions, bytes; plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from meliuscli.errors import BadInputError, MissingError

UINT8 = 8
Bytes = npt.NDArray[np.uint8]


def read_idx(path: Path, dimensions: int) -> Bytes:
    """The array of unsigned bytes in an idx file of that many dimensions.

    Raises ``MissingError`` when it is not there, ``BadInputError`` naming the file when it is corrupt or truncated."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInputError(f"{path}: corrupt or truncated gzip file: {error}") from None
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror or error}") from None
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, UINT8, dimensions)):
        raise BadInputError(f"{path}: not an idx file of unsigned bytes with {dimensions} dimension(s)")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise BadInputError(
            f"{path}: truncated or padded: its header promises {math.prod(shape)} bytes, it holds {len(content) - header}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


Part = tuple[Bytes, Bytes]
"""Images (N, H, W) or (N, C, H, W) and labels (N,)."""


def read_idx_pair(directory: Path, num_classes: int | None) -> tuple[Part, Part, int]:
    """Train and test, and the number of classes (that of train's labels if None), from MNIST's four files.

    They are ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same for ``t10k``, plain or ``.gz``."""
    train, train_labels = _read_part(directory, "train")
    test, test_labels = _read_part(directory, "t10k")
    num_classes = 1 + int(train[1].max()) if num_classes is None else num_classes
    for path, (_, labels) in ((train_labels, train), (test_labels, test)):
        check_labels(path, labels, num_classes)
    if train[0].shape[1:] != test[0].shape[1:]:
        sizes = ["x".join(map(str, images.shape[1:])) for images, _ in (train, test)]
        raise BadInputError(f"{test_labels.parent}: the training images are {sizes[0]}, those of t10k {sizes[1]}")
    return train, test, num_classes


def check_labels(path: Path, labels: Bytes, num_classes: int) -> None:
    """Raise ``BadInputError`` naming the file of labels unless each class is there, and no other."""
    counts = np.bincount(labels, minlength=num_classes)
    if len(counts) > num_classes:
        raise BadInputError(f"{path}: label {labels.max()} is out of range: there are {num_classes} classes")
    if not counts.all():
        raise BadInputError(f"{path}: class {counts.argmin()} of {num_classes} has no image")


def _read_part(directory: Path, prefix: str) -> tuple[Part, Path]:
    """Images and labels, and the file that the labels are from."""
    images_path = _find(directory, f"{prefix}-images-idx3-ubyte")
    images = read_idx(images_path, 3)
    labels_path = _find(directory, f"{prefix}-labels-idx1-ubyte")
    labels = read_idx(labels_path, 1)
    if not images.size:
        raise BadInputError(f"{images_path}: no images in it")
    if len(images) != len(labels):
        raise BadInputError(f"{labels_path}: {len(labels)} labels for {len(images)} images")
    return (images, labels), labels_path


def _find(directory: Path, name: str) -> Path:
    for candidate in (directory / name, directory / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise MissingError(f"{directory / name}[.gz]: no such file")
