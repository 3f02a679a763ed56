"""A network without binary convolutions as what a C library is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from meliuscli.arch.families.resnet import ResNetSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.packed.runner import PackedNetwork, pack
from meliuscli.packed.words import BinaryWeights


@dataclass(frozen=True, slots=True)
class FloatNetwork:
    """(N, C, S, S) images -> (N, classes) logits, in torch. It has no ``weights`` of one bit."""

    spec: ArchSpec
    network: nn.Module
    weights: Mapping[str, BinaryWeights] = field(default_factory=dict)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


CNetwork = PackedNetwork | FloatNetwork


def runner_for_c(network: nn.Module, spec: ArchSpec) -> CNetwork:
    """Packed, but for a float ResNet. Raises as ``pack``."""
    return FloatNetwork(spec, network) if isinstance(spec, ResNetSpec) else pack(network, spec)
