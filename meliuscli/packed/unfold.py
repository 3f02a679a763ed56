"""Folded numbers back in modules: a network that folds to the very same ones again. Batch norms then have a mean of 0 and a deviation of 1."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.plan import STEM
from meliuscli.arch.spec import ArchSpec
from meliuscli.errors import BadInputError
from meliuscli.nn.build import build
from meliuscli.nn.quantized import QuantConv2d, QuantLinear
from meliuscli.packed.dense import fold_dense
from meliuscli.packed.program import Array
from meliuscli.packed.runner import PackedDense, PackedModule, PackedNetwork
from meliuscli.packed.words import unpack_bits

ULPS = (0, 1, -1, 2, -2)
"""So far from a size times the number of weights lies a sum whose mean is that size."""
LITTLE = 1e-30
"""A magnitude that adds nothing to a sum."""


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


def put_norm(norm: nn.Module, scale: Array | None, shift: Array) -> None:
    """A batch norm of x * scale + shift, or of x + shift."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    put(norm.weight, np.ones_like(shift) if scale is None else scale)
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
                put_norm(network.get_submodule(after.name), None, tensors[f"{name}.bias"])
        elif f"{name}.scale" in tensors:
            put_norm(module, tensors[f"{name}.scale"], tensors[f"{name}.shift"])
    return network


def network_of_runner(runner: PackedNetwork) -> nn.Module:
    """The network of a packed one, as torch computes it. Raises ``BadInputError`` for thresholds that no batch norm has."""
    if isinstance(runner, PackedDense):
        network = network_of_dense(runner.spec, runner.tensors)
        again = fold_dense(network, runner.spec)
        if any(again[name].tobytes() != value.tobytes() for name, value in runner.tensors.items()):
            raise BadInputError("its thresholds are none that a batch norm has", "export the run again")
        return network
    assert isinstance(runner, PackedModule)
    for name, own in runner.weights.items():
        conv = runner.network.get_submodule(name)
        put_signs(conv, own.signs())
        if own.scale is not None and isinstance(conv, QuantConv2d):
            put_quantized(name, conv, conv.weight.detach().clone(), torch.from_numpy(own.scale))
    return runner.network


@torch.no_grad()
def put_quantized(name: str, layer: QuantConv2d | QuantLinear, values: torch.Tensor, sizes: torch.Tensor) -> None:
    """Weights that a layer's quantizer makes ``values`` times ``sizes`` of, one a filter.

    Where the size is a mean of magnitudes, one weight has all of the sum, which no order of additions rounds. Raises ``ValueError`` where
    no weights do."""
    rows, sizes = values.flatten(1), sizes.reshape(-1)
    wanted, done = rows * sizes[:, None], torch.zeros(len(rows), dtype=torch.bool)
    sums = (sizes.double() * rows.shape[1]).float()
    for ulps in (None, *ULPS):
        tried = wanted.clone()
        if ulps is not None:
            tried = rows * LITTLE
            tried[:, 0] = rows[:, 0] * (sums.view(torch.int32) + ulps).view(torch.float32)
        equal = (layer.quantizer(tried.reshape(values.shape)).flatten(1) == wanted).all(1)
        layer.weight.data[equal & ~done] = tried.reshape(values.shape)[equal & ~done]
        done |= equal
    if not bool(done.all()):
        bits = f"{layer.weight_bits} bits" if layer.weight_bits > 1 else "one bit"
        raise ValueError(
            f"{name} holds weights of {bits} as they are behind their quantizer, which would change them again"
        )
