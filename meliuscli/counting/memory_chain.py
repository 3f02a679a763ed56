"""RAM and flash of residual and small networks as the C library runs them: signs packed in words of 32 channels, a block's sum in
place of its input, and whole numbers that never lie in memory. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from meliuscli.arch.families.residual import ResidualSpec
from meliuscli.arch.families.resnet import BiRealNetSpec, ResNetESpec, ResNetSpec
from meliuscli.arch.families.small import FinnConvSpec, FinnDenseSpec, VGGSmallSpec
from meliuscli.arch.plan import HEAD, STEM, Layer
from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.memory_blocks import block_parts
from meliuscli.counting.memory_parts import PIXELS, Alive, Constants, map_bytes, sign_bytes, stem_rows


def runs_as_chain(spec: ArchSpec) -> bool:
    """Is there a C library of such a network, of stem, residual blocks and head, or of layers in a row?"""
    return isinstance(spec, ResNetESpec | BiRealNetSpec | ResNetSpec | FinnDenseSpec | FinnConvSpec | VGGSmallSpec)


def chain_parts(spec: ArchSpec, layers: tuple[Layer, ...]) -> Iterator[Alive]:
    """Every moment of each block and part."""
    if isinstance(spec, ResNetSpec) or getattr(spec, "block", "basic") == "bottleneck":
        assert isinstance(spec, ResidualSpec)
        return block_parts(spec, layers)
    if isinstance(spec, ResNetESpec | BiRealNetSpec):
        return _residual_parts(spec, layers)
    return _small_parts(spec, layers)


def _residual_parts(spec: ResNetESpec | BiRealNetSpec, layers: tuple[Layer, ...]) -> Iterator[Alive]:
    size = next(layer for layer in layers if layer.stage == "stage1").out_size
    stream = map_bytes(spec.stem_channels, size)
    yield Alive(STEM, stream + stem_rows(spec, [layer for layer in layers if layer.stage == STEM]))
    for stage, own in groupby((layer for layer in layers if layer.block), lambda layer: layer.stage):
        for number, members in groupby(own, lambda layer: layer.block):
            block = list(members)
            conv = next(layer for layer in block if layer.activation_bits == 1)
            signs = sign_bytes(conv.in_channels, size)
            yield Alive(stage, stream, 0, signs, number)
            if any(layer.name.endswith("shortcut.conv") for layer in block):
                new = map_bytes(conv.out_channels, conv.out_size)
                pooled = 4 * PIXELS * conv.in_channels if conv.stride > 1 else 0
                yield Alive(stage, stream + new + pooled, 0, signs, number)
                yield Alive(stage, new, 0, signs, number)
                stream = new
            size = conv.out_size
    yield Alive(HEAD, stream + 4 * spec.channels[-1])


def _small_parts(spec: ArchSpec, layers: tuple[Layer, ...]) -> Iterator[Alive]:
    pixels = -(-spec.input_channels * spec.input_size**2 // 4) * 4
    before = 0
    for stage, members in groupby(layers, lambda layer: layer.stage):
        own = list(members)
        out = next(layer for layer in reversed(own) if layer.kind in ("conv", "max_pool", "linear"))
        signs, last = sign_bytes(out.out_channels, out.out_size), own[0].activation_bits
        if stage == STEM and isinstance(spec, FinnDenseSpec):
            yield Alive(STEM, 0, 0, sign_bytes(own[0].in_channels, 1) + signs)
        elif stage == STEM:
            floats = stem_rows(spec, own) + 4 * out.out_channels * out.out_size if last > 8 else 0
            yield Alive(STEM, floats, pixels if last == 8 else 0, signs)
        elif stage == HEAD:
            is_float = out.kind == "linear"
            yield Alive(HEAD, before if is_float else 0, 0, 0 if is_float else before)
        elif isinstance(spec, VGGSmallSpec) and stage == f"conv{len(spec.channels)}":
            signs = map_bytes(out.out_channels, out.out_size)
            yield Alive(stage, signs, 0, before)
        else:
            yield Alive(stage, 0, 0, before + signs)
        before = signs


def chain_flash(spec: ArchSpec, layers: tuple[Layer, ...]) -> Iterator[Constants]:
    """Constants: words of signs; a threshold a channel in 16 or 32 bits and a bit of its direction, or scale and shift; of float
    convolutions weights and biases, their batch norms folded into them."""
    if isinstance(spec, ResidualSpec):
        yield from (
            (layer, _residual_bytes(layer, before)) for before, layer in zip((None, *layers), layers, strict=False)
        )
        return
    entering = 1
    for stage, members in groupby(layers, lambda layer: layer.stage):
        own = list(members)
        layer = next(layer for layer in own if layer.kind in ("conv", "linear"))
        out, flips = layer.out_channels, 4 * -(-layer.out_channels // 32)
        if layer.kind == "linear":
            yield layer, 4 * (layer.weights + out)
        elif layer.weight_bits > 1:
            yield layer, 4 * (layer.weights + 2 * out) + flips
        else:
            # A dense layer that a map enters sees a word of its own from every pixel.
            pixels = entering**2 if layer.kernel == 1 else 1
            yield layer, pixels * _word_bytes(layer._replace(in_channels=layer.in_channels // pixels))
            is_last = stage == HEAD or (isinstance(spec, VGGSmallSpec) and stage == f"conv{len(spec.channels)}")
            yield layer, 8 * out if is_last else _level_bytes(layers) * out + flips
        entering = own[-1].out_size


def _level_bytes(layers: tuple[Layer, ...]) -> int:
    """Of a threshold of whole numbers: one more than the largest of these stands for never."""
    most = max(
        layer.in_channels * layer.kernel**2 * (128 if layer.activation_bits == 8 else 1)
        for layer in layers
        if layer.activation_bits <= 8
    )
    return 2 if most < 2**15 - 1 else 4


def _word_bytes(layer: Layer) -> int:
    return 4 * layer.kernel**2 * -(-layer.in_channels // 32) * layer.out_channels


def _residual_bytes(layer: Layer, before: Layer | None) -> int:
    if layer.activation_bits == 1:
        return _word_bytes(layer)
    if layer.kind in ("conv", "linear"):
        return 4 * (layer.weights + layer.out_channels)
    if layer.kind == "batch_norm":
        follows = before is not None and before.kind == "conv" and before.activation_bits > 1
        return 0 if follows and not layer.name.endswith(".norm") else 8 * layer.out_channels
    return 4 * layer.params
