"""A residual or small network as a chain of steps, folded from its module: what the C library is made of, and what
``exact`` runs. Maps lie pixel by pixel, all channels of one after the other: floats, or packed signs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from meliuscli.arch.families.resnet import BiRealNetSpec, ResNetESpec, ResNetSpec
from meliuscli.arch.families.small import CNV_POOLED, INPUT_BITS, VGG_POOLED, FinnConvSpec, FinnDenseSpec, VGGSmallSpec
from meliuscli.arch.plan import HEAD, STEM
from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.memory_chain import runs_as_chain
from meliuscli.errors import BadInputError
from meliuscli.nn.quantizers import RPReLU, RSign
from meliuscli.packed.fold import folded_conv, scale_and_shift, thresholds
from meliuscli.packed.layout import Window, num_words
from meliuscli.packed.program import Array
from meliuscli.packed.steps import BinaryWeights, pack_bits, unpack_bits

IMAGE, LOGITS = "image", "logits"
Affine = tuple[Array, Array]
"""Scale and shift, one a channel."""
Chained = ResNetESpec | BiRealNetSpec | ResNetSpec | FinnDenseSpec | FinnConvSpec | VGGSmallSpec
CHAINED = "MeliusNet, BinaryDenseNet, ResNetE, Bi-Real Net, float ResNet, VGG-Small and FINN's networks"


@dataclass(frozen=True, slots=True)
class SignTable:
    """Where a map's signs turn: +1 where (x >= value) != flip, one a channel; without ``values`` where x >= 0."""

    channels: int
    values: Array | None = None
    flips: Array | None = None

    @property
    def words(self) -> int:
        return num_words(self.channels)

    def flip_bits(self) -> Array:
        """(channels,) of booleans."""
        if self.flips is None:
            return np.zeros(self.channels, bool)
        return unpack_bits(self.flips, self.channels)


@dataclass(frozen=True, slots=True)
class StemConv:
    """A convolution with its batch norm: (outputs, inputs a group, kernel, kernel) weights, bias. With ``scale`` weights and what
    it sees are int8, and what comes out is the nearest whole number to the sum times ``scale`` plus ``bias``."""

    name: str
    weight: Array
    bias: Array
    stride: int
    groups: int
    relu: bool
    scale: Array | None = None


@dataclass(frozen=True, slots=True)
class ChainStep:
    """``source`` and ``target`` name maps of ``size`` and ``out_size`` squared; ``stage`` is the part of the network."""

    name: str
    stage: str
    source: str
    target: str
    size: int
    out_size: int


@dataclass(frozen=True, slots=True)
class StemStep(ChainStep):
    """The image through an affine function, float convolutions, 3x3 max pooling of stride 2 where it ``pools``, and another
    affine function; with ``signs`` these alone are kept."""

    convs: tuple[StemConv, ...]
    pools: bool
    before: Affine | None = None
    behind: Affine | None = None
    signs: SignTable | None = None


@dataclass(frozen=True, slots=True)
class SignStep(ChainStep):
    """The signs of a float map. The image is one pixel of all its values."""

    signs: SignTable


@dataclass(frozen=True, slots=True)
class ShortcutStep(ChainStep):
    """2x2 average pooling where it ``pools``, of what is there at an odd edge; where it ``clips``, a slope of 0.1 outside of
    [-1, 1]; a float 1x1 convolution. One that only pools has no ``weight``, and as many channels as are ``pooled``."""

    weight: Array | None
    bias: Array | None
    pools: bool
    clips: bool = False
    pooled: int = 0

    @property
    def channels(self) -> tuple[int, int]:
        """That enter, and that leave."""
        return (self.pooled, self.pooled) if self.weight is None else (self.weight.shape[1], len(self.weight))


@dataclass(frozen=True, slots=True)
class FloatStep(ChainStep):
    """A float convolution, (outputs, inputs, kernel, kernel), with its batch norm; where it ``adds``, added to what the target
    holds; ReLU."""

    weight: Array
    bias: Array
    stride: int
    relu: bool
    adds: bool


@dataclass(frozen=True, slots=True)
class BinaryStep(ChainStep):
    """A binary convolution of packed signs; ``out_size`` is that behind 2x2 max pooling where it ``pools``.

    Its whole numbers become signs by ``signs``, whose values are whole, or floats: scale times them plus shift, then
    ``relu``; with ``adds`` added to what the target holds, then ``act`` (RPReLU's gamma, slope and zeta). ``norm_first``: the
    batch norm lies in front of the pooling, which then finds the lowest number where the norm's scale is negative. With
    ``steps`` the source is the image in whole multiples of 1 / ``steps``."""

    weights: BinaryWeights
    pools: bool = False
    signs: SignTable | None = None
    norm_first: bool = False
    affine: Affine | None = None
    relu: bool = False
    adds: bool = False
    act: tuple[Array, Array, Array] | None = None
    steps: int = 0

    @property
    def most(self) -> int:
        """What the whole numbers are in absolute value at most."""
        return self.weights.channels * self.weights.window.kernel**2 * max(self.steps, 1)

    @property
    def conv_size(self) -> int:
        """Of the map that the convolution makes, before pooling."""
        return self.weights.window.out_size(self.size)


@dataclass(frozen=True, slots=True)
class HeadStep(ChainStep):
    """ReLU where there is one, the mean over all pixels where it ``averages``, and a linear layer: (classes, inputs). With
    ``steps``, one a class, weights are int8, and the inputs whole numbers of 1 / ``inverse``."""

    weight: Array
    bias: Array
    relu: bool
    averages: bool
    steps: Array | None = None
    inverse: float = 1.0


@dataclass(frozen=True, slots=True)
class Chain:
    """A network in the order in which it runs. ``channels`` are those of its maps by name."""

    spec: ArchSpec
    steps: tuple[ChainStep, ...]
    channels: Mapping[str, int]

    @property
    def binary(self) -> tuple[BinaryStep, ...]:
        return tuple(step for step in self.steps if isinstance(step, BinaryStep))


def require_chained(spec: ArchSpec) -> Chained:
    """Raises ``BadInputError`` for a network that no chain is made of."""
    if not runs_as_chain(spec):
        what = "its padding = same" if isinstance(spec, BiRealNetSpec) else spec.family
        raise BadInputError(f"--to c: for {CHAINED}, not for {what}")
    assert isinstance(spec, Chained)
    return spec


Weights = Mapping[str, BinaryWeights]


@torch.no_grad()
def fold_chain(network: nn.Module, spec: ArchSpec, weights: Weights) -> Chain:
    """The chain of a network in eval mode; ``weights`` are its binary convolutions' by name (``fold_convs``).

    Raises ``BadInputError`` as ``require_chained``."""
    spec = require_chained(spec)
    if isinstance(spec, ResNetESpec | BiRealNetSpec | ResNetSpec):
        steps = tuple(_residual(network, spec, weights))
    elif isinstance(spec, FinnDenseSpec):
        signs = SignTable(spec.input_channels * spec.input_size**2)
        first = SignStep("image.signs", STEM, IMAGE, "image.signs", 1, 1, signs)
        steps = (first, *_binary_layers(network, spec, weights, "image.signs", 1, np.zeros(0)))
    else:
        steps = tuple(_plain(network, spec, weights))
    return Chain(spec, steps, _channels(steps))


def _channels(steps: tuple[ChainStep, ...]) -> dict[str, int]:
    channels: dict[str, int] = {}
    for step in steps:
        if isinstance(step, StemStep):
            channels[step.target] = len(step.convs[-1].weight)
        elif isinstance(step, SignStep):
            channels[step.target] = step.signs.channels
        elif isinstance(step, ShortcutStep):
            channels[step.target] = step.channels[1]
        elif isinstance(step, FloatStep | HeadStep):
            channels[step.target] = len(step.weight)
        elif isinstance(step, BinaryStep):
            channels[step.target] = step.weights.outputs
    return channels


def norm_of(network: nn.Module, name: str) -> nn.BatchNorm2d:
    """The batch norm of that name."""
    module = network.get_submodule(name)
    assert isinstance(module, nn.BatchNorm2d)
    return module


def _table(norm: nn.Module, channels: int) -> SignTable:
    values, flips = thresholds(norm, channels)
    return SignTable(channels, values, pack_bits(flips))


def _whole(table: SignTable, most: int, steps: int = 1) -> SignTable:
    """The same for whole numbers between -most and most, in multiples of 1 / ``steps``: the largest value stands for never."""
    assert table.values is not None
    with np.errstate(invalid="ignore", over="ignore"):
        whole = np.clip(np.ceil(table.values.astype(np.float64) * steps), -most, most + 1)
    return replace(table, values=np.where(np.isnan(whole), most + 1, whole).astype(np.int32))


# Stem, blocks of a convolution and a shortcut, head


def _residual(
    network: nn.Module, spec: ResNetESpec | BiRealNetSpec | ResNetSpec, weights: Weights
) -> Iterator[ChainStep]:
    from meliuscli.export.c.blocks import bottleneck, float_block

    size = next(layer for layer in spec.layers() if layer.stage == "stage1").out_size
    yield _stem(network, spec, size)
    stream = narrow = STEM
    for name in _blocks(network):
        if isinstance(spec, ResNetSpec):
            steps = tuple(float_block(network, name, stream, size))
        elif isinstance(spec, BiRealNetSpec) and spec.block == "bottleneck":
            steps = tuple(bottleneck(network, name, narrow, stream, size, weights))
            narrow = next(step.target for step in steps if step.name == f"{name}.conv2")
        else:
            steps = tuple(_block(network, name, stream, size, weights))
        yield from steps
        stream, size = steps[-1].target, steps[-1].out_size
    fc = network.get_submodule(f"{HEAD}.fc")
    assert isinstance(fc, nn.Linear)
    yield HeadStep(HEAD, HEAD, stream, LOGITS, size, 1, *_linear(fc), isinstance(spec, ResNetESpec), True)


def _blocks(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_modules() if name.startswith("stage") and name.count(".") == 1]


def _stem(network: nn.Module, spec: ResNetESpec | BiRealNetSpec | ResNetSpec, size: int) -> StemStep:
    layers = [layer for layer in spec.layers() if layer.stage == STEM]
    convs = []
    for layer, norm in zip(layers, [*layers[1:], None], strict=True):
        if layer.kind != "conv":
            continue
        conv = network.get_submodule(layer.name)
        assert isinstance(conv, nn.Conv2d)
        # What follows the pooling or stands for itself is no norm of the convolution.
        own = None if norm is None or norm.kind != "batch_norm" or norm.name == f"{STEM}.norm" else norm.name
        relu = f"{STEM}.{layer.name.removeprefix(f'{STEM}.').replace('conv', 'relu')}" in [one.name for one in layers]
        folded = folded_conv(conv, None if own is None else norm_of(network, own))
        convs.append(StemConv(layer.name, *folded, layer.stride, layer.groups, relu))
    pools = any(layer.kind == "max_pool" for layer in layers)
    before = behind = None
    if isinstance(spec, ResNetESpec):
        before = scale_and_shift(norm_of(network, "input_norm")) if spec.input_norm else None
        behind = scale_and_shift(norm_of(network, f"{STEM}.norm"))
    return StemStep(STEM, STEM, IMAGE, STEM, spec.input_size, size, tuple(convs), pools, before, behind)


def _block(network: nn.Module, name: str, stream: str, size: int, weights: Weights) -> Iterator[ChainStep]:
    """Signs of the stream; what stands in for it where its shape changes; the convolution, added to that."""
    block, stage = network.get_submodule(name), name.partition(".")[0]
    own = weights[f"{name}.conv"]
    shift = getattr(block, "sign", None)
    signs = SignTable(own.channels)
    if isinstance(shift, RSign):  # which rises, so that nothing is flipped
        signs = replace(_table(shift, own.channels), flips=None)
    yield SignStep(f"{name}.sign", stage, stream, f"{name}.signs", size, size, signs)
    after, target = own.window.out_size(size), stream
    shortcut = block.get_submodule("shortcut")
    if isinstance(shortcut, nn.Sequential):
        target = f"{name}.map"
        conv, pools = shortcut.get_submodule("conv"), own.window.stride > 1
        assert isinstance(conv, nn.Conv2d)
        weight, bias = folded_conv(conv, norm_of(network, f"{name}.shortcut.bn"))
        yield ShortcutStep(f"{name}.shortcut", stage, stream, target, size, after, weight[:, :, 0, 0], bias, pools)
    act = getattr(block, "act", None)
    affine = scaled_norm(norm_of(network, f"{name}.bn"), own)
    yield BinaryStep(
        f"{name}.conv",
        stage,
        f"{name}.signs",
        target,
        size,
        after,
        own,
        affine=affine,
        adds=True,
        act=_rprelu(act) if isinstance(act, RPReLU) else None,
    )


def scaled_norm(norm: nn.BatchNorm2d, weights: BinaryWeights) -> Affine:
    """Batch norm of a convolution's whole numbers times its scale."""
    scale, shift = scale_and_shift(norm)
    if weights.scale is not None:
        scale = (scale.astype(np.float64) * weights.scale).astype(np.float32)
    return scale, shift


def _rprelu(act: RPReLU) -> tuple[Array, Array, Array]:
    values = [value.detach().numpy().reshape(-1).copy() for value in (act.gamma, act.slope, act.zeta)]
    return values[0], values[1], values[2]


def _linear(fc: nn.Linear) -> Affine:
    return fc.weight.detach().numpy().copy(), fc.bias.detach().numpy().copy()


# Small networks: layers in a row, signs between them


def _plain(network: nn.Module, spec: FinnConvSpec | VGGSmallSpec, weights: Weights) -> Iterator[ChainStep]:
    """CNV's convolutions and dense layers, VGG-Small's convolutions and classifier."""
    pooled, norm_first = (CNV_POOLED, True) if isinstance(spec, FinnConvSpec) else (VGG_POOLED, False)
    source, size, count = IMAGE, spec.input_size, len(spec.channels)
    for index in range(1, count + 1):
        stage = STEM if index == 1 else f"conv{index}"
        norm, pools, target = norm_of(network, f"{stage}.bn"), index in pooled, f"{stage}.signs"
        if index == 1 and isinstance(spec, VGGSmallSpec):
            conv = network.get_submodule(f"{stage}.conv")
            assert isinstance(conv, nn.Conv2d)
            only = StemConv(f"{stage}.conv", *folded_conv(conv, None), 1, 1, False)
            signs = _table(norm, norm.num_features)
            yield StemStep(stage, stage, source, target, size, size, (only,), False, signs=signs)
        else:
            own = _first_of_cnv(network) if index == 1 else weights[f"{stage}.conv"]
            step = _layer(stage, source, target, size, own, norm, 2 ** (INPUT_BITS - 1) if index == 1 else 0)
            step = replace(step, pools=pools, norm_first=norm_first and pools)
            step = replace(step, out_size=step.conv_size // 2 if pools else step.conv_size)
            if index == count and isinstance(spec, VGGSmallSpec):
                step = replace(step, signs=None, affine=scale_and_shift(norm), relu=True, target=f"{stage}.map")
            yield step
            size = step.out_size
        source = f"{stage}.map" if index == count and isinstance(spec, VGGSmallSpec) else target
    if isinstance(spec, VGGSmallSpec):
        yield _flat_head(network, source, size, spec.channels[-1])
    else:
        yield from _binary_layers(network, spec, weights, source, size, np.arange(spec.channels[-1]))


def _first_of_cnv(network: nn.Module) -> BinaryWeights:
    """Of the convolution whose activations are 8-bit pixels."""
    conv = network.get_submodule(f"{STEM}.conv")
    bits = (conv.quantizer(conv.weight) > 0).permute(0, 2, 3, 1).numpy()  # type: ignore[operator]
    return BinaryWeights(pack_bits(bits), bits.shape[3], Window(3), pad_value=0)


def _layer(
    stage: str, source: str, target: str, size: int, weights: BinaryWeights, norm: nn.BatchNorm2d, steps: int = 0
) -> BinaryStep:
    """A convolution whose batch norm and sign are thresholds of its whole numbers."""
    step = BinaryStep(f"{stage}.conv", stage, source, target, size, 0, weights, steps=steps)
    signs = _whole(_table(norm, norm.num_features), step.most, max(steps, 1))
    return replace(step, signs=signs, out_size=step.conv_size)


def _binary_layers(
    network: nn.Module, spec: FinnDenseSpec | FinnConvSpec, weights: Weights, source: str, size: int, channels: Array
) -> Iterator[ChainStep]:
    """Binary dense layers; the first one sees a whole map as a window of its size, where there is one."""
    stages = [layer.stage for layer in spec.layers() if layer.kind == "conv" and layer.kernel == 1]
    for stage in stages:
        own = weights[f"{stage}.conv"]
        if stage == stages[0] and len(channels):
            own = _as_window(own, size, len(channels))
        norm, target = norm_of(network, f"{stage}.bn"), LOGITS if stage == HEAD else f"{stage}.signs"
        step = _layer(stage, source, target, size, own, norm)
        if stage == HEAD:
            step = replace(step, signs=None, affine=scale_and_shift(norm))
        yield step
        source, size = target, 1


def _as_window(weights: BinaryWeights, size: int, channels: int) -> BinaryWeights:
    """A dense layer of a flattened map, (channels, rows, columns), as a convolution of the map."""
    signs = weights.signs().reshape(weights.outputs, channels, size, size).transpose(0, 2, 3, 1)
    return replace(weights, words=pack_bits(signs > 0), channels=channels, window=replace(weights.window, kernel=size))


def _flat_head(network: nn.Module, source: str, size: int, channels: int) -> HeadStep:
    """The classifier of VGG-Small, its weights in the order of a map's pixels."""
    fc = network.get_submodule(f"{HEAD}.fc")
    assert isinstance(fc, nn.Linear)
    weight, bias = _linear(fc)
    weight = weight.reshape(-1, channels, size**2).transpose(0, 2, 1).reshape(len(weight), -1).copy()
    return HeadStep(HEAD, HEAD, source, LOGITS, size, 1, weight, bias, False, False)
