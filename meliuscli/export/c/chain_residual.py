"""The steps of a residual network: a stem, blocks, most of them of a convolution and a shortcut, a head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from meliuscli.arch.families.resnet import BiRealNetSpec, ResNetESpec, ResNetSpec
from meliuscli.arch.plan import HEAD, STEM
from meliuscli.export.c.blocks import bottleneck, float_block, scaled_norm
from meliuscli.export.c.chain import (
    IMAGE,
    LOGITS,
    BinaryStep,
    ChainStep,
    HeadStep,
    ShortcutStep,
    SignStep,
    SignTable,
    StemConv,
    StemStep,
    Weights,
)
from meliuscli.nn.layers import SameConv2d, SameMaxPool2d
from meliuscli.nn.quantizers import RPReLU, RSign
from meliuscli.packed.fold import folded_conv, linear_of, part, scale_and_shift
from meliuscli.packed.program import Array

Residual = ResNetESpec | BiRealNetSpec | ResNetSpec


def residual_steps(network: nn.Module, spec: Residual, weights: Weights) -> Iterator[ChainStep]:
    """Stem, blocks, and head."""
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
    fc = part(network, f"{HEAD}.fc", nn.Linear)
    yield HeadStep(HEAD, HEAD, stream, LOGITS, size, 1, *linear_of(fc), isinstance(spec, ResNetESpec), True)


def _blocks(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_modules() if name.startswith("stage") and name.count(".") == 1]


def _stem(network: nn.Module, spec: Residual, size: int) -> StemStep:
    layers = [layer for layer in spec.layers() if layer.stage == STEM]
    convs = []
    for layer, norm in zip(layers, [*layers[1:], None], strict=True):
        if layer.kind != "conv":
            continue
        conv = part(network, layer.name, nn.Conv2d)
        # What follows the pooling or stands for itself is no norm of the convolution.
        own = None if norm is None or norm.kind != "batch_norm" or norm.name == f"{STEM}.norm" else norm.name
        relu = f"{STEM}.{layer.name.removeprefix(f'{STEM}.').replace('conv', 'relu')}" in [one.name for one in layers]
        folded = folded_conv(conv, None if own is None else part(network, own, nn.BatchNorm2d))
        convs.append(StemConv(layer.name, *folded, layer.stride, layer.groups, relu, same=isinstance(conv, SameConv2d)))
    pools = any(layer.kind == "max_pool" for layer in layers)
    before = behind = None
    if isinstance(spec, ResNetESpec):
        before = scale_and_shift(part(network, "input_norm", nn.BatchNorm2d)) if spec.input_norm else None
        behind = scale_and_shift(part(network, f"{STEM}.norm", nn.BatchNorm2d))
    same = pools and isinstance(network.get_submodule(f"{STEM}.pool"), SameMaxPool2d)
    return StemStep(STEM, STEM, IMAGE, STEM, spec.input_size, size, tuple(convs), pools, before, behind, same=same)


def _block(network: nn.Module, name: str, stream: str, size: int, weights: Weights) -> Iterator[ChainStep]:
    """Signs of the stream; what stands in for it where its shape changes; the convolution, added to that."""
    block, stage = network.get_submodule(name), name.partition(".")[0]
    own = weights[f"{name}.conv"]
    shift = getattr(block, "sign", None)
    signs = SignTable(own.channels)
    if isinstance(shift, RSign):  # which rises, so that nothing is flipped
        signs = replace(SignTable.of(shift, own.channels), flips=None)
    yield SignStep(f"{name}.sign", stage, stream, f"{name}.signs", size, size, signs)
    after, target = own.window.out_size(size), stream
    shortcut = block.get_submodule("shortcut")
    if isinstance(shortcut, nn.Sequential):
        target = f"{name}.map"
        conv, pools = part(shortcut, "conv", nn.Conv2d), own.window.stride > 1
        weight, bias = folded_conv(conv, part(network, f"{name}.shortcut.bn", nn.BatchNorm2d))
        yield ShortcutStep(f"{name}.shortcut", stage, stream, target, size, after, weight[:, :, 0, 0], bias, pools)
    act = getattr(block, "act", None)
    affine = scaled_norm(part(network, f"{name}.bn", nn.BatchNorm2d), own)
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


def _rprelu(act: RPReLU) -> tuple[Array, Array, Array]:
    values = [value.detach().numpy().reshape(-1).copy() for value in (act.gamma, act.slope, act.zeta)]
    return values[0], values[1], values[2]
