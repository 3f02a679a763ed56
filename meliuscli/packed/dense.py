"""MeliusNet and BinaryDenseNet as programs: everything packed or in own kernels, nothing left to torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.families.parts import GROUPED_STEM_GROUPS
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.families.dense import SHUFFLE_GROUPS
from meliuscli.nn.layers import ChannelShuffle
from meliuscli.packed.fold import folded_conv, scale_and_shift, thresholds
from meliuscli.packed.isa import Isa
from meliuscli.packed.layout import WORD, Map, Planes, Window, num_words, round_up
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
"""Packed and folded weights by name: words of binary weights, thresholds and flips of batch norm before a sign, floats
of everything else. All that a network is, beside its spec."""

BAND = 56
"""Rows of the stem's output that are made at a time, so that what lies between stays in the cache."""


def fold_dense(network: nn.Module, spec: DenseFamilySpec) -> Tensors:
    """The tensors of a network in eval mode."""
    tensors: Tensors = {}
    modules = dict(network.named_modules())
    for name, module in modules.items():
        parent = name.rpartition(".")[0]
        if isinstance(module, BinaryConv2d):
            signs = module.weight.detach() >= 0
            tensors[f"{name}.words"] = pack_bits(signs.permute(0, 2, 3, 1).numpy())
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
    """The steps of a network for a batch, and the maps that they work on."""

    def __init__(self, spec: DenseFamilySpec, tensors: Tensors, isa: Isa, batch: int) -> None:
        self.spec, self._tensors, self._isa, self._batch = spec, tensors, isa, batch
        self.blocks: dict[str, tuple[Map, Map]] = {}
        self.steps = list(self._steps())

    def _steps(self) -> Iterator[Step]:
        spec, last = self.spec, len(self.spec.num_blocks) - 1
        sizes = {layer.name: layer.out_size for layer in spec.layers()}
        channels, size = spec.stem_channels, sizes.get("stem.pool", sizes.get("stem.conv", 0))
        entering: Callable[[Map], Iterator[Step]] = self._stem
        for index, num in enumerate(spec.num_blocks):
            stage, growth = f"stage{index + 1}", spec.growth_rate[index]
            width = channels + num * growth
            whole = Map.make(self._batch, size, size, round_up(width + 64, 64))
            yield from entering(whole)
            for block in range(1, num + 1):
                yield from self._block(f"{stage}.block{block}", stage, whole, channels, index)
                channels += growth
            if index < last:
                name, target, pools = f"transition{index + 1}", spec.transition_channels[index], spec.pools[index]
                size = sizes[f"{name}.conv"]
                entering = self._transition(name, whole, channels, pools, size)
                channels = target
            else:
                yield from self._head(whole, channels)

    def _block(self, name: str, part: str, whole: Map, channels: int, index: int) -> Iterator[Step]:
        growth = self.spec.growth_rate[index]
        yield from self._binary(f"{name}.dense", part, whole, channels, channels, index)
        if self.spec.improvement:
            yield from self._binary(f"{name}.improvement", part, whole, channels + growth, channels, index)

    def _binary(self, name: str, part: str, whole: Map, seen: int, channel: int, index: int) -> Iterator[Step]:
        tensors, dilation = self._tensors, self.spec.dilation[index]
        window = Window(3, 1, dilation, dilation)
        weights = BinaryWeights(tensors[f"{name}.conv.words"], seen, window, xnor=True)
        size = whole.height
        words = Map.make(self._batch, size, size, num_words(seen), dilation, np.uint32)
        fill_border(words, weights)
        self.blocks[name] = (whole, words)
        values, flips = tensors[f"{name}.conv.thresholds"], tensors[f"{name}.conv.flips"]
        yield pack_step(f"{part} pack", self._isa, whole, words, values, flips)
        accumulate = name.endswith("improvement")
        yield binary_step(f"{part} conv", self._isa, words, whole, weights, channel, accumulate)

    def _transition(
        self, name: str, source: Map, channels: int, pools: bool, size: int
    ) -> Callable[[Map], Iterator[Step]]:
        tensors, isa = self._tensors, self._isa

        def steps(out: Map) -> Iterator[Step]:
            pooled = Map.make(self._batch, size, size, round_up(channels, 64))
            scale, shift = tensors[f"{name}.bn.scale"], tensors[f"{name}.bn.shift"]
            yield norm_pool_step(name, isa, source, pooled, scale, shift, pools)
            yield from self._pointwise(name, pooled, out, channels)

        return steps

    def _pointwise(self, name: str, source: Map, out: Map, channels: int) -> Iterator[Step]:
        """A 1x1 convolution; each of its groups sees its share of the shuffled channels."""
        weights, groups = self._tensors[f"{name}.conv.weight"], self.spec.groups
        order = shuffled(channels) if groups > 1 else np.arange(channels)
        outputs = len(weights) // groups
        for group, seen in enumerate(order.reshape(groups, -1)):
            own = weights[group * outputs : (group + 1) * outputs]
            yield float_step(name, self._isa, source, out, own, channel=group * outputs, elements=list(seen))

    def _head(self, source: Map, channels: int) -> Iterator[Step]:
        tensors, isa = self._tensors, self._isa
        pooled = Map.make(self._batch, 1, 1, round_up(channels, isa.lanes))
        self.logits = Map.make(self._batch, 1, 1, round_up(self.spec.num_classes, 64))
        yield mean_step("head", isa, source, pooled, tensors["head.bn.scale"], tensors["head.bn.shift"])
        weights, bias = tensors["head.fc.weight"], tensors["head.fc.bias"]
        yield float_step("head", isa, pooled, self.logits, weights, bias)

    # The stem

    def _stem(self, out: Map) -> Iterator[Step]:
        spec, isa, tensors = self.spec, self._isa, self._tensors
        names = [name.removesuffix(".weight") for name in tensors if name.startswith("stem.") and name.endswith("weight")]
        grouped, pools = spec.stem == "grouped", spec.stem != "thumbnail"
        kernel = 7 if spec.stem == "imagenet" else 3
        first = Window(kernel, 2 if pools else 1, 1, kernel // 2)
        size = first.out_size(spec.input_size)
        vectors = -(-size // isa.lanes)
        width = round_up(spec.input_size, isa.lanes * first.stride)
        content = max(vectors * isa.lanes, width // first.stride)
        self.images = zeros((self._batch, spec.input_channels, spec.input_size, width))
        source = Planes.make(
            self._batch, spec.input_channels, spec.input_size, content, first.padding, isa, first.stride
        )
        steps = [split_step("stem", isa, self.images, source)]
        before, window, needs = spec.input_size, first, []
        for name in names:
            weights, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
            channels = round_up(len(weights), isa.lanes) if name == names[-1] else len(weights)
            made = Planes.make(self._batch, channels, size, vectors * isa.lanes, 1, isa)
            steps.append(plane_step("stem", isa, source, made, before, window, weights, bias, pools, vectors))
            needs.append(window)
            source, before, window = made, size, Window(3, padding=1)
        assert len(names) == (len(GROUPED_STEM_GROUPS) if grouped else 1)
        steps.append(gather_step("stem", isa, source, out, pools))
        needs.append(Window(3, 2, 1, 1) if pools else Window(1))
        return in_bands(steps, needs, [spec.input_size, *[size] * len(names), out.height], self._batch)


def in_bands(steps: list[Step], windows: list[Window], sizes: list[int], batch: int) -> Iterator[Step]:
    """Steps of rows, each seeing the one before through a window, interleaved: a few rows of the last at a time, and of
    the others what those need."""
    a_row = [step.end // (batch * size) for step, size in zip(steps, sizes, strict=True)]
    for image in range(batch):
        done = [0] * len(steps)
        while done[-1] < sizes[-1]:
            ends = [min(done[-1] + BAND, sizes[-1])]
            for window, size in zip(reversed(windows), reversed(sizes[:-1]), strict=True):
                last = (ends[0] - 1) * window.stride - window.padding + window.dilation * (window.kernel - 1)
                ends.insert(0, max(min(last + 1, size), 0))
            for index, (step, end) in enumerate(zip(steps, ends, strict=True)):
                if end > done[index]:
                    first = image * sizes[index]
                    yield step.piece((first + done[index]) * a_row[index], (first + end) * a_row[index])
                    done[index] = end


def shuffled(channels: int) -> Array:
    """Which channel each channel is behind the shuffle of a grouped transition."""
    order = torch.arange(channels, dtype=torch.float32)[None, :, None, None]
    return ChannelShuffle(SHUFFLE_GROUPS, channels)(order).flatten().numpy().astype(int)


__all__ = ["WORD", "DensePlan", "Tensors", "fold_dense"]
