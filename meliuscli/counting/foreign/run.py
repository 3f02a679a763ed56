"""A user's module run once, on an example of what it takes, and left as it was."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from meliuscli.counting.foreign.bits import some
from meliuscli.counting.foreign.source import let_ctrl_c_through, said
from meliuscli.counting.foreign.tensors import held_by, storage_of, tensors_in
from meliuscli.counting.foreign.watch import Watch
from meliuscli.errors import BadInputError, MissingError
from meliuscli.memory import lacks_memory

_WAYS = (
    "--input CxHxW gives the shape that it takes (--input 1x28x28); repeat it for several, with names and types for"
    " others (--input ids=int64:1x128), or let the factory return (module, example_inputs)"
)

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments and keywords of a forward."""


@dataclass(frozen=True, slots=True)
class Example:
    """What a network is called with: ``parts`` are names, types and shapes of tensors (without the batch where it is
    plain images), or ``given`` is what the factory returned: a tuple of arguments, a mapping of keywords, or one."""

    parts: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    given: Any = None

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Example:
        return cls((("", "", shape),))

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Example:
        """From ``3x224x224``, ``224`` (three channels), ``ids=int64:1x128``. Raises ``BadInputError``."""
        return cls(tuple(map(_parsed, texts)))

    def __str__(self) -> str:
        if self.given is not None:
            return ", ".join("x".join(map(str, t.shape)) for t in tensors_in(self.given)) or "the example"
        return ", ".join("=".join(filter(None, (name, "x".join(map(str, shape))))) for name, _, shape in self.parts)

    @property
    def is_whole(self) -> bool:
        """Are the shapes those of whole tensors, with the batch where there is one?"""
        return self.given is not None or any(dtype for _, dtype, _ in self.parts)

    def calls(self, module: nn.Module) -> list[Call]:
        """Arguments and keywords: the likeliest reading of the example first. Where one has a type the shapes
        are whole; else they lack the batch. Several may be meant as a list."""
        as_one: Call = (self.given,), {}
        if isinstance(self.given, Mapping):
            return [((), dict(self.given)), as_one]
        if isinstance(self.given, tuple):
            return [(self.given, {}), as_one]
        if self.given is not None:
            return [as_one, (tuple(self.given), {})] if isinstance(self.given, list) else [as_one]
        batches: list[tuple[int, ...]] = [(), (1,)] if self.is_whole else [(1,), ()]
        calls = [self._call(module, batch) for batch in batches]
        return [*calls, *(((list(args),), keywords) for args, keywords in calls if len(args) > 1)]

    def _call(self, module: nn.Module, batch: tuple[int, ...]) -> Call:
        numbers = torch.Generator().manual_seed(0)
        like = next((p for p in module.parameters() if p.is_floating_point() or p.is_complex()), torch.empty(0))
        made = [(name, _tensor(dtype, batch + shape, like, numbers)) for name, dtype, shape in self.parts]
        return tuple(tensor for name, tensor in made if not name), {name: tensor for name, tensor in made if name}


def _parsed(text: str) -> tuple[str, str, tuple[int, ...]]:
    match = re.fullmatch(r"(?:([A-Za-z_]\w*)=)?(?:([a-z]\w*):)?(\d{1,7}(?:x\d{1,7})*)", text.strip())
    shape = tuple(map(int, match[3].split("x"))) if match else (0,)
    if match is None or 0 in shape or (match[2] and not isinstance(getattr(torch, match[2], None), torch.dtype)):
        hint = "write it as 3x224x224, or 224 for three channels; others as ids=int64:1x128 (name, type, whole shape)"
        raise BadInputError(f"--input {text!r}: not an input shape", hint)
    is_size = len(shape) == 1 and not match[1] and not match[2]
    return match[1] or "", match[2] or "", (3, *shape, *shape) if is_size else shape


def _tensor(dtype: str, shape: tuple[int, ...], like: Tensor, numbers: torch.Generator) -> Tensor:
    """Random numbers, the same each time, of the type that is asked for, else of the parameters'; integers are 0 and 1,
    which are in every vocabulary."""
    kind = getattr(torch, dtype) if dtype else like.dtype
    if not kind.is_floating_point and not kind.is_complex:
        return torch.randint(0, 2, shape, generator=numbers).to(kind).to(like.device)
    return torch.randn(shape, generator=numbers, device="cpu", dtype=torch.float32).to(like.device, kind)


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


def watched(module: nn.Module, example: Example) -> tuple[nn.Module, Watch]:
    """The network, or a copy of a lazy one whose parameters have their shapes, and what one run of it shows."""
    if _lazy_names(module):
        module = _materialized(module, example)
    calls = example.calls(module)
    for number, call in enumerate(calls):
        with _untouched(module):
            watch = Watch(module, call)
            try:
                _run(module, call, watch, example)
            except BadInputError as error:
                if number == 0:
                    first = error
                continue
            return module, watch
    raise first


def _lazy_names(module: nn.Module) -> list[str]:
    return [name for name, value in [*module.named_parameters(), *module.named_buffers()] if is_lazy(value)]


def _materialized(module: nn.Module, example: Example) -> nn.Module:
    try:
        module = copy.deepcopy(module)
    except BaseException as error:
        let_ctrl_c_through(error)
        hint = "run it once on an input before it is returned"
        raise BadInputError(f"the network is lazy and cannot be copied: {said(error)}", hint) from error
    with _quiet():
        _run(module, example.calls(module)[0], nullcontext(), example)
    if lazy := _lazy_names(module):
        raise BadInputError(f"the network has parameters without shapes, of modules never called: {some(lazy)}")
    return module


def _run(module: nn.Module, call: Call, watch: Any, example: Example) -> None:
    """One forward; whatever it raises becomes an error for the user."""
    try:
        with suppress(NotImplementedError):  # an exported one is in the mode in which it was exported
            module.eval()
        with watch:
            module(*call[0], **call[1])
    except BaseException as error:
        let_ctrl_c_through(error)
        if lacks_memory(error):
            raise MissingError(f"too little memory to run the network on {example}: {said(error)}") from error
        if isinstance(error, SystemExit):
            raise BadInputError(f"the network ends the program when it is called ({said(error)})") from error
        raise BadInputError(f"the network cannot take an input of {example}: {said(error)}", _WAYS) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No gradients, random numbers that are put back, and attention in its parts, not as the one operation that the
    dispatcher does not look into."""
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
    held_tensors = [tensor for part in module.modules() for tensor, _ in held_by(part)]
    tensors = [(t, storage_of(t), t.data, t.detach().clone(), dict(vars(t))) for t in held_tensors]
    try:
        with _quiet():
            yield
    finally:
        for value, saved in before:
            _put_back(value, saved)
        for tensor, storage, data, values, attributes in tensors:
            if (storage_of(tensor), tensor.shape) != (storage, data.shape):
                tensor.data = data
            _put_back(vars(tensor), attributes)
            if not tensor.is_meta and not _is_same(data, values):
                data.copy_(values)


def _put_back(value: Any, saved: Any) -> None:
    """In place: the handles of hooks, and others, hold on to the container."""
    value.clear()
    value.extend(saved) if isinstance(value, list) else value.update(saved)


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.layout != torch.strided or torch.equal(one, other)
