"""A packed network with stem and head in int8: calibrated on images, and run as its C library runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meliuscli.arch.plan import HEAD, STEM
from meliuscli.errors import BadInputError
from meliuscli.export.c.chain import IMAGE, LOGITS, Chain, ChainStep, HeadStep, StemConv, StemStep
from meliuscli.export.c.chain_fold import fold_chain
from meliuscli.export.c.exact import Maps, head_inputs, run_chain, run_linear, run_stem
from meliuscli.export.c.exact_floats import fma
from meliuscli.export.c.float_network import CNetwork, FloatNetwork
from meliuscli.export.c.int8 import Ends, int8_head, int8_stem
from meliuscli.export.c.vectors import Expected, binary_sums, chain_sums, expected
from meliuscli.packed.program import Array
from meliuscli.packed.runner import PackedDense, PackedModule

BATCH = 50


class Int8Network:
    """(N, C, S, S) normalised images -> (N, classes) logits. Raises ``BadInputError`` for a network of which nothing is float."""

    def __init__(self, runner: CNetwork, calibration: Tensor) -> None:
        self.runner = runner
        self._chain: Chain | None = None
        if isinstance(runner, PackedDense):
            stem, head = _dense_ends(runner)
        else:
            assert isinstance(runner, PackedModule | FloatNetwork)
            self._chain = fold_chain(runner.network, runner.spec, runner.weights)
            stem, head = _chain_ends(self._chain)
        inputs = np.concatenate([self._inputs(head, images) for images in torch.split(calibration, BATCH)])
        self.ends = Ends(int8_stem(stem, calibration.numpy()), int8_head(head, inputs))

    @property
    def chain(self) -> Chain:
        """With both ends in int8."""
        assert self._chain is not None
        return replace(self._chain, steps=(self.ends.stem, *self._chain.steps[1:-1], self.ends.head))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return torch.from_numpy(np.concatenate([self._run(part)[0] for part in torch.split(images, BATCH)]))

    def answer(self, image: Tensor) -> Expected:
        """What the library must say of one image, (1, C, S, S)."""
        logits, sums = self._run(image)
        return expected(logits[0], sums)

    def _inputs(self, head: HeadStep, images: Tensor) -> Array:
        """What the float network's linear layer sees."""
        seen: list[Array] = []

        def look(step: ChainStep, maps: Maps) -> None:
            if isinstance(step, HeadStep):
                seen.append(head_inputs(step, maps[step.source]))

        if self._chain is not None:
            run_chain(self._chain, images.numpy(), look)
            return seen[0]
        assert isinstance(self.runner, PackedDense)
        plan, program = self.runner.plan(len(images))
        plan.images[..., : self.runner.spec.input_size] = images.numpy()
        program.run()
        return _dense_inputs(self.runner, head, plan)

    def _run(self, images: Tensor) -> tuple[Array, tuple[int, ...]]:
        if self._chain is not None:
            ran = run_chain(self.chain, images.numpy())
            return ran.logits, chain_sums(self.chain, ran)
        assert isinstance(self.runner, PackedDense)
        plan, program = self.runner.plan(len(images))
        entered = run_stem(self.ends.stem, images.numpy())
        plan.entered[STEM].data[..., : entered.shape[3]] = entered
        last = next(number for number, step in enumerate(plan.steps) if step.stage == HEAD)
        sums = binary_sums(self.runner, plan, program, 1, last)
        return run_linear(self.ends.head, _dense_inputs(self.runner, self.ends.head, plan)), sums


def _chain_ends(chain: Chain) -> tuple[StemStep, HeadStep]:
    first, last = chain.steps[0], chain.steps[-1]
    if not isinstance(first, StemStep) or not isinstance(last, HeadStep):
        raise BadInputError(f"--float-bits 8: stem and head of a {chain.spec.family} are binary", "leave it out")
    return first, last


def _dense_ends(runner: PackedDense) -> tuple[StemStep, HeadStep]:
    spec, tensors = runner.spec, runner.tensors
    layers = [layer for layer in spec.layers() if layer.stage == STEM]
    pools = any(layer.kind == "max_pool" for layer in layers)
    convs = tuple(
        StemConv(
            conv.name,
            tensors[f"{conv.name}.weight"],
            tensors[f"{conv.name}.bias"],
            conv.stride,
            conv.groups,
            pools,
        )
        for conv in layers
        if conv.kind == "conv"
    )
    stem = StemStep(STEM, STEM, IMAGE, STEM, spec.input_size, layers[-1].out_size, convs, pools)
    size = spec.stages()[-1].size
    weight, bias = tensors["head.fc.weight"], tensors["head.fc.bias"]
    return stem, HeadStep(HEAD, HEAD, HEAD, LOGITS, size, 1, weight, bias, True, True)


def _dense_inputs(runner: PackedDense, head: HeadStep, plan: Any) -> Array:
    """Of the last map: batch norm, ReLU, mean."""
    channels = head.weight.shape[1]
    x = plan.maps[HEAD].data[..., :channels]
    return head_inputs(head, fma(x, runner.tensors["head.bn.scale"], runner.tensors["head.bn.shift"]))
