"""``pack(network, spec)``: a network ready to run bit-packed on this CPU."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import torch
from torch import Tensor, nn

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.errors import BadInputError
from meliuscli.packed.dense import DensePlan, Tensors, fold_dense
from meliuscli.packed.isa import choose_isa
from meliuscli.packed.program import Program


class PackedDense:
    def __init__(self, spec: DenseFamilySpec, tensors: Tensors, isa: str | None = None, threads: int = 1) -> None:
        self.spec, self.tensors, self.isa, self.threads = spec, tensors, choose_isa(isa), threads
        self._lock = threading.Lock()
        self._plans: dict[int, tuple[DensePlan, Program]] = {}

    def plan(self, batch: int) -> tuple[DensePlan, Program]:
        if batch not in self._plans:
            plan = DensePlan(self.spec, self.tensors, self.isa, batch)
            self._plans[batch] = plan, Program(self.isa, plan.steps, self.threads)
        return self._plans[batch]

    def __call__(self, images: Tensor) -> Tensor:
        with self._lock:
            plan, program = self.plan(len(images))
            plan.images[..., : self.spec.input_size] = images.numpy()
            program.run()
            return torch.from_numpy(plan.logits.data[:, 0, 0, : self.spec.num_classes].copy())


def pack(network: nn.Module, spec: ArchSpec, isa: str | None = None, threads: int = 1) -> PackedDense:
    assert isinstance(spec, DenseFamilySpec)
    return PackedDense(spec, fold_dense(network, spec), isa, threads)
