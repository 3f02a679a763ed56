"""The second road: the real torch module traced by fvcore. The only file that imports fvcore."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from meliuscli.counting.counts import Count, NetworkCount, layer_size_bytes
from meliuscli.nn.binary_conv import BinaryConv2d

_KINDS: dict[type[nn.Module], str] = {
    BinaryConv2d: "binary_conv",
    nn.Conv2d: "conv",
    nn.Linear: "linear",
    nn.BatchNorm2d: "batch_norm",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the two roads disagree: a layer's name, the quantity, and what each road says."""

    name: str
    what: str
    analytic: int
    traced: int


def trace_module(module: nn.Module, input_shape: tuple[int, int, int]) -> NetworkCount:
    """Run one zero image of (channels, height, width) through ``module`` and count what fvcore sees.

    Convolution and linear MACs come from fvcore, module by module (its ``total()`` would add batch norm and pooling);
    binary or float is the module's own type; parameters are the module's own. The module is put back into the mode
    it was in. Only layers of the four kinds with weights appear, in order of registration."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            analysis = FlopCountAnalysis(module, (torch.zeros(1, *input_shape),))
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            per_module = analysis.by_module_and_operator()
    finally:
        module.train(was_training)
    return NetworkCount(tuple(_rows(module, per_module)))


def _rows(module: nn.Module, per_module: dict[str, object]) -> list[Count]:
    rows = []
    for name, layer in module.named_modules():
        if type(layer) not in _KINDS:
            continue
        kind, seen = _KINDS[type(layer)], dict(per_module[name])  # type: ignore[call-overload]
        macs = int(seen.get("conv", 0) + seen.get("linear", 0))
        params = sum(p.numel() for p in layer.parameters(recurse=False))
        binary_params = layer.weight.numel() if isinstance(layer, BinaryConv2d) else 0
        rows.append(
            Count(
                name,
                kind,
                (),
                binary_macs=macs if kind == "binary_conv" else 0,
                float_macs=0 if kind == "binary_conv" else macs,
                params=params,
                binary_params=binary_params,
                size_bytes=layer_size_bytes(params, binary_params),
                linear_macs=macs if kind == "linear" else 0,
            )
        )
    return rows


def differences(analytic: NetworkCount, traced: NetworkCount) -> list[Difference]:
    """Every layer and quantity in which two counts of one network differ; empty when they agree to the last unit."""
    ours = {row.name: row for row in analytic.layers if row.params or row.kind.endswith(("conv", "linear"))}
    theirs = {row.name: row for row in traced.layers}
    nothing = Count("", "", ())
    found = []
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        one, other = ours.get(name, nothing), theirs.get(name, nothing)
        for what in ("binary_macs", "float_macs", "linear_macs", "params", "binary_params", "size_bytes"):
            if getattr(one, what) != getattr(other, what):
                found.append(Difference(name, what, getattr(one, what), getattr(other, what)))
    return found


logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
