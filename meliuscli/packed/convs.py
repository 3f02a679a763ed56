"""Any network of ours with its binary convolutions packed, one by one, and the rest left to torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.quantized import QuantConv2d
from meliuscli.nn.quantizers import ApproxSign, SteSign
from meliuscli.packed.isa import Isa
from meliuscli.packed.layout import Map, Window, num_words, round_up
from meliuscli.packed.program import Array, Crew, Program, clock
from meliuscli.packed.steps import binary_step, fill_border, pack_step
from meliuscli.packed.words import BinaryWeights, pack_bits


@torch.no_grad()
def binary_weights(conv: nn.Module) -> BinaryWeights | None:
    """The packed weights of a binary convolution; None for one that is none, or that has groups, a bias, weights
    of other than two values a filter, or activations of other bits than signs."""
    if isinstance(conv, BinaryConv2d):
        window = Window(3, conv.stride, conv.dilation, conv.dilation)
        return BinaryWeights(_words(conv.weight >= 0), conv.weight.shape[1], window, -1, xnor=True)
    if not isinstance(conv, QuantConv2d) or conv.weight_bits != 1 or conv.activation_bits != 1:
        return None
    if not isinstance(conv.activation, nn.Identity | SteSign | ApproxSign):
        return None
    weight = conv.quantizer(conv.weight)
    scale = weight.abs().amax((1, 2, 3))
    two_values = bool((weight.abs() == scale[:, None, None, None]).all())
    if conv.groups != 1 or conv.bias is not None or not two_values or conv.pad_value not in (-1, 0, 1):
        return None
    same = conv.same and conv.padding > 0
    window = Window(conv.weight.shape[2], conv.stride, conv.dilation, conv.padding, same)
    return BinaryWeights(
        _words(weight > 0), conv.weight.shape[1], window, int(conv.pad_value), scale=scale.numpy().copy()
    )


def _words(bits: Tensor) -> Array:
    return pack_bits(bits.permute(0, 2, 3, 1).numpy())


class PackedConv2d(nn.Module):
    """(N, channels, H, W), of which the signs count -> (N, outputs, H', W'), a view that the next call overwrites.

    ``pack_seconds`` and ``conv_seconds`` add up what calls took."""

    def __init__(self, weights: BinaryWeights, isa: Isa, crew: Crew) -> None:
        super().__init__()
        self.weights, self._isa, self._crew = weights, isa, crew
        self._now = clock(crew.threads)
        self._shape: tuple[int, ...] = ()
        # What the modules around it look at: no more than the shape of the weights, and the stride.
        kernel, self.stride = weights.window.kernel, weights.window.stride
        self.weight = torch.empty(weights.outputs, weights.channels, kernel, kernel, device="meta")
        self.pack_seconds = self.conv_seconds = 0.0

    def _plan(self, batch: int, height: int, width: int) -> None:
        weights, isa, window = self.weights, self._isa, self.weights.window
        self._source = Map.make(batch, height, width, round_up(weights.channels, 32))
        border = max(*window.border(height), *window.border(width))
        self._words = Map.make(batch, height, width, num_words(weights.channels), border, np.uint32)
        fill_border(self._words, weights)
        rows, columns = window.out_size(height), window.out_size(width)
        self._out = Map.make(batch, rows, columns, round_up(weights.outputs, isa.lanes * isa.vectors))
        signs = np.zeros(weights.channels, np.float32), np.zeros(num_words(weights.channels), np.uint32)
        steps = [
            pack_step("", isa, self._source, self._words, *signs),
            binary_step("", isa, self._words, self._out, weights),
        ]
        self._program, self.step = Program(isa, steps, self._crew), steps[1]
        self._inner = torch.from_numpy(self._source.data)[..., : weights.channels]
        self._result = torch.from_numpy(self._out.data).permute(0, 3, 1, 2)[:, : weights.outputs]

    def forward(self, x: Tensor) -> Tensor:
        shape = (len(x), *x.shape[2:])
        if shape != self._shape:
            self._plan(*shape)
            self._shape = shape
        started = self._now()
        self._inner.copy_(x.permute(0, 2, 3, 1))
        self._program.run(0, 1)
        packed = self._now()
        self._program.run(1, 2)
        self.pack_seconds += packed - started
        self.conv_seconds += self._now() - packed
        return self._result


def fold_convs(network: nn.Module) -> dict[str, BinaryWeights]:
    """The binary convolutions that can be packed, by name."""
    folded = {name: binary_weights(module) for name, module in network.named_modules()}
    return {name: weights for name, weights in folded.items() if weights is not None}


def pack_convs(
    network: nn.Module, known: Mapping[str, BinaryWeights], isa: Isa, crew: Crew
) -> tuple[nn.Module, list[str], list[str]]:
    """A copy in torch's channels-last layout with the ``known`` binary convolutions packed and batch norm folded into the
    float convolutions before it; the names of what was packed, and of the convolutions of few bits that were not."""
    packed: list[str] = []
    left: list[str] = []
    copied = copy.deepcopy(network)
    for name, module in list(copied.named_modules()):
        if not isinstance(module, BinaryConv2d | QuantConv2d):
            continue
        if name not in known:
            left.append(name)
            continue
        packed.append(name)
        replace_module(copied, name, PackedConv2d(known[name], isa, crew))
    if not any(copied.get_submodule(name).activation_bits == 1 for name in left):
        # The packed convolutions take the sign themselves.
        for name, module in list(copied.named_modules()):
            if isinstance(module, SteSign | ApproxSign) and not any(name.startswith(f"{at}.") for at in left):
                replace_module(copied, name, nn.Identity())
    for module in copied.modules():
        if isinstance(module, nn.Sequential):
            _fold_norms(module)
    return channels_last(copied), packed, left


def channels_last(network: nn.Module) -> nn.Module:
    """The network itself, its weights in torch's channels-last layout."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _fold_norms(layers: nn.Sequential) -> None:
    names = list(layers._modules)
    for before, after in pairwise(names):
        conv, norm = layers.get_submodule(before), layers.get_submodule(after)
        if type(conv) is nn.Conv2d and isinstance(norm, nn.BatchNorm2d):
            layers.add_module(before, fuse_conv_bn_eval(conv, norm))
            layers.add_module(after, nn.Identity())


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    network.get_submodule(parent).add_module(child, module)
