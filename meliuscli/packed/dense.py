"""MeliusNet and BinaryDenseNet as programs: everything packed or in own kernels, nothing left to torch.

A stage works on one map of its final width: a DenseBlock writes behind the channels that are there, an ImprovementBlock
adds to the last ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.families.units import DenseUnit, Transition
from meliuscli.arch.plan import HEAD, STEM, Layer
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.families.dense import SHUFFLE_GROUPS
from meliuscli.nn.layers import ChannelShuffle
from meliuscli.packed.fold import folded_conv, scale_and_shift, thresholds
from meliuscli.packed.isa import Isa
from meliuscli.packed.layout import Map, Window, num_words, round_up
from meliuscli.packed.program import Array, Step, zeros
from meliuscli.packed.stem import padded_width, stem_step
from meliuscli.packed.steps import binary_step, fill_border, float_step, mean_step, norm_pool_step, pack_step
from meliuscli.packed.words import BinaryWeights, pack_bits

Tensors = dict[str, Array]
"""Packed and folded weights by name: ``words`` of binary weights (uint32), ``thresholds`` and ``flips`` (uint32 words) of
the batch norm before a sign, and floats. With its spec, all that a network is."""


def fold_dense(network: nn.Module, spec: DenseFamilySpec) -> Tensors:
    """The tensors of a network of ``spec`` in eval mode."""
    tensors: Tensors = {}
    layers = [layer for layer in spec.layers() if layer.kind in ("conv", "linear", "batch_norm")]
    for before, layer, after in zip([None, *layers], layers, [*layers[1:], None], strict=False):
        name, module = layer.name, network.get_submodule(layer.name)
        if isinstance(module, BinaryConv2d):
            assert before is not None
            tensors[f"{name}.words"] = pack_bits((module.weight.detach() >= 0).permute(0, 2, 3, 1).numpy())
            values, flips = thresholds(_norm(network, before), before.out_channels)
            tensors[f"{name}.thresholds"], tensors[f"{name}.flips"] = values, pack_bits(flips)
        elif isinstance(module, nn.Conv2d) and layer.stage == STEM:
            assert after is not None
            norm = _norm(network, after) if (after.stage, after.kind) == (STEM, "batch_norm") else None
            tensors[f"{name}.weight"], tensors[f"{name}.bias"] = folded_conv(module, norm)
        elif isinstance(module, nn.Conv2d):
            tensors[f"{name}.weight"] = module.weight.detach().numpy()[:, :, 0, 0].copy()
        elif isinstance(module, nn.Linear):
            tensors[f"{name}.weight"] = module.weight.detach().numpy().copy()
            tensors[f"{name}.bias"] = module.bias.detach().numpy().copy()
        elif layer.stage != STEM and not layer.block:
            tensors[f"{name}.scale"], tensors[f"{name}.shift"] = scale_and_shift(_norm(network, layer))
    return tensors


def _norm(network: nn.Module, layer: Layer) -> nn.BatchNorm2d:
    module = network.get_submodule(layer.name)
    assert isinstance(module, nn.BatchNorm2d)
    return module


class DensePlan:
    """The steps of a network for a batch, and what they work on: ``images`` (their columns padded with zeros), ``maps``
    by the name of what reads them (the stem, a block's convolution, a transition, the head), ``entered`` the maps that
    the stem and the transitions write, ``words`` of signs by the name of the block that sees them, ``logits``."""

    def __init__(self, spec: DenseFamilySpec, tensors: Tensors, isa: Isa, batch: int, threads: int) -> None:
        self.spec, self._tensors, self._isa = spec, tensors, isa
        self._batch, self._threads = batch, threads
        self.maps: dict[str, Map] = {}
        self.entered: dict[str, Map] = {}
        self.words: dict[str, Map] = {}
        self.steps = tuple(self._steps())

    def _steps(self) -> Iterator[Step]:
        """In order; each is told in which stage it lies."""
        enter: Callable[[Map], Iterator[Step]] = self._stem
        entering = STEM
        for stage in self.spec.stages():
            # A kernel may write whole vectors behind the channels that are there.
            whole = Map.make(self._batch, stage.size, stage.size, round_up(stage.channels + 64, 64))
            self.entered[entering] = whole
            yield from _in(entering, enter(whole))
            for unit in stage.units:
                yield from _in(stage.name, self._binary(unit, whole))
            if stage.transition is not None:
                enter, entering = partial(self._transition, stage.transition, whole), stage.transition.name
        yield from _in(HEAD, self._head(whole, stage.channels))

    def _binary(self, unit: DenseUnit, whole: Map) -> Iterator[Step]:
        """Batch norm, sign and convolution of the first channels, into those behind them or added to the last."""
        tensors, name, seen, dilation = self._tensors, unit.name, unit.channels, unit.dilation
        channel = seen - unit.growth if unit.adds else seen
        weights = BinaryWeights(tensors[f"{name}.conv.words"], seen, Window(3, 1, dilation, dilation), xnor=True)
        words = Map.make(self._batch, whole.height, whole.width, num_words(seen), dilation, np.uint32)
        fill_border(words, weights)
        self.maps[name], self.words[name] = whole, words
        values, flips = tensors[f"{name}.conv.thresholds"], tensors[f"{name}.conv.flips"]
        yield pack_step(name, self._isa, whole, words, values, flips)
        yield binary_step(name, self._isa, words, whole, weights, channel, accumulate=unit.adds)

    def _transition(self, transition: Transition, source: Map, out: Map) -> Iterator[Step]:
        tensors, isa = self._tensors, self._isa
        name, channels, target, groups, _, pools = transition
        self.maps[name] = source
        pooled = Map.make(self._batch, transition.out_size, transition.out_size, round_up(channels, 64))
        scale, shift = tensors[f"{name}.bn.scale"], tensors[f"{name}.bn.shift"]
        yield norm_pool_step(name, isa, source, pooled, scale, shift, pools)
        order = shuffled(channels) if groups > 1 else np.arange(channels)
        weights, width = tensors[f"{name}.conv.weight"], target // groups
        for group, seen in enumerate(order.reshape(groups, -1)):
            own = weights[group * width : (group + 1) * width]
            yield float_step(name, isa, pooled, out, own, channel=group * width, elements=list(seen))

    def _head(self, source: Map, channels: int) -> Iterator[Step]:
        tensors, isa = self._tensors, self._isa
        pooled = Map.make(self._batch, 1, 1, round_up(channels, isa.lanes))
        self.logits = Map.make(self._batch, 1, 1, round_up(self.spec.num_classes, 64))
        self.maps[HEAD] = source
        yield mean_step(HEAD, isa, source, pooled, tensors["head.bn.scale"], tensors["head.bn.shift"])
        weights, bias = tensors["head.fc.weight"], tensors["head.fc.bias"]
        yield float_step(HEAD, isa, pooled, self.logits, weights, bias)

    def _stem(self, out: Map) -> Iterator[Step]:
        spec, isa = self.spec, self._isa
        self.images = zeros((self._batch, spec.input_channels, spec.input_size, padded_width(spec, isa)))
        yield stem_step(spec, self._tensors, isa, self.images, out, self._threads)


def _in(stage: str, steps: Iterable[Step]) -> Iterator[Step]:
    return (replace(step, stage=stage) for step in steps)


def shuffled(channels: int) -> Array:
    """Which channel each channel is behind the shuffle of a grouped transition."""
    order = torch.arange(channels, dtype=torch.float32)[None, :, None, None]
    places: Array = ChannelShuffle(SHUFFLE_GROUPS, channels)(order).flatten().numpy().astype(int)
    return places
