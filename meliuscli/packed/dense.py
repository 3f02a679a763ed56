"""MeliusNet and BinaryDenseNet as programs: everything packed or in own kernels, nothing left to torch.

A stage works on one map of its final width: a DenseBlock writes behind the channels that are there, an ImprovementBlock
adds to the last ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.families.dense import SHUFFLE_GROUPS
from meliuscli.nn.layers import ChannelShuffle
from meliuscli.packed.fold import folded_conv, scale_and_shift, thresholds
from meliuscli.packed.isa import Isa
from meliuscli.packed.layout import Map, Planes, Window, num_words, round_up
from meliuscli.packed.program import Array, Step, zeros
from meliuscli.packed.steps import (
    BinaryWeights,
    binary_step,
    fill_border,
    float_step,
    gather_step,
    mean_step,
    norm_pool_step,
    pack_bits,
    pack_step,
    plane_step,
    split_step,
)

Tensors = dict[str, Array]
"""Packed and folded weights by name: ``words`` of binary weights (uint32), ``thresholds`` and ``flips`` (uint32 words) of
the batch norm before a sign, and floats. With its spec, all that a network is."""


def fold_dense(network: nn.Module) -> Tensors:
    """The tensors of a network in eval mode."""
    tensors: Tensors = {}
    modules = dict(network.named_modules())
    for name, module in modules.items():
        parent = name.rpartition(".")[0]
        if isinstance(module, BinaryConv2d):
            tensors[f"{name}.words"] = pack_bits((module.weight.detach() >= 0).permute(0, 2, 3, 1).numpy())
            values, flips = thresholds(_norm(modules[f"{parent}.bn"]))
            tensors[f"{name}.thresholds"], tensors[f"{name}.flips"] = values, pack_bits(flips)
        elif isinstance(module, nn.Conv2d) and parent == "stem":
            norm = modules.get(name.replace("conv", "bn"))
            weight, bias = folded_conv(module, None if norm is None else _norm(norm))
            tensors[f"{name}.weight"], tensors[f"{name}.bias"] = weight, bias
        elif isinstance(module, nn.Conv2d):
            tensors[f"{name}.weight"] = module.weight.detach().numpy()[:, :, 0, 0].copy()
        elif isinstance(module, nn.Linear):
            tensors[f"{name}.weight"] = module.weight.detach().numpy().copy()
            tensors[f"{name}.bias"] = module.bias.detach().numpy().copy()
        elif isinstance(module, nn.BatchNorm2d) and (parent == "head" or parent.startswith("transition")):
            tensors[f"{name}.scale"], tensors[f"{name}.shift"] = scale_and_shift(module)
    return tensors


def _norm(module: nn.Module) -> nn.BatchNorm2d:
    assert isinstance(module, nn.BatchNorm2d)
    return module


class DensePlan:
    """The steps of a network for a batch, and what they work on: ``images`` (their columns padded with zeros), ``maps``
    by the name of the layer that writes them, ``words`` of signs by the name of the block that sees them, ``logits``."""

    def __init__(self, spec: DenseFamilySpec, tensors: Tensors, isa: Isa, batch: int) -> None:
        self.spec, self._tensors, self._isa, self._batch = spec, tensors, isa, batch
        self._sizes = {layer.name: layer.out_size for layer in spec.layers()}
        self.maps: dict[str, Map] = {}
        self.words: dict[str, Map] = {}
        self.steps = tuple(self._steps())

    def _steps(self) -> Iterator[Step]:
        spec, channels = self.spec, self.spec.stem_channels
        enter: Callable[[Map], Iterator[Step]] = self._stem
        for index, (num, growth) in enumerate(zip(spec.num_blocks, spec.growth_rate, strict=True)):
            stage = f"stage{index + 1}"
            size = self._sizes[f"{stage}.block1.dense.conv"]
            # A kernel may write whole vectors behind the channels that are there.
            whole = Map.make(self._batch, size, size, round_up(channels + num * growth + 64, 64))
            yield from enter(whole)
            for block in range(1, num + 1):
                name = f"{stage}.block{block}"
                yield from self._binary(f"{name}.dense", whole, channels, channels, index)
                if spec.improvement:
                    yield from self._binary(f"{name}.improvement", whole, channels + growth, channels, index)
                channels += growth
            if index < len(spec.num_blocks) - 1:
                enter = self._transition(index, whole, channels)
                channels = spec.transition_channels[index]
            else:
                yield from self._head(whole, channels)

    def _binary(self, name: str, whole: Map, seen: int, channel: int, index: int) -> Iterator[Step]:
        """Batch norm, sign and convolution of the first ``seen`` channels, into those from ``channel`` on."""
        tensors, dilation = self._tensors, self.spec.dilation[index]
        weights = BinaryWeights(tensors[f"{name}.conv.words"], seen, Window(3, 1, dilation, dilation), xnor=True)
        words = Map.make(self._batch, whole.height, whole.width, num_words(seen), dilation, np.uint32)
        fill_border(words, weights)
        self.maps[name], self.words[name] = whole, words
        values, flips = tensors[f"{name}.conv.thresholds"], tensors[f"{name}.conv.flips"]
        yield pack_step(name, self._isa, whole, words, values, flips)
        yield binary_step(name, self._isa, words, whole, weights, channel, accumulate=name.endswith("improvement"))

    def _transition(self, index: int, source: Map, channels: int) -> Callable[[Map], Iterator[Step]]:
        name, tensors, isa = f"transition{index + 1}", self._tensors, self._isa
        size, groups = self._sizes[f"{name}.conv"], self.spec.groups
        self.maps[name] = source

        def steps(out: Map) -> Iterator[Step]:
            pooled = Map.make(self._batch, size, size, round_up(channels, 64))
            scale, shift = tensors[f"{name}.bn.scale"], tensors[f"{name}.bn.shift"]
            yield norm_pool_step(f"{name}.bn", isa, source, pooled, scale, shift, self.spec.pools[index])
            order = shuffled(channels) if groups > 1 else np.arange(channels)
            weights = tensors[f"{name}.conv.weight"]
            width = len(weights) // groups
            for group, seen in enumerate(order.reshape(groups, -1)):
                own = weights[group * width : (group + 1) * width]
                yield float_step(f"{name}.conv", isa, pooled, out, own, channel=group * width, elements=list(seen))

        return steps

    def _head(self, source: Map, channels: int) -> Iterator[Step]:
        tensors, isa = self._tensors, self._isa
        pooled = Map.make(self._batch, 1, 1, round_up(channels, isa.lanes))
        self.logits = Map.make(self._batch, 1, 1, round_up(self.spec.num_classes, 64))
        self.maps["head"] = source
        yield mean_step("head.pool", isa, source, pooled, tensors["head.bn.scale"], tensors["head.bn.shift"])
        weights, bias = tensors["head.fc.weight"], tensors["head.fc.bias"]
        yield float_step("head.fc", isa, pooled, self.logits, weights, bias)

    def _stem(self, out: Map) -> Iterator[Step]:
        """Convolutions in planes, a channel each, then 3x3 max pooling on the way to pixels (not for thumbnails)."""
        spec, isa, tensors = self.spec, self._isa, self._tensors
        names = [layer.name for layer in spec.layers() if layer.kind == "conv" and layer.name.startswith("stem.")]
        pools, kernel = spec.stem != "thumbnail", 7 if spec.stem == "imagenet" else 3
        window = Window(kernel, 2 if pools else 1, 1, kernel // 2)
        before, size = spec.input_size, window.out_size(spec.input_size)
        vectors, columns = -(-size // isa.lanes), round_up(before, isa.lanes * window.stride)
        content = max(vectors * isa.lanes, columns // window.stride)
        self.images = zeros((self._batch, spec.input_channels, before, columns))
        source = Planes.make(
            self._batch, spec.input_channels, before, content, window.padding, isa, parities=window.stride
        )
        yield split_step("stem.images", isa, self.images, source)
        for name in names:
            weights, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
            channels = round_up(len(weights), isa.lanes) if name == names[-1] else len(weights)
            made = Planes.make(self._batch, channels, size, vectors * isa.lanes, 1, isa)
            yield plane_step(name, isa, source, made, before, window, weights, bias, pools, vectors)
            source, before, window = made, size, Window(3, padding=1)
        self.maps["stem"] = out
        yield gather_step("stem.pool", isa, source, out, pools)


def shuffled(channels: int) -> Array:
    """Which channel each channel is behind the shuffle of a grouped transition."""
    order = torch.arange(channels, dtype=torch.float32)[None, :, None, None]
    return ChannelShuffle(SHUFFLE_GROUPS, channels)(order).flatten().numpy().astype(int)
