"""Folded numbers back in modules: a network that folds to the very same ones again. Batch norms then have a mean of 0 and a deviation of 1."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.plan import STEM
from meliuscli.arch.spec import ArchSpec
from meliuscli.nn.build import build
from meliuscli.nn.quantized import QuantConv2d
from meliuscli.packed.program import Array
from meliuscli.packed.words import BinaryWeights, unpack_bits


def empty_network(spec: ArchSpec) -> nn.Module:
    """A network of ``spec`` in eval mode, to be filled; torch's random numbers are left where they are."""
    with torch.random.fork_rng(devices=[]):
        return build(spec).eval()


def before_sign(values: Array, flips: Array) -> tuple[Array, Array]:
    """(a, b) a channel such that a * x + b >= 0 exactly where (x >= value) != flip, in floats; ``flips`` are words. What nothing is
    above (NaN) has an a of 0."""
    turned = unpack_bits(flips, len(values))
    never = np.isnan(values)
    with np.errstate(over="ignore"):  # nothing is below the lowest float
        below = np.nextafter(values, np.float32(-np.inf))
    scale = np.where(never, 0, np.where(turned, -1, 1)).astype(np.float32)
    shift = np.where(turned, np.where(never, 1, below), np.where(never, -1, -values)).astype(np.float32)
    return scale, shift


@torch.no_grad()
def put(target: torch.Tensor, values: Array) -> None:
    """Values in the shape of a parameter. Raises ``ValueError`` where there are more or fewer."""
    target.copy_(torch.from_numpy(np.array(values)).reshape(target.shape))


def put_norm(norm: nn.Module, scale: Array, shift: Array) -> None:
    """A batch norm of x * scale + shift."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    put(norm.weight, np.broadcast_to(scale, shift.shape))
    put(norm.bias, shift)
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)


def put_signs(conv: nn.Module, signs: Array) -> None:
    """The weights of a binary convolution: (outputs, rows, columns, channels) of -1 and 1."""
    assert isinstance(conv.weight, torch.Tensor)
    put(conv.weight, signs.transpose(0, 3, 1, 2).astype(np.float32))


def network_of_dense(spec: DenseFamilySpec, tensors: Mapping[str, Array]) -> nn.Module:
    """The inverse of ``fold_dense``."""
    network = empty_network(spec)
    layers = [layer for layer in spec.layers() if layer.kind in ("conv", "linear", "batch_norm")]
    for before, layer, after in zip([None, *layers], layers, [*layers[1:], None], strict=False):
        name, module = layer.name, network.get_submodule(layer.name)
        if f"{name}.words" in tensors:
            assert before is not None
            put_signs(module, unpack_bits(tensors[f"{name}.words"], layer.in_channels).astype(np.int8) * 2 - 1)
            signs = before_sign(tensors[f"{name}.thresholds"], tensors[f"{name}.flips"])
            put_norm(network.get_submodule(before.name), *signs)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            put(module.weight, tensors[f"{name}.weight"])
            if isinstance(module, nn.Linear):
                put(module.bias, tensors[f"{name}.bias"])
            elif layer.stage == STEM and after is not None and (after.stage, after.kind) == (STEM, "batch_norm"):
                put_norm(network.get_submodule(after.name), np.float32(1), tensors[f"{name}.bias"])
        elif f"{name}.scale" in tensors:
            put_norm(module, tensors[f"{name}.scale"], tensors[f"{name}.shift"])
    return network


def put_binary(network: nn.Module, weights: Mapping[str, BinaryWeights]) -> None:
    """The binary convolutions of a network whose other layers are there: signs times scales, which no quantizer changes."""
    for name, own in weights.items():
        conv = network.get_submodule(name)
        put_signs(conv, own.signs())
        if own.scale is not None and isinstance(conv, QuantConv2d):
            put(conv.weight, conv.weight.detach().numpy() * own.scale[:, None, None, None])
            conv.quantizer = nn.Identity()
