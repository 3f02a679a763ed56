"""The only door from a spec to a torch module."""

from __future__ import annotations

from torch import nn

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.families.mobilenet import MobileNetV1Spec
from meliuscli.arch.spec import ArchSpec
from meliuscli.nn.families.dense import build_dense_family
from meliuscli.nn.families.mobilenet import build_mobilenet_v1
from meliuscli.nn.quantizers import CLIP_THRESHOLD


def build(spec: ArchSpec, clip_threshold: float = CLIP_THRESHOLD) -> nn.Module:
    """A freshly initialised network (from torch's global generator): (N, C, H, W) -> (N, num_classes) logits."""
    if isinstance(spec, DenseFamilySpec):
        return build_dense_family(spec, clip_threshold)
    if isinstance(spec, MobileNetV1Spec):
        return build_mobilenet_v1(spec)
    raise TypeError(f"no module for {type(spec).__name__}")
