"""A user's module run once under each road, and left as it was."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from meliuscli.counting.foreign.bits import some
from meliuscli.counting.foreign.source import is_out_of_memory, let_ctrl_c_through, said
from meliuscli.counting.foreign.watch import Watch, tensors_in
from meliuscli.counting.traced import Trace, run_trace
from meliuscli.errors import BadInputError, MissingError


def unwrapped(module: nn.Module) -> nn.Module:
    """Without a wrapper for several devices or for torch.compile, which would be in every name. Raises ``BadInputError``
    for a scripted network."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner: nn.Module = module.module
        return inner
    compiled = getattr(module, "_orig_mod", module)
    module = compiled if isinstance(compiled, nn.Module) else module
    if isinstance(module, torch.jit.ScriptModule):
        hint = "return the network as it was before torch.jit.script or torch.jit.trace"
        raise BadInputError("a scripted network shows nothing of its modules and cannot be counted", hint)
    return module


def is_lazy_network(module: nn.Module) -> bool:
    return any(map(is_lazy, [*module.parameters(), *module.buffers()]))


def materialized(module: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    """A copy of a lazy network whose parameters have their shapes."""
    hint = "run it once on an input before it is returned"
    try:
        module = copy.deepcopy(module)
    except BaseException as error:
        let_ctrl_c_through(error)
        raise BadInputError(f"the network is lazy and cannot be copied: {said(error)}", hint) from error
    with _quiet():
        _run(module, input_shape)
    if is_lazy_network(module):
        lazy = [name for name, value in [*module.named_parameters(), *module.named_buffers()] if is_lazy(value)]
        raise BadInputError(f"the network has parameters without shapes, of modules never called: {some(lazy)}")
    return module


def watched(module: nn.Module, input_shape: tuple[int, ...]) -> Watch:
    with _untouched(module):
        watch = Watch(module)
        try:
            module.eval()
            with watch:
                module(_example(module, input_shape))
        except BaseException as error:
            let_ctrl_c_through(error)
            watch.blind, watch.seen = said(error), {}
            _run(module, input_shape)  # most often it is the network that fails
    return watch


def _run(module: nn.Module, input_shape: tuple[int, ...]) -> None:
    """One forward; whatever it raises becomes an error for the user."""
    shape = "x".join(map(str, input_shape))
    try:
        module.eval()
        module(_example(module, input_shape))
    except BaseException as error:
        let_ctrl_c_through(error)
        if is_out_of_memory(error):
            raise MissingError(f"too little memory to run the network on {shape}: {said(error)}") from error
        if isinstance(error, SystemExit):
            raise BadInputError(f"the network ends the program when it is called ({said(error)})") from error
        hint = "--input CxHxW gives the shape that it takes (--input 1x28x28)"
        raise BadInputError(f"the network cannot take an input of {shape}: {said(error)}", hint) from error


def _example(module: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """One random image, the same each time, of the parameters' type and device."""
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    image = torch.randn(1, *input_shape, generator=torch.Generator().manual_seed(0), device="cpu", dtype=torch.float32)
    return image.to(like)


def traced(module: nn.Module, input_shape: tuple[int, int, int]) -> tuple[Trace, str | None]:
    """fvcore's trace, or an empty one and why it fails."""
    with _untouched(module):
        # Tracing takes nothing but tensors for an output.
        module.register_forward_hook(lambda _module, _inputs, output: tuple(tensors_in(output)))
        try:
            return run_trace(module, input_shape), None
        except BaseException as error:
            let_ctrl_c_through(error)
            if is_out_of_memory(error):
                raise MissingError(f"too little memory to trace the network: {said(error)}") from error
            return Trace({}), said(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """No gradients, random numbers that are put back, and attention in its parts, not as the one operation that neither
    fvcore nor the dispatcher looks into."""
    python, numpy, fast = random.getstate(), np.random.get_state(), torch.backends.mha.get_fastpath_enabled()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.backends.mha.set_fastpath_enabled(False)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """``_quiet``; afterwards the modules have the attributes, hooks and modes, and the tensors the values, that they had."""
    parts = [vars(part) for part in module.modules()]
    held = [*parts, *(value for part in parts for value in part.values() if isinstance(value, dict | list))]
    before = [(value, copy.copy(value)) for value in held]
    tensors = [(t, t.data, t.detach().clone(), dict(vars(t))) for t in (*module.parameters(), *module.buffers())]
    try:
        with _quiet():
            yield
    finally:
        for value, saved in before:
            _put_back(value, saved)
        for tensor, data, values, attributes in tensors:
            tensor.data = data
            _put_back(vars(tensor), attributes)
            if not (tensor.is_meta or torch.equal(data, values)):
                data.copy_(values)


def _put_back(value: Any, saved: Any) -> None:
    """In place: the handles of hooks, and others, hold on to the container."""
    value.clear()
    value.extend(saved) if isinstance(value, list) else value.update(saved)
