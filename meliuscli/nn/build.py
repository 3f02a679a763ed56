"""The only door from a spec to a torch module."""

from __future__ import annotations

from importlib import import_module
from typing import Literal

from torch import nn

from meliuscli.arch.families import family_file
from meliuscli.arch.spec import ArchSpec
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.quantized import QuantConv2d
from meliuscli.nn.quantizers import CLIP_THRESHOLD, ApproxSign

OF_THE_RECIPE = ("meliusnet", "binarydensenet", "resnete")
"""The families whose signs have the gradient that MeliusNet's recipe asks for."""


def build(
    spec: ArchSpec, clip_threshold: float = CLIP_THRESHOLD, sign_gradient: Literal["clip", "approx"] = "clip"
) -> nn.Module:
    """A freshly initialised network (from torch's global generator): (N, C, H, W) -> (N, num_classes) logits.

    ``clip_threshold`` is for the families of MeliusNet's recipe (MeliusNet, BinaryDenseNet, ResNetE); the others have
    their papers' own. So is ``sign_gradient``: ``approx`` puts Bi-Real Net's in place of the clipped one."""
    family = import_module(f"meliuscli.nn.families.{family_file(spec.family)}")
    network: nn.Module = family.build(spec, clip_threshold)
    if sign_gradient == "approx":
        for module in network.modules():
            if isinstance(module, BinaryConv2d):
                module.clip = None
            elif isinstance(module, QuantConv2d) and spec.family in OF_THE_RECIPE:
                module.activation = ApproxSign()
    return network
