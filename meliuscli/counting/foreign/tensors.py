"""What a tensor holds and where: its storage, the tensors that it wraps or packs, the numbers and bits that are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_BY_ROWS, _BY_COLUMNS = ("crow_indices", "col_indices"), ("ccol_indices", "row_indices")
_PLACES = {
    torch.sparse_coo: ("_indices",),
    **dict.fromkeys((torch.sparse_csr, torch.sparse_bsr), _BY_ROWS),
    **dict.fromkeys((torch.sparse_csc, torch.sparse_bsc), _BY_COLUMNS),
}
"""What a sparse tensor holds beside its values."""


def storage_of(tensor: Tensor) -> int:
    """The same for all views of a tensor."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # a sparse one has none
        return id(tensor)


def key_of(tensor: Tensor) -> int:
    """The same for tied tensors."""
    start = span_of(tensor).start
    return hash((storage_of(tensor), start)) if start else storage_of(tensor)


def span_of(tensor: Tensor) -> range:
    """Where in its storage it lies."""
    start = tensor.storage_offset() if tensor.layout == torch.strided else 0
    return range(start, start + max(1, tensor.numel()))


def stored_bits(tensor: Tensor) -> int | None:
    """Bits of a type of a byte; None for the others, whose values have to be looked at."""
    return None if tensor.element_size() > 1 else type_bits(tensor)


def held_by(part: nn.Module) -> Iterator[tuple[Tensor, bool]]:
    """The tensors that a module holds itself, and whether as parameters. One that wraps others (as quantized ones of
    torchao and quanto do) is these."""
    for tensor in [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
        for inner in unwrapped_tensors(tensor):
            yield inner, isinstance(tensor, nn.Parameter)


def unwrapped_tensors(tensor: Tensor) -> list[Tensor]:
    if not is_traceable_wrapper_subclass(tensor):
        return [tensor]
    return [inner for name in tensor.__tensor_flatten__()[0] for inner in unwrapped_tensors(getattr(tensor, name))]


def shape_of(value: Any) -> tuple[int, ...]:
    """Of the first tensor in a nested value; () where there is none."""
    return next((tuple(tensor.shape) for tensor in tensors_in(value)), ())


def tensors_in(value: Any, depth: int = 8) -> Iterator[Tensor]:
    """The tensors in whatever an operation or a module takes or returns."""
    if isinstance(value, Tensor):
        yield value
    elif depth and not isinstance(value, nn.Module | type | str | bytes):
        held = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        for part in held or getattr(value, "__dict__", {}).values():
            yield from tensors_in(part, depth - 1)


def packed_in(value: Any, is_inside: bool = False) -> Iterator[Tensor]:
    """The weights and biases that ``torch.ao`` holds packed in an attribute or argument: at their bits, or half."""
    if isinstance(value, torch.ScriptObject) and hasattr(value, "unpack"):
        for tensor in value.unpack():
            if isinstance(tensor, Tensor) and (tensor.dim() > 1 or not is_inside):  # a cell has its biases beside them
                yield tensor if tensor.is_quantized or tensor.dim() < 2 else tensor.half()
    elif isinstance(value, torch.ScriptObject):
        with suppress(RuntimeError):  # of a scripted module that lies within
            yield from packed_in(value.__getstate__(), True)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from packed_in(part, is_inside)
    elif is_inside and isinstance(value, Tensor):
        yield value


def packed_matrices(value: Any) -> list[Tensor]:
    return [tensor for tensor in packed_in(value) if tensor.dim() > 1]


def is_matrix(tensor: Tensor) -> bool:
    """Not a number a row or a column: a matrix, a kernel, or a table."""
    return tensor.dim() > 1 and tensor.numel() > max(tensor.shape)


def num_stored(tensor: Tensor) -> int:
    """Of the numbers that a tensor holds, sparse ones too."""
    if tensor.layout == torch.strided:
        return tensor.numel()
    return int((tensor._values() if tensor.layout == torch.sparse_coo else tensor.values()).numel())


def type_bits(tensor: Tensor) -> int:
    """Of a value as it is stored; of a real one where it is complex."""
    small = {torch.bool: 1, torch.quint2x4: 2, torch.quint4x2: 4}
    return small.get(tensor.dtype) or tensor.element_size() * (4 if tensor.is_complex() else 8)


def num_reals(tensor: Tensor) -> int:
    """Of the real numbers that are stored."""
    return num_stored(tensor.detach()) * (1 + tensor.is_complex())


def index_bytes(tensor: Tensor) -> int:
    """Of a sparse tensor: where its values are."""
    return sum(getattr(tensor.detach(), name)().nbytes for name in _PLACES.get(tensor.layout, ()))
