"""Packed against torch, layer by layer, each fed what torch fed it: signs and counts must be equal to the last bit. Final
logits alone would prove nothing: one sign that flips for a rounding of the float stem changes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.arch.plan import HEAD, STEM
from meliuscli.errors import FailedError
from meliuscli.nn.quantized import QuantConv2d
from meliuscli.packed.convs import PackedConv2d
from meliuscli.packed.layout import Map
from meliuscli.packed.program import Array
from meliuscli.packed.runner import PackedDense, PackedModule, PackedNetwork, checked_images
from meliuscli.packed.words import pack_bits, unpack_bits

FLOAT_TOLERANCE = 1e-4
"""Of float parts, against the largest value: they round in another order."""


@dataclass(frozen=True, slots=True)
class LayerCheck:
    """``values`` compared, of which ``wrong`` differ: bits and counts at all, floats by more than the tolerance."""

    layer: str
    kind: str
    values: int
    wrong: int


@torch.inference_mode()
def check(packed: PackedNetwork, network: nn.Module, images: Tensor) -> list[LayerCheck]:
    """All layers on these images. ``network`` is what was packed."""
    images = checked_images(images, packed.spec)
    if isinstance(packed, PackedDense):
        return list(_check_dense(packed, network, images))
    assert isinstance(packed, PackedModule)
    return list(_check_convs(packed, network, images))


def require_exact(checks: list[LayerCheck]) -> None:
    """Raises ``FailedError`` that names the first layer that is wrong."""
    for layer in checks:
        if layer.wrong:
            raise FailedError(
                f"self-test failed: {layer.layer}: {layer.wrong:,} of {layer.values:,} {layer.kind} differ from torch",
                "nothing was measured; please report this, with the processor's name",
            )


@contextmanager
def _watched(network: nn.Module) -> Iterator[dict[str, tuple[tuple[Tensor, ...], Tensor]]]:
    """Inputs and output of every module of the last call, by name."""
    seen: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}

    def watch(name: str) -> Callable[..., None]:
        return lambda _, inputs, output: seen.__setitem__(name, (inputs, output))

    handles = [module.register_forward_hook(watch(name)) for name, module in network.named_modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _check_dense(packed: PackedDense, network: nn.Module, images: Tensor) -> Iterator[LayerCheck]:
    with _watched(network) as seen:
        logits = network(images)
    plan, program = packed.plan(len(images))
    plan.images[..., : packed.spec.input_size] = images.numpy()

    def run(layer: str) -> None:
        numbers = [i for i, step in enumerate(plan.steps) if step.layer == layer]
        program.run(numbers[0], numbers[-1] + 1)

    run(STEM)
    yield _close(STEM, plan.entered[STEM], seen[STEM][1])
    for name, words in plan.words.items():
        ((before,), after), ((normed,), _) = seen[name], seen[f"{name}.conv"]
        whole, channels = plan.maps[name], before.shape[1]
        whole.data[..., :channels] = _pixels(before)
        run(name)
        yield _equal(name, "bits", _bits(words, channels), _pixels(normed >= 0))
        yield _equal(name, "counts", whole.data[..., : after.shape[1]], _pixels(after))
    for name in (stage.transition.name for stage in packed.spec.stages() if stage.transition is not None):
        (before,), after = seen[name]
        plan.maps[name].data[..., : before.shape[1]] = _pixels(before)
        run(name)
        yield _close(name, plan.entered[name], after)
    (before,), _ = seen[HEAD]
    plan.maps[HEAD].data[..., : before.shape[1]] = _pixels(before)
    run(HEAD)
    yield _close(HEAD, plan.logits, logits[:, :, None, None])


def _check_convs(packed: PackedModule, network: nn.Module, images: Tensor) -> Iterator[LayerCheck]:
    with _watched(network) as seen:
        network(images)
    for name in packed.packed:
        conv, original = packed.module.get_submodule(name), network.get_submodule(name)
        assert isinstance(conv, PackedConv2d)
        (x,), torchs = seen[name]
        ours = _pixels(conv(x))
        if conv.weights.scale is None:
            yield _equal(name, "counts", ours, _pixels(torchs))
            continue
        assert isinstance(original, QuantConv2d)
        # Torch adds up products with the scale and rounds each time; ours is the whole sum times the scale.
        yield _equal(name, "products", ours, _pixels(_scaled_dots(original, x)))
        yield _near(name, ours, _pixels(torchs))
    for name, part in float_parts(packed.module):
        if name in seen:
            inputs, torchs = seen[name]
            made = part(*inputs)
            if bool((torchs.abs() == 1).all()):  # the sign itself is left to the convolution behind
                made, torchs = (made >= 0).float(), (torchs >= 0).float()
            yield _near(name, made.numpy(), torchs.numpy())


def float_parts(network: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The largest parts without packed convolutions that have weights, the network's own order."""
    if not any(isinstance(module, PackedConv2d) for module in network.modules()):
        if name and network.state_dict():
            yield name, network
        return
    for child, part in network.named_children():
        yield from float_parts(part, f"{name}.{child}" if name else child)


def _scaled_dots(conv: QuantConv2d, x: Tensor) -> Tensor:
    """What the module computes, from whole numbers: exact before the scale."""
    weight: Tensor = conv.quantizer(conv.weight)
    signs, padding = conv.bordered(torch.where(x >= 0, 1.0, -1.0))
    dots = F.conv2d(signs, torch.where(weight > 0, 1.0, -1.0), None, conv.stride, padding, conv.dilation)
    return dots * weight.abs().amax((1, 2, 3))[:, None, None]


def _pixels(x: Tensor) -> Array:
    return x.permute(0, 2, 3, 1).numpy()


def _bits(words: Map, channels: int) -> Array:
    inner = np.ascontiguousarray(words.inner)
    assert not (inner & ~pack_bits(np.ones(channels, bool))).any()
    return unpack_bits(inner, channels)


def _equal(layer: str, kind: str, ours: Array, theirs: Array) -> LayerCheck:
    return LayerCheck(layer, kind, theirs.size, int((ours != theirs).sum()))


def _close(layer: str, ours: Map, theirs: Tensor) -> LayerCheck:
    return _near(layer, ours.data[..., : theirs.shape[1]], _pixels(theirs))


def _near(layer: str, ours: Array, theirs: Array) -> LayerCheck:
    wrong = ~(np.abs(ours - theirs) <= FLOAT_TOLERANCE * max(float(np.abs(theirs).max()), 1e-30))
    return LayerCheck(layer, "floats", theirs.size, int(wrong.sum()))
