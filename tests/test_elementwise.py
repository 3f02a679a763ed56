"""The ``real2binary`` convention's elementwise work on a second road: what torch's dispatcher sees in the real module."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
from conftest import at_size, other_specs, residual_specs
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.analytic import count_spec
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.build import build
from meliuscli.nn.families.bnext import Mix
from meliuscli.nn.families.resnet import XnorUnit
from meliuscli.nn.quantized import QuantConv2d, QuantLinear
from meliuscli.nn.quantizers import DPReLU, LeakyClip, RPReLU, SteSign

INSIDE = {RPReLU: 2, DPReLU: 1, Mix: 3}
"""Modules made of several operations -> their additions and multiplications an element (subtractions in RPReLU stand
for additions of a negative shift)."""
OPAQUE = (BinaryConv2d, QuantConv2d, QuantLinear, nn.Linear, SteSign, LeakyClip, nn.Hardsigmoid, *INSIDE)


class Tally(TorchDispatchMode):
    """Elementwise operations outside quantizers, by the rules of the tool."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.total, self.depth = 0, 0
        for module in network.modules():
            if isinstance(module, OPAQUE):
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(self._leave)
            if isinstance(module, QuantConv2d | nn.Conv2d) and module.bias is not None:
                module.register_forward_hook(self._bias)

    def _enter(self, *_: object) -> None:
        self.depth += 1

    def _leave(self, module: nn.Module, _: object, out: Tensor) -> None:
        self.depth -= 1
        self.total += INSIDE.get(type(module), 0) * out.numel()  # type: ignore[call-overload]

    def _bias(self, _module: nn.Module, _inputs: object, out: Tensor) -> None:
        self.total += out.numel()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        rule = RULES.get(func._schema.name)
        if rule is not None and not self.depth:
            self.total += rule(args, out)
        return out


def pooled(args: Any, _out: Any) -> int:
    """Global average pooling is a mean over height and width: each input once."""
    x, dims = args[0], args[1]
    return x.numel() if x.dim() == 4 and sorted(d % 4 for d in dims) == [2, 3] else 0


RULES: dict[str, Callable[[Any, Any], int]] = {
    "aten::relu": lambda args, out: 2 * out.numel(),
    "aten::native_batch_norm": lambda args, out: 2 * args[0].numel(),
    "aten::_native_batch_norm_legit_no_training": lambda args, out: 2 * args[0].numel(),
    "aten::add": lambda args, out: out.numel() if out.dim() == 4 else 0,
    "aten::mul": lambda args, out: out.numel() if out.dim() == 4 else 0,
    "aten::max_pool2d_with_indices": lambda args, out: (prod(args[1]) - 1) * out[0].numel(),
    "aten::avg_pool2d": lambda args, out: prod(args[1]) * out.numel(),
    "aten::mean": pooled,
}


def tally(spec: ArchSpec) -> int:
    torch.manual_seed(0)
    network = build(spec).eval()
    with torch.no_grad(), Tally(network) as seen:
        network(torch.randn(1, *spec.input_shape))
    return seen.total


NAMES = (
    *("meliusnet-c", "binarydensenet28", "mobilenet-v1-0.25", "mobilenet-v2-0.35", "resnet18", "resnet50", "resnete18"),
    *("bnn-resnet18", "reactnet-a", "reactnet-b", "real2binary", "bnext-t", "pokebnn-0.5", "binaryalexnet"),
)


@pytest.mark.parametrize("name", NAMES)
def test_elementwise_work_is_what_torch_does(name: str) -> None:
    spec = at_size(name, 64)
    assert count_spec(spec).total.elementwise == tally(spec)


@given(st.one_of(residual_specs(), other_specs()))
def test_elementwise_work_of_random_networks(spec: ArchSpec) -> None:
    network = build(spec)
    scales_inside = getattr(spec, "scaling", False) or spec.family in (
        *("birealnet", "xnor-alexnet", "dorefa-alexnet", "abcnet"),
    )
    if scales_inside or any(isinstance(module, XnorUnit) for module in network.modules()):
        return  # their scale factors are folded into the weights here and counted as multiplications by the plan
    assert count_spec(spec).total.elementwise == tally(spec)
