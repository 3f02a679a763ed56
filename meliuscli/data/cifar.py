"""CIFAR-10 and CIFAR-100: the binary version, and the python version through an unpickler that accepts nothing but what
those files hold (dicts, lists, byte strings, numbers, arrays of bytes)."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from meliuscli.data.idx import Bytes, Part
from meliuscli.errors import BadInputError, MissingError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
_FILES = {
    10: ([f"data_batch_{index}" for index in range(1, 6)], ["test_batch"]),
    100: (["train"], ["test"]),
}
"""Number of classes -> the files of train and of test, without ``.bin``."""
_FOLDERS = {
    10: ("cifar-10-batches-bin", "cifar-10-batches-py"),
    100: ("cifar-100-binary", "cifar-100-python"),
}
"""What the archives unpack to."""


def read_cifar(directory: Path, num_classes: int) -> tuple[Part, Part]:
    """Train and test, images (N, 3, 32, 32) and labels (N,), from the files in ``directory`` or in the folder that the archive unpacks to.

    Raises ``MissingError`` naming the first file that is not there, ``BadInputError`` naming one that is corrupt."""
    train, test = _FILES[num_classes]
    for folder in (directory, *(directory / name for name in _FOLDERS[num_classes])):
        for suffix, read in ((".bin", _read_binary), ("", _read_python)):
            if (folder / f"{train[0]}{suffix}").is_file():
                return (
                    _joined([folder / f"{name}{suffix}" for name in train], read, num_classes),
                    _joined([folder / f"{name}{suffix}" for name in test], read, num_classes),
                )
    raise MissingError(f"{directory / train[0]}[.bin]: no such file")


def _joined(paths: list[Path], read: Callable[[Path, bytes, int], Part], num_classes: int) -> Part:
    parts = [read(path, _content(path), num_classes) for path in paths]
    for path, (_, labels) in zip(paths, parts, strict=True):
        if labels.max() >= num_classes:
            raise BadInputError(f"{path}: label {labels.max()} is out of range: there are {num_classes} classes")
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file") from None
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror or error}") from None


def _read_binary(path: Path, content: bytes, num_classes: int) -> Part:
    """Records of a label (CIFAR-100: coarse and fine) and 3072 bytes: red, green, blue, row by row."""
    labels = 1 if num_classes == 10 else 2
    if not content or len(content) % (labels + PIXELS):
        raise BadInputError(f"{path}: not whole records of {labels + PIXELS} bytes: truncated, or not CIFAR's")
    records = np.frombuffer(content, np.uint8).reshape(-1, labels + PIXELS)
    return records[:, labels:].reshape(-1, *SHAPE), records[:, labels - 1]


def _read_python(path: Path, content: bytes, num_classes: int) -> Part:
    """A dict with ``data`` (N, 3072) and ``labels`` or ``fine_labels``."""
    try:
        batch = _by_text(_OnlyArrays(content).load())
        wanted = ("data", "labels" if num_classes == 10 else "fine_labels")
        if missing := [key for key in wanted if key not in batch]:
            raise ValueError(f"it has no {' and no '.join(missing)}; its keys are {', '.join(batch) or 'none'}")
        images, labels = batch[wanted[0]], np.asarray(batch[wanted[1]])
        if isinstance(images, np.ndarray) and images.dtype != np.uint8:
            raise ValueError(f"its data are {images.dtype}, not bytes")
        whole = isinstance(images, np.ndarray) and images.shape == (len(labels), PIXELS)
        if not whole or labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
            raise ValueError("its data and labels are not CIFAR's")
        if not 0 <= labels.min() <= labels.max() < 256:
            raise ValueError(f"label {labels.max()} is out of range")
    except MemoryError:
        raise BadInputError(f"{path}: corrupt: it asks for more memory than there is") from None
    except Exception as error:  # a corrupt pickle can raise anything
        raise BadInputError(f"{path}: corrupt, or not CIFAR's python version: {error}") from None
    return images.reshape(-1, *SHAPE), labels.astype(np.uint8)


def _by_text(batch: Any) -> dict[str, Any]:
    """A file's dict by text: Python 2 wrote its keys as bytes, and Python 3 writes text."""
    if not isinstance(batch, dict):
        raise ValueError("it holds no dict")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in batch.items()}


class _OnlyArrays(pickle.Unpickler):
    """Names are looked up in a short table; everything else that a pickle could call is refused."""

    def __init__(self, content: bytes) -> None:
        import io

        super().__init__(io.BytesIO(content), encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): _empty_array,
            ("numpy._core.multiarray", "_reconstruct"): _empty_array,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): _integer_type,
            ("numpy.core.numeric", "_frombuffer"): _from_buffer,
            ("numpy._core.numeric", "_frombuffer"): _from_buffer,
            ("_codecs", "encode"): _encode,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no CIFAR file does")
        return allowed[module, name]


def _empty_array(*_: object) -> Bytes:
    """What NumPy's pickles start from; the shape and the bytes are set next."""
    return np.ndarray(0, np.uint8)


INTEGERS = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "uint8")


def _integer_type(kind: object, *_: object) -> np.dtype[Any]:
    """A type of its own each time: what follows in the file says the order of its bytes."""
    name = kind.decode("latin1") if isinstance(kind, bytes) else kind
    if name not in INTEGERS:
        raise pickle.UnpicklingError(f"an array of {kind!r}, not of whole numbers")
    return np.dtype(str(name), copy=True)


def _from_buffer(content: object, kind: object, shape: object, order: object) -> Any:
    """How pickles of protocol 5 hold an array."""
    if not isinstance(content, bytes | bytearray) or not isinstance(kind, np.dtype) or kind.kind not in "iu":
        raise pickle.UnpicklingError("an array that is none of whole numbers")
    if not isinstance(shape, tuple) or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array of no shape")
    return np.frombuffer(content, kind).reshape(shape, order=order)


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """How pickles of Python 3 with an old protocol write byte strings."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("a text that is no byte string")
    return text.encode("latin1")
