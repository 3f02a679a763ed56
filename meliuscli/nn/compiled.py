"""``torch.compile`` without the compiler's talk, for trainings and for what is timed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

PARTS = ("torch._dynamo", "torch._inductor")


def compile_quietly(network: nn.Module, **options: Any) -> Callable[..., Any]:
    """``network``, compiled when it is first called. Warnings and logs of the compiler are on our code, which the user
    cannot change; they stay away from then on, for compiling goes on with every new shape. Raises as ``torch.compile``."""
    warnings.filterwarnings("ignore", message=".*Dynamo")
    warnings.filterwarnings("ignore", module="|".join(part.replace(".", r"\.") for part in PARTS))
    for part in PARTS:
        logging.getLogger(part).setLevel(logging.ERROR)
    compiled: Callable[..., Any] = torch.compile(network, **options)
    return compiled
