"""What torch executes, module by module: the road that looks into autograd Functions and scripted code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Kind = Literal["conv", "linear"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FACTOR = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm"), 0),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "_addmm_activation"), 1),
}
"""Products of tensors in aten, and which argument is the first factor; the next is the second."""

_HARMLESS = _words(
    """
    pool1d pool2d pool3d norm softmax softmin logsumexp upsample interpolate pad pad1d pad2d pad3d view reshape
    permute transpose t squeeze unsqueeze select slice split chunk unbind stack cat concat expand repeat tile
    flatten unflatten roll flip gather scatter index take where masked fill copy clone zeros ones full empty new
    scalar arange linspace eye rand randn randint randperm bernoulli multinomial normal uniform dropout sort
    topk argmax argmin argsort max min amax amin aminmax maximum minimum sum mean var std prod cumsum cumprod
    any all numel size stride dim item local embedding hot im2col col2im unfold fold shuffle unshuffle detach
    alias lift to type dtype device contiguous meshgrid tril triu diag diagonal bincount histc unique nonzero
    equal prelu glu clamp quantize dequantize strided resolve set is result movedim swapaxes narrow as assert
    broadcast sampler count median kthvalue bucketize searchsorted outer dense implicit
    """
)
"""Words in the names of operations without MACs, beside those that torch itself marks as pointwise."""

WITH_MACS = _words(
    """
    fft stft istft cdist pdist bilinear trilinear attention lstm gru rnn conv conv1d conv2d conv3d convolution
    linear matmul mm bmm einsum tensordot deform
    """
)
"""Words in the names of operations that are made of multiplications."""


@dataclass(slots=True)
class Seen:
    """What torch executes in one module, without its children."""

    macs: dict[Kind, int] = field(default_factory=dict)
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    levels: tuple[int, int] = (0, 0)
    """Distinct values of the weights of a channel and of the activations that its MACs multiply: 1, 2, 3 for two and
    zero, 4 for more; 0 where no operand was looked at. Zeros that pad a map on its sides are none of its values."""
    kernels: set[tuple[int, ...]] = field(default_factory=set)
    """Shapes of the second factors of its products, the weights', in order of size."""


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation below autograd, scripts and composite operations, by the module that is being called."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.blind: str | None = None
        self.seen: dict[str, Seen] = {}
        self._calls: list[str] = [""]
        for name, part in module.named_modules():
            if not isinstance(part, torch.jit.ScriptModule):
                part.register_forward_pre_hook(self._entering(name))
                part.register_forward_hook(self._leaving(name), always_call=True)

    def _entering(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _module, _inputs: self._calls.append(name)

    def _leaving(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def left(_module: nn.Module, inputs: Any, output: Any) -> None:
            if self._calls[-1] == name:  # not where one of its hooks has failed before ours
                self._calls.pop()
            self._here(name).shapes.append((_shape(inputs), _shape(output)))

        return left

    def _here(self, name: str) -> Seen:
        return self.seen.setdefault(name, Seen())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, _, name = func._schema.name.partition("::")
        kwargs, aten = kwargs or {}, namespace == "aten"
        if not (aten and _is_product(name)):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        here = self._here(self._calls[-1])
        if aten and _is_product(name):
            kind, macs, levels, kernels = _product(name, args, out)
            here.kernels |= {tuple(sorted(kernel.shape)) for kernel in kernels}
            here.macs[kind] = here.macs.get(kind, 0) + macs
            here.levels = (max(here.levels[0], levels[0]), max(here.levels[1], levels[1]))
        elif namespace not in ("prim", "prims") and not (aten and (func.is_view or is_harmless(name))):
            here.unknown[f"{namespace}::{name}"] += 1
        return out


def _is_product(name: str) -> bool:
    plain = name.rstrip("_")
    recurrent = name in ("mkldnn_rnn_layer", "_cudnn_rnn")
    return plain in _FACTOR or name in _CONVOLUTIONS or recurrent or name.startswith("_scaled_dot_product_")


_CONVOLUTIONS = ("convolution", "_convolution", "convolution_overrideable")


def _product(name: str, args: Sequence[Any], out: Any) -> tuple[Kind, int, tuple[int, int], Sequence[Tensor]]:
    """Kind and MACs of an operation, the levels of its operands, weights first, and its weights."""
    if name in _CONVOLUTIONS:
        x, weight, transposed = args[0], args[1], args[6]
        positions = x.shape[0] * prod((x if transposed else out).shape[2:])
        channels = weight.transpose(0, 1) if transposed else weight
        levels = _levels(channels.flatten(1), 1), _levels(_without_padding(x).flatten(), 0)
        return "conv", positions * weight.numel(), levels, [weight]
    if name.startswith("_scaled_dot_product_"):
        query, key, value = args[:3]
        macs = prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        return "linear", macs, (0, 0), []
    if name.rstrip("_") not in _FACTOR:  # recurrent: each matrix once a step
        x, weights = args[0], args[1] if isinstance(args[1], list | tuple) else args[1:3]
        matrices = [w for w in weights if w.dim() > 1]
        return "linear", prod(x.shape[:-1]) * sum(w.numel() for w in matrices), (0, 0), matrices
    a, b = args[_FACTOR[name.rstrip("_")] :][:2]
    levels = (_levels(b, 0), _levels(a.flatten(), 0)) if a.dim() == b.dim() == 2 else (0, 0)
    return "linear", a.numel() * (b.shape[-1] if b.dim() > 1 else 1), levels, [b]


def _without_padding(x: Tensor) -> Tensor:
    """A batch of maps without the rows and columns at its sides that are zero in all of them."""
    if x.is_meta:
        return x
    for dim in range(2, x.dim()):
        filled = (x != 0).transpose(0, dim).flatten(1).any(1).nonzero()
        if len(filled):
            first, last = int(filled[0]), int(filled[-1])
            x = x.narrow(dim, first, last - first + 1)
    return x


_RARE = 0.01
"""Up to this share of zeros beside two values are torch's sign of zero by chance, no third value."""


def _levels(operand: Tensor, dim: int) -> int:
    """How many values it takes along ``dim`` (see ``Seen.levels``), but for rounding."""
    if operand.is_meta or not operand.is_floating_point() or not operand.numel():
        return 0
    low, high = operand.amin(dim, keepdim=True), operand.amax(dim, keepdim=True)
    near = 1e-3 * torch.maximum(low.abs(), high.abs())
    if bool((high - low <= near).all()):
        return 1
    two = (operand - low <= near) | (high - operand <= near)
    zero = ~two & (operand == 0)
    if not bool((two | zero).all()):
        return 4
    return 3 if int(zero.sum()) > _RARE * operand.numel() else 2


def is_harmless(name: str) -> bool:
    """Has an operation of aten no MACs?"""
    packet = getattr(torch.ops.aten, name, None)
    overloads = [getattr(packet, overload) for overload in packet.overloads()] if packet else []
    words = set(name.strip("_").split("_"))
    return any(torch.Tag.pointwise in op.tags for op in overloads) or (
        bool(words & _HARMLESS) and not words & WITH_MACS
    )


def _shape(value: Any) -> tuple[int, ...]:
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
