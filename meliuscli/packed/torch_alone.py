"""A module of somebody else's, timed in torch alone: as it is, channels last, compiled."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from meliuscli.counting.foreign import Call, OwnCount
from meliuscli.counting.foreign.source import let_ctrl_c_through, said
from meliuscli.errors import BadInputError
from meliuscli.packed.opponents import Run, compiled_call
from meliuscli.packed.timing import EAGER, Counting, Timed, in_turns
from meliuscli.processes import stdout_to_stderr

_WAYS: dict[str, torch.dtype | None] = {
    "eager, channels last": None,
    "compiled fp32": torch.float32,
    "compiled bf16": torch.bfloat16,
}
"""Beside eager, and the type of what is compiled."""


def bench_module(
    name: str,
    module: nn.Module,
    own: OwnCount,
    *,
    batch: int = 1,
    threads: int = 1,
    opponents: str = "quick",
    runs: int = 15,
    talk: Callable[[str], None] = lambda _: None,
    counting: Callable[[str], AbstractContextManager[Counting]] = lambda _: nullcontext(lambda *_: None),
) -> Timed:
    """Time ``module`` on what it was counted with, each tensor of one image repeated ``batch`` times. ``opponents``: "none"
    (as it is), "quick" (channels last too) or "all" (compiled too, which takes minutes). Raises ``BadInputError`` for a
    batch that it does not take; what else torch cannot do is ``missing``."""
    torch.set_num_threads(threads)
    call: Call = tree_map(lambda value: _repeated(value, batch), own.call)
    number = {"none": 0, "quick": 1}.get(opponents, len(_WAYS))
    missing: dict[str, str] = {}
    module = module.eval()
    with torch.inference_mode(), stdout_to_stderr():
        contenders = {EAGER: _eager(name, module, call, batch)}
        started = time.perf_counter()
        for way, dtype in list(_WAYS.items())[:number]:
            talk(f"{name}: {way}" + (" (about a minute)" if dtype else ""))
            try:
                contenders[way] = _run(module, call, dtype)
            except BaseException as error:  # whatever somebody else's code and torch's compilers raise
                let_ctrl_c_through(error)
                missing[way] = said(error)[:200]
        seconds = time.perf_counter() - started if opponents == "all" else 0.0
        with counting(f"{name}: rounds") as counter:
            samples = in_turns(contenders, runs, counter)
    return Timed(name, None, own.input_shape, batch, threads, samples, missing, seconds, own.count.total.size_bytes)


def _repeated(value: Any, batch: int) -> Any:
    is_of_one = isinstance(value, Tensor) and value.dim() > 0 and len(value) == 1
    return value.repeat(batch, *[1] * (value.dim() - 1)) if is_of_one else value


def _eager(name: str, module: nn.Module, call: Call, batch: int) -> Run:
    run: Run = lambda: module(*call[0], **call[1])  # noqa: E731
    try:
        run()
    except BaseException as error:
        let_ctrl_c_through(error)
        raise BadInputError(f"{name}: cannot take --batch {batch}: {said(error)}", "leave --batch out") from error
    return run


def _run(module: nn.Module, call: Call, dtype: torch.dtype | None) -> Run:
    """Channels last, and compiled where there is a type."""
    last = tree_map(_channels_last, call)
    copied = copy.deepcopy(module).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if dtype is not None:
        return compiled_call(copied, last, dtype)
    copied(*last[0], **last[1])
    return lambda: copied(*last[0], **last[1])


def _channels_last(value: Any) -> Any:
    is_image = isinstance(value, Tensor) and value.dim() == 4
    return value.contiguous(memory_format=torch.channels_last) if is_image else value
