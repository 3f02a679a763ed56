"""Tensors in nested values, and the storages that they lie in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from meliuscli.counting.counts import FLOAT_BITS


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
    """Bits of an integer type; None for the floating-point types, whose values have to be looked at."""
    if tensor.is_floating_point() or tensor.is_complex():
        return None
    if tensor.dtype == torch.bool:
        return 1
    return min(FLOAT_BITS, tensor.element_size() * 8)


def listed_tensors(value: Any) -> list[Tensor]:
    """Of an argument: itself, or those in a list."""
    if isinstance(value, Tensor):
        return [value]
    return [t for t in value if isinstance(t, Tensor)] if isinstance(value, list | tuple) else []


def shape_of(value: Any) -> tuple[int, ...]:
    """Of the first tensor in a nested value; () where there is none."""
    return next((tuple(tensor.shape) for tensor in tensors_in(value)), ())


def tensors_in(value: Any, depth: int = 8) -> Iterator[Tensor]:
    """The tensors in whatever a module returns."""
    if isinstance(value, Tensor):
        yield value
    elif depth and not isinstance(value, nn.Module | type | str | bytes):
        held = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        for part in held or getattr(value, "__dict__", {}).values():
            yield from tensors_in(part, depth - 1)
