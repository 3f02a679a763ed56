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


def read_idx_pair(directory: Path, prefix: str) -> tuple[Bytes, Bytes]:
    """Images (N, H, W) and labels (N,) from ``<prefix>-images-idx3-ubyte[.gz]`` and ``<prefix>-labels-...``."""
    images = read_idx(_find(directory, f"{prefix}-images-idx3-ubyte"), 3)
    labels_path = _find(directory, f"{prefix}-labels-idx1-ubyte")
    labels = read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise BadInputError(f"{labels_path}: {len(labels)} labels for {len(images)} images")
    return images, labels


def _find(directory: Path, name: str) -> Path:
    for candidate in (directory / name, directory / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise MissingError(f"{directory / name}[.gz]: no such file")
