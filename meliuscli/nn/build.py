"""The only door from a spec to a torch module."""

from __future__ import annotations

from typing import Literal

from torch import nn

from meliuscli.arch.families.alexnet import AlexNetSpec
from meliuscli.arch.families.bnext import BNextSpec
from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.families.mobilenet import MobileNetV1Spec, MobileNetV2Spec
from meliuscli.arch.families.pokebnn import PokeBNNSpec
from meliuscli.arch.families.quicknet import QuickNetSpec
from meliuscli.arch.families.reactnet import ReActNetSpec
from meliuscli.arch.families.resnet import ResidualSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.families.alexnet import build_alexnet
from meliuscli.nn.families.bnext import build_bnext
from meliuscli.nn.families.dense import build_dense_family
from meliuscli.nn.families.mobilenet import build_mobilenet_v1, build_mobilenet_v2
from meliuscli.nn.families.pokebnn import build_pokebnn
from meliuscli.nn.families.quicknet import build_quicknet
from meliuscli.nn.families.reactnet import build_reactnet
from meliuscli.nn.families.resnet import build_residual
from meliuscli.nn.quantizers import CLIP_THRESHOLD


def build(
    spec: ArchSpec, clip_threshold: float = CLIP_THRESHOLD, sign_gradient: Literal["clip", "approx"] = "clip"
) -> nn.Module:
    """A freshly initialised network (from torch's global generator): (N, C, H, W) -> (N, num_classes) logits.

    ``clip_threshold`` is for the families of MeliusNet's recipe (MeliusNet, BinaryDenseNet, ResNetE); the others have
    their papers' own. So is ``sign_gradient``: ``approx`` puts Bi-Real Net's in place of the clipped one."""
    network = _build(spec, clip_threshold)
    if sign_gradient == "approx":
        for module in network.modules():
            if isinstance(module, BinaryConv2d):
                module.clip = None
    return network


def _build(spec: ArchSpec, clip_threshold: float) -> nn.Module:
    match spec:
        case DenseFamilySpec():
            return build_dense_family(spec, clip_threshold)
        case ResidualSpec():
            return build_residual(spec, clip_threshold)
        case AlexNetSpec():
            return build_alexnet(spec)
        case ReActNetSpec():
            return build_reactnet(spec)
        case QuickNetSpec():
            return build_quicknet(spec)
        case BNextSpec():
            return build_bnext(spec)
        case PokeBNNSpec():
            return build_pokebnn(spec)
        case MobileNetV1Spec():
            return build_mobilenet_v1(spec)
        case MobileNetV2Spec():
            return build_mobilenet_v2(spec)
        case _:
            raise TypeError(f"no module for {type(spec).__name__}")
