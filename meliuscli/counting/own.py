"""A network of the user's own: any ``nn.Module`` from a Python file, counted with the same rows as the specs.

fvcore's trace misses what runs inside autograd Functions, in scripted code and in operations that it does not know. So
the network runs once more under torch's dispatcher, which sees every operation that torch executes; where the two
differ the dispatcher's MACs count, and a verdict says so."""

from __future__ import annotations

import ast
import copy
import difflib
import importlib
import importlib.util
import inspect
import os
import random
import re
import sys
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import prod
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from meliuscli.counting.counts import FLOAT_BITS, Count, NetworkCount, Storage, merged, size_bytes
from meliuscli.counting.traced import Trace, count_trace, own_bits, run_trace
from meliuscli.errors import BadInputError, MeliusError, MissingError, unknown_name

Kind = Literal["conv", "linear"]
Macs = dict[str, dict[Kind, int]]
"""MACs by module (its own, without its children's) and kind."""

FLOAT = (FLOAT_BITS, FLOAT_BITS)

_FORM = "write FILE.py:NAME, where NAME is a function without arguments that returns the network, or the network itself"


# Loading


def load_module(reference: str) -> nn.Module:
    """The network that ``path/to/file.py:name`` names: an ``nn.Module``, or what a function or class of that name
    returns when called without arguments. ``name`` may have dots.

    The file's folder is importable while the file is executed and the network is made. What that code prints goes to
    stderr. Raises ``BadInputError`` for anything that is wrong with the file or the name, and ``MissingError`` for a
    package that is not installed or too little memory."""
    path, name = _split(reference)
    with _stdout_to_stderr(), _importable(path.resolve().parent):
        found = _find(_execute(path), path, name)
        made = found if isinstance(found, nn.Module) else _call(found, path, name)
    if isinstance(made, nn.Module):
        return made
    hint = "return the network alone" if isinstance(made, tuple | list | dict) else None
    raise BadInputError(f"{path}:{name} returns no torch.nn.Module but a {type(made).__name__}", hint)


def _split(reference: str) -> tuple[Path, str]:
    file, colon, name = reference.rpartition(":")
    if not colon or not re.fullmatch(r"[\w.]*", name) or name.endswith(".py"):
        file, name = reference, ""
    path = Path(file).expanduser()
    if path.suffix != ".py":
        raise BadInputError(f"{reference}: not a Python file (.py)", _FORM)
    if not path.is_file():
        raise BadInputError(f"{path}: {'a directory, not a file' if path.is_dir() else 'no such file'}")
    if not name:
        defined = ", ".join(_defined(path))
        raise BadInputError(
            f"{path}: which network of this file?", f"{_FORM}; it defines {defined}" if defined else _FORM
        )
    return path, name


def _defined(path: Path) -> list[str]:
    """Public functions and classes of a file, without executing it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return []
    kinds = ast.FunctionDef | ast.ClassDef
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """What foreign code prints, itself or in processes that it starts, goes to stderr: stdout carries our answer."""
    with redirect_stdout(sys.stderr):
        saved = _redirect_descriptor()
        try:
            yield
        finally:
            if saved is not None:
                _flush_stdout()
                os.dup2(saved, 1)
                os.close(saved)


def _redirect_descriptor() -> int | None:
    """Descriptor 1 becomes a copy of 2; returns what it was, or None where one of them is closed."""
    try:
        _flush_stdout()
        os.fstat(2)
        saved = os.dup(1)
        os.dup2(2, 1)
    except OSError:
        return None
    return saved


def _flush_stdout() -> None:
    with suppress(AttributeError, ValueError, OSError):
        sys.__stdout__.flush()  # type: ignore[union-attr]


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """``folder`` first on sys.path, no arguments for the code to parse, no caches written beside it; afterwards its
    modules are forgotten, or another folder's of the same names would never be loaded."""
    before, paths, argv, bytecode = set(sys.modules), sys.path[:], sys.argv, sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.argv, sys.dont_write_bytecode = argv[:1], True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:], sys.argv, sys.dont_write_bytecode = paths, argv, bytecode
        if not {"site-packages", "dist-packages"} & set(folder.parts):
            tops = {name for name in sys.modules if name not in before and _lies_in(sys.modules.get(name), folder)}
            for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
                del sys.modules[name]


def _lies_in(module: ModuleType | None, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    places = list(getattr(module, "__path__", ())) or ([file] if file else [])
    return any(Path(place).resolve().parent == folder for place in places)


def _execute(path: Path) -> ModuleType:
    """The file as a module under a name of its own; once, however many networks of it are asked for."""
    stamp = zlib.crc32(f"{path.resolve()} {path.stat().st_mtime_ns}".encode())
    name = f"{path.stem} {stamp:08x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        del sys.modules[name]
        raise _refusal(error, path, "executing it") from error
    return module


def _find(module: ModuleType, path: Path, name: str) -> object:
    try:
        return attrgetter(name)(module)
    except AttributeError:
        pass
    except BaseException as error:
        raise _refusal(error, path, f"{name}") from error
    known = [key for key, value in vars(module).items() if not key.startswith("_") and _is_network(value)]
    if not known:
        raise BadInputError(f"{path}: has no {name!r}, nor any other network", _FORM)
    raise unknown_name("network", name, known, str(path))


def _is_network(value: object) -> bool:
    """Could it be, or make, one?"""
    made_by = inspect.isfunction(value) or (isinstance(value, type) and issubclass(value, nn.Module))
    return made_by or isinstance(value, nn.Module)


def _call(factory: object, path: Path, name: str) -> object:
    if not callable(factory):
        raise BadInputError(f"{path}:{name} is neither a network nor a function but a {type(factory).__name__}", _FORM)
    needed = _needed(factory)
    if needed:
        hint = f"add a function that needs none: def network(): return {name}({needed[0]}=...)"
        raise BadInputError(f"{path}:{name} needs arguments ({', '.join(needed)}); it is called without any", hint)
    try:
        return factory()
    except BaseException as error:
        raise _refusal(error, path, f"{name}()") from error


def _needed(factory: Callable[..., object]) -> list[str]:
    """Names of the arguments that it cannot be called without."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # not every builtin tells
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in optional]


def _refusal(error: BaseException, path: Path, doing: str) -> MeliusError:
    """What went wrong in the user's code, in one sentence. Ctrl-C is not an error of that code and comes through."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    place = f"{path}{_line(error, path)}"
    if isinstance(error, SyntaxError):
        return BadInputError(f"{error.filename or path}, line {error.lineno}: syntax error: {error.msg}")
    if isinstance(error, ModuleNotFoundError) and error.name and not _exists(error.name):
        hint = "install it into the environment of meliuscli, or put it beside the file"
        return MissingError(f"{place}: needs the package {error.name.partition('.')[0]!r}, which is not there", hint)
    if is_out_of_memory(error):
        return MissingError(f"{place}: {doing}: too little memory: {_said(error)}")
    if isinstance(error, SystemExit):
        hint = 'what a script does beside defining networks belongs under if __name__ == "__main__":'
        return BadInputError(f"{place}: {doing} ends the program ({_said(error)})", hint)
    relative = isinstance(error, ImportError) and "relative import" in str(error)
    hint = "a file of a package: name one outside it that imports from the package" if relative else None
    return BadInputError(f"{place}: {doing} raises {_said(error)}", hint)


def _line(error: BaseException, path: Path) -> str:
    """The last line of the file that took part."""
    lines = [
        lineno for frame, lineno in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)
    ]
    return f", line {lines[-1]}" if lines else ""


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _said(error: BaseException) -> str:
    """An error's type and the first line of its message."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:
        lines = []
    first = lines[0] if lines else ""
    return f"{type(error).__name__}: {first[:300]}" if first else type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Does torch, or Python, say that memory is too little?"""
    words = ("allocate memory", "out of memory", "not enough memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


# Which modules are binary

_CONV_OR_LINEAR = re.compile(
    # QConv2d, QConv2d_NoAct, _QLinearComposed (bitorch), QuantConv2d, QuantDense (larq); BConv2d, IRConv2d (IR-Net)
    r"(?:(?:q|quant|b|ir)(?:conv[123]d|conv2dtranspose|linear|dense)"
    # BinaryConv2d, BinConv, BinarizeLinear, BinarizedConv2d, HardBinaryConv (ReActNet), XnorConv2d, BnnLinear
    r"|(?:hard|soft|my|ada)?(?:bin|bnn|binary|binari[sz]ed?|xnor)(?:conv(?:[123]d)?|convolution|linear|dense|fc))"
    r"(?:noact|base|composed|layer)?"
)
"""Names of binary layers in the field, in lower case and without underscores."""

_WEIGHT_BITS = ("weight_bits", "weight_bit_width", "weight_bit", "w_bits", "w_bit", "wbits", "wbit", "nbits_w")
_ACTIVATION_BITS = ("activation_bits", "input_bits", "input_bit_width", "a_bits", "a_bit", "abits", "abit", "nbits_a")
_WEIGHT_QUANTIZERS = ("_weight_quantize", "weight_quantization", "weight_quantizer", "weight_quant", "kernel_quantizer")
_ACTIVATION_QUANTIZERS = ("activation.activation_function", "input_quantization", "input_quantizer", "input_quant")
_QUANTIZER_BITS = ("bit_width", "num_bits", "bits", "n_bits", "nbits", "bitwidth")

_WITHOUT_MACS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.Embedding,
    nn.EmbeddingBag,
)
"""Their weights scale or are looked up; no pattern makes them binary."""


@dataclass(frozen=True, slots=True)
class OwnBits:
    """Bits by module name, with the rule that decided each; modules without an entry are float. What ``count_trace``
    asks."""

    bits: Mapping[str, tuple[int, int]]
    reasons: Mapping[str, str]

    def __call__(self, name: str, module: nn.Module) -> tuple[int, int]:
        return self.bits.get(name, FLOAT)


def own_network_bits(module: nn.Module, patterns: Sequence[str] = ()) -> OwnBits:
    """Which parts of ``module`` are binary, or of few bits. The first rule that holds decides:

    1. a pattern (``fnmatch`` style; ``*`` crosses dots) matches the module's name or that of one above it: 1x1 bits;
    2. the module has the integers ``weight_bits`` and ``activation_bits``, as our own layers;
    3. its class, or one that it inherits from outside torch, has a name that the field gives to binary layers: the
       bits that its quantizers state, else 1x1. Where such a layer has no weights of its own it wraps one: then its
       convolutions (or else its linear layers) are what is binary.

    Normalization and embeddings are never binary. Raises ``BadInputError`` for a pattern that matches no module, or
    none with weights."""
    names: dict[nn.Module, list[str]] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        names.setdefault(part, []).append(name)
    for pattern in patterns:
        _check_pattern(names, pattern)
    rules: dict[str, tuple[tuple[int, int], str]] = {}
    for part, (name, *others) in names.items():
        if isinstance(part, _WITHOUT_MACS):
            continue
        found = _by_pattern([name, *others], patterns) or _by_own_word(name, part) or _by_class_name(part)
        if found:
            rules[name] = found
            rules.update((heir, found) for heir in _heirs(name, part) if heir not in rules)
    reasons = {name: f"{_bits_text(bits)} {by}" for name, (bits, by) in rules.items()}
    return OwnBits({name: bits for name, (bits, _) in rules.items()}, reasons)


def _bits_text(bits: tuple[int, int]) -> str:
    return "binary" if bits == (1, 1) else "float" if bits == FLOAT else f"{bits[0]}x{bits[1]} bits"


def _by_pattern(names: Sequence[str], patterns: Sequence[str]) -> tuple[tuple[int, int], str] | None:
    """``names`` are one module's: a shared one has several."""
    paths = {path for name in names for path in _and_above(name)}
    hit = next((pattern for pattern in patterns if any(fnmatchcase(path, pattern) for path in paths)), None)
    return None if hit is None else ((1, 1), f"by --binary {hit}")


def _and_above(name: str) -> list[str]:
    parts = name.split(".")
    return [name, *(".".join(parts[:depth]) for depth in range(len(parts) - 1, 0, -1))]


def _by_own_word(name: str, part: nn.Module) -> tuple[tuple[int, int], str] | None:
    bits = own_bits(name, part)
    stated = bits != FLOAT and all(1 <= b <= FLOAT_BITS for b in bits)
    return (bits, f"as {type(part).__name__} states") if stated else None


def _by_class_name(part: nn.Module) -> tuple[tuple[int, int], str] | None:
    own = [cls.__name__ for cls in part.__class__.__mro__ if cls.__module__.partition(".")[0] != "torch"]
    name = next((name for name in own if _CONV_OR_LINEAR.fullmatch(name.lower().replace("_", ""))), None)
    if name is None:
        return None
    weight = _stated_bits(part, _WEIGHT_BITS, _WEIGHT_QUANTIZERS)
    activation = _stated_bits(part, _ACTIVATION_BITS, _ACTIVATION_QUANTIZERS)
    if weight is None and activation is None:
        return (1, 1), f"by class name {name}"
    return (weight or activation or 1, activation or weight or 1), f"as the quantizers of {name} state"


def _stated_bits(part: nn.Module, direct: Iterable[str], quantizers: Iterable[str]) -> int | None:
    paths = [*direct, *(f"{quantizer}.{bits}" for quantizer in quantizers for bits in _QUANTIZER_BITS)]
    return next((bits for bits in (_integer(part, path) for path in paths) if bits is not None), None)


def _integer(part: nn.Module, path: str) -> int | None:
    """The attribute as a number of bits, 1 to 32; None for whatever else is there."""
    try:
        value = attrgetter(path)(part)
        number = value.item() if isinstance(value, Tensor) else value
        whole = int(number) if not isinstance(number, bool) and number == int(number) else 0
    except Exception:  # an attribute of somebody else's class can do anything
        return None
    return whole if 1 <= whole <= FLOAT_BITS else None


def _heirs(name: str, part: nn.Module) -> list[str]:
    """Modules below a binary one that are part of the same layer: where it holds its weights itself, those without any
    (what applies the weights); else the convolutions, or else the linear layers."""
    below = {f"{name}.{key}" if name else key: child for key, child in part.named_modules() if key}
    bare = [key for key, child in below.items() if _weight(child) is None and not list(child.parameters(recurse=False))]
    if _weight(part) is not None:
        return bare
    weighted = {key: weight.dim() for key, child in below.items() if (weight := _weight(child)) is not None}
    convs = [key for key, dims in weighted.items() if dims > 2]
    return [*bare, *(convs or weighted)]


def _weight(part: nn.Module) -> nn.Parameter | None:
    """The largest parameter of its own, where that is a matrix or a kernel that multiplies."""
    own = [p for p in part.parameters(recurse=False) if not is_lazy(p)]
    largest = max(own, key=Tensor.numel, default=None)
    if largest is None or largest.dim() < 2 or isinstance(part, _WITHOUT_MACS):
        return None
    return largest


def _check_pattern(modules: Mapping[nn.Module, Sequence[str]], pattern: str) -> None:
    matched = {part: names for part, names in modules.items() if _by_pattern(names, [pattern])}
    if any(_weight(part) is not None for part in matched):
        return
    weighted = [names[0] for part, names in modules.items() if _weight(part) is not None]
    near = difflib.get_close_matches(pattern, weighted, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}" if near else f"modules with weights: {some(weighted)}"
    if matched:
        found = some([names[0] for names in matched.values()])
        raise BadInputError(f"--binary {pattern}: matches only modules without weights ({found})", hint)
    raise BadInputError(f"--binary {pattern}: no module of the network has such a name", hint)


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names: ``a, b, c and 4 more``."""
    text = ", ".join(name or "the network itself" for name in names[:most])
    return f"{text} and {len(names) - most} more" if len(names) > most else text


# What torch executes

_FACTOR = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm"), 0),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "_addmm_activation"), 1),
}
"""Products of tensors in aten, and which argument is the first factor; the next is the second."""

_HARMLESS = frozenset(
    "pool1d pool2d pool3d norm softmax softmin logsumexp upsample interpolate pad pad1d pad2d pad3d view reshape"
    " permute transpose t squeeze unsqueeze select slice split chunk unbind stack cat concat expand repeat tile flatten"
    " unflatten roll flip gather scatter index take where masked fill copy clone zeros ones full empty new scalar"
    " arange linspace eye rand randn randint randperm bernoulli multinomial normal uniform dropout sort topk argmax"
    " argmin argsort max min amax amin aminmax maximum minimum sum mean var std prod cumsum cumprod any all numel size"
    " stride dim item local embedding hot im2col col2im unfold fold shuffle unshuffle detach alias lift to type dtype"
    " device contiguous meshgrid tril triu diag diagonal bincount histc unique nonzero equal prelu glu clamp quantize"
    " dequantize strided resolve set is result movedim swapaxes narrow as assert broadcast sampler count median kthvalue"
    " bucketize searchsorted outer dense implicit".split()
)
"""Words in the names of operations without MACs, beside those that torch itself marks as pointwise."""

_WITH_MACS = frozenset(
    "fft stft istft cdist pdist bilinear trilinear attention lstm gru rnn conv conv1d conv2d"
    " conv3d convolution linear matmul mm bmm einsum tensordot deform".split()
)
"""Words in the names of operations that are made of multiplications."""


@dataclass(slots=True)
class _Seen:
    """What torch executes in one module, without its children."""

    macs: dict[Kind, int] = field(default_factory=dict)
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    levels: tuple[int, int] = (0, 0)
    """Distinct values of the weights of a channel and of the activations that its MACs multiply: 1, 2, 3 for two and
    zero, 4 for more; 0 where no operand was looked at."""


class _Watch(TorchDispatchMode):
    """Every operation below autograd, scripts and composite operations, by the module that is being called."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.blind: str | None = None
        self.seen: dict[str, _Seen] = {}
        self._calls: list[str] = [""]
        for name, part in module.named_modules():
            if not isinstance(part, torch.jit.ScriptModule):
                part.register_forward_pre_hook(self._entering(name))
                part.register_forward_hook(self._leaving(name), always_call=True)

    def _entering(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _module, _inputs: self._calls.append(name)

    def _leaving(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def left(_module: nn.Module, inputs: Any, output: Any) -> None:
            if self._calls[-1] == name:  # not where one of its hooks has failed before ours
                self._calls.pop()
            self._here(name).shapes.append((_shape(inputs), _shape(output)))

        return left

    def _here(self, name: str) -> _Seen:
        return self.seen.setdefault(name, _Seen())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, _, name = func._schema.name.partition("::")
        kwargs, aten = kwargs or {}, namespace == "aten"
        if not (aten and _is_product(name)):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        here = self._here(self._calls[-1])
        if aten and _is_product(name):
            kind, macs, levels = _product(name, args, out)
            here.macs[kind] = here.macs.get(kind, 0) + macs
            here.levels = tuple(map(max, zip(here.levels, levels, strict=True)))
        elif namespace not in ("prim", "prims") and not (aten and (func.is_view or _is_harmless(name))):
            here.unknown[f"{namespace}::{name}"] += 1
        return out


def _is_product(name: str) -> bool:
    plain = name.rstrip("_")
    recurrent = name in ("mkldnn_rnn_layer", "_cudnn_rnn")
    return plain in _FACTOR or name in _CONVOLUTIONS or recurrent or name.startswith("_scaled_dot_product_")


_CONVOLUTIONS = ("convolution", "_convolution", "convolution_overrideable")


def _product(name: str, args: Sequence[Any], out: Any) -> tuple[Kind, int, tuple[int, int]]:
    """Kind and MACs of an operation, and the levels of its operands, weights first."""
    if name in _CONVOLUTIONS:
        x, weight, transposed = args[0], args[1], args[6]
        positions = x.shape[0] * prod((x if transposed else out).shape[2:])
        return "conv", positions * weight.numel(), (_levels(weight.flatten(1), 1), _levels(x.flatten(), 0))
    if name.startswith("_scaled_dot_product_"):
        query, key, value = args[:3]
        return "linear", prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]), (0, 0)
    if name.rstrip("_") not in _FACTOR:  # recurrent: each matrix once a step
        x, weights = args[0], args[1] if isinstance(args[1], list | tuple) else args[1:3]
        return "linear", prod(x.shape[:-1]) * sum(w.numel() for w in weights if w.dim() > 1), (0, 0)
    a, b = args[_FACTOR[name.rstrip("_")] :][:2]
    levels = (_levels(b, 0), _levels(a.flatten(), 0)) if a.dim() == b.dim() == 2 else (0, 0)
    return "linear", a.numel() * (b.shape[-1] if b.dim() > 1 else 1), levels


def _levels(operand: Tensor, dim: int) -> int:
    """How many values it takes along ``dim`` (see ``_Seen.levels``), but for rounding."""
    if operand.is_meta or not operand.is_floating_point() or not operand.numel():
        return 0
    low, high = operand.amin(dim, keepdim=True), operand.amax(dim, keepdim=True)
    near = 1e-3 * torch.maximum(low.abs(), high.abs())
    if bool((high - low <= near).all()):
        return 1
    two = (operand - low <= near) | (high - operand <= near)
    return 2 if bool(two.all()) else 3 if bool((two | (operand == 0)).all()) else 4


def _is_harmless(name: str) -> bool:
    """Has an operation of aten no MACs?"""
    packet = getattr(torch.ops.aten, name, None)
    overloads = [getattr(packet, overload) for overload in packet.overloads()] if packet else []
    words = set(name.strip("_").split("_"))
    return any(torch.Tag.pointwise in op.tags for op in overloads) or (
        bool(words & _HARMLESS) and not words & _WITH_MACS
    )


def _shape(value: Any) -> tuple[int, ...]:
    """Of the first tensor in a nested value; () where there is none."""
    return next((tuple(tensor.shape) for tensor in _tensors(value)), ())


def _tensors(value: Any, depth: int = 8) -> Iterator[Tensor]:
    """The tensors in whatever a module returns."""
    if isinstance(value, Tensor):
        yield value
    elif depth and not isinstance(value, nn.Module | type | str | bytes):
        held = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        for part in held or getattr(value, "__dict__", {}).values():
            yield from _tensors(part, depth - 1)


# Counting


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found beside the plain count: an operation or a kind of module, how often, in which modules, and what it
    means in plain words. ``doubt``: the count may be wrong because of it."""

    what: str
    times: int
    modules: tuple[str, ...]
    verdict: str
    doubt: bool = False

    @property
    def where(self) -> str:
        """The first modules: ``layer1.0, layer1.1, layer1.2 and 4 more``."""
        return some(self.modules)


@dataclass(frozen=True, slots=True)
class OwnCount:
    """The count of a user's network. ``verdicts``: doubts first. ``recognised``: why each layer that is not float
    without more ado counts at its bits, by the row's name."""

    count: NetworkCount
    verdicts: tuple[Verdict, ...]
    recognised: Mapping[str, str]


def count_own(
    module: nn.Module,
    input_shape: tuple[int, int, int],
    patterns: Sequence[str] = (),
    storage: Storage = Storage(),  # noqa: B008
) -> OwnCount:
    """Count ``module`` for one image of (channels, height, width), in evaluation mode and without gradients.

    ``patterns`` name binary modules (see ``own_network_bits``). Rows are modules with MACs or parameters of their own;
    what the network itself does outside its modules is a row named after its class, in parentheses. Elementwise
    operations are not counted. The module is left as it was; a lazy one is counted on a copy. Raises ``BadInputError``
    for an input that the network does not take and for patterns that match nothing, ``MissingError`` for too little
    memory."""
    module = _unwrapped(module)
    with _stdout_to_stderr():
        if _is_lazy(module):
            module = _materialized(module, input_shape)
        watch = _watched(module, input_shape)
        bits = own_network_bits(module, patterns)
        trace, failure = _traced(module, input_shape)
    if failure and watch.blind:
        raise BadInputError(f"the network runs, but cannot be counted: fvcore: {failure}; torch: {watch.blind}")
    roads, notes = _compared(module, watch, trace, failure, bits)
    plain, owned = count_trace(module, Trace(roads.macs), bits, storage).layers, _owned(roads.parts)
    rows = {row.name: _finished(row, roads, owned[row.name], storage) for row in plain}
    named = {row.name: bits.reasons[name] for name, row in rows.items() if name in bits.reasons and _has_bits(row)}
    return OwnCount(NetworkCount(tuple(rows.values())), _verdicts(notes), named)


def _has_bits(row: Count) -> bool:
    return bool(row.macs) or any(bits < FLOAT_BITS for bits, _ in row.weights)


def _unwrapped(module: nn.Module) -> nn.Module:
    """Without a wrapper for several devices or for torch.compile, which would be in every name."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return module.module
    compiled = getattr(module, "_orig_mod", module)
    return compiled if isinstance(compiled, nn.Module) else module


def _is_lazy(module: nn.Module) -> bool:
    return any(map(is_lazy, [*module.parameters(), *module.buffers()]))  # type: ignore[no-untyped-call]


def _materialized(module: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    """A copy of a lazy network whose parameters have their shapes."""
    hint = "run it once on an input before it is returned"
    try:
        module = copy.deepcopy(module)
    except Exception as error:
        raise BadInputError(f"the network is lazy and cannot be copied: {_said(error)}", hint) from error
    with _quiet():
        _run(module, input_shape)
    if _is_lazy(module):
        lazy = [name for name, value in [*module.named_parameters(), *module.named_buffers()] if is_lazy(value)]  # type: ignore[no-untyped-call]
        raise BadInputError(f"the network has parameters without shapes, of modules never called: {some(lazy)}")
    return module


def _watched(module: nn.Module, input_shape: tuple[int, ...]) -> _Watch:
    with _untouched(module):
        watch = _Watch(module)
        try:
            module.eval()
            with watch:
                module(_example(module, input_shape))
        except Exception as error:
            watch.blind, watch.seen = _said(error), {}
            _run(module, input_shape)  # most often it is the network that fails
    return watch


def _run(module: nn.Module, input_shape: tuple[int, ...]) -> None:
    """One forward; whatever it raises becomes an error for the user."""
    shape = "x".join(map(str, input_shape))
    try:
        module.eval()
        module(_example(module, input_shape))
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise MissingError(f"too little memory to run the network on {shape}: {_said(error)}") from error
        hint = "--input CxHxW gives the shape that it takes (--input 1x28x28)"
        raise BadInputError(f"the network cannot take an input of {shape}: {_said(error)}", hint) from error


def _example(module: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """One random image, the same each time, of the parameters' type and device."""
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    image = torch.randn(1, *input_shape, generator=torch.Generator().manual_seed(0), device="cpu", dtype=torch.float32)
    return image.to(like)


def _traced(module: nn.Module, input_shape: tuple[int, int, int]) -> tuple[Trace, str | None]:
    """fvcore's trace, or an empty one and why it fails."""
    with _untouched(module):
        # Tracing takes nothing but tensors for an output.
        module.register_forward_hook(lambda _module, _inputs, output: tuple(_tensors(output)))
        try:
            return run_trace(module, input_shape), None
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise MissingError(f"too little memory to trace the network: {_said(error)}") from error
            return Trace({}), _said(error)


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


# The two roads held against each other


@dataclass(frozen=True, slots=True)
class _Roads:
    """What each road saw, and the MACs by module that count: as executed, else as traced."""

    parts: Mapping[str, nn.Module]
    watch: _Watch
    trace: Trace
    failure: str | None
    bits: OwnBits
    macs: Macs

    def seen(self, name: str) -> _Seen:
        return self.watch.seen.get(name) or _Seen()

    def total(self, name: str) -> int:
        return sum(self.macs.get(name, {}).values())

    def traced(self, name: str) -> int:
        return sum(self.trace.macs.get(name, {}).values())

    def is_opaque(self, name: str) -> bool:
        """Did something run in it that no road looks into?"""
        functions = any(op.startswith(_FOREIGN) for op in self.trace.unsupported.get(name, {}))
        return bool(self.seen(name).unknown) or (self.watch.blind is not None and functions)


_FOREIGN = ("prim::PythonOp", "prim::CallFunction")
"""How fvcore names autograd Functions and scripted functions."""


@dataclass(frozen=True, slots=True)
class _Note:
    """One module's share of a verdict. ``{n}`` in the text stands for the sum of the numbers."""

    what: str
    text: str
    module: str
    number: int = 0
    times: int = 1
    doubt: bool = False


def _verdicts(notes: Iterable[_Note]) -> tuple[Verdict, ...]:
    """Notes of the same words make one verdict."""
    groups: dict[tuple[str, str, bool], list[_Note]] = {}
    for note in notes:
        groups.setdefault((note.what, note.text, note.doubt), []).append(note)
    verdicts = []
    for (what, text, doubt), same in groups.items():
        said = text.replace("{n}", f"{sum(note.number for note in same):,}")
        modules = tuple(dict.fromkeys(note.module for note in same))
        verdicts.append(Verdict(what, sum(note.times for note in same), modules, said, doubt))
    return tuple(sorted(verdicts, key=lambda verdict: not verdict.doubt))


def _compared(
    module: nn.Module, watch: _Watch, trace: Trace, failure: str | None, bits: OwnBits
) -> tuple[_Roads, list[_Note]]:
    parts = dict(module.named_modules())
    macs: Macs = {}
    for name in parts:
        executed = watch.seen[name].macs if name in watch.seen else {}
        macs[name] = dict(executed or trace.macs.get(name, {}))
    roads = _Roads(parts, watch, trace, failure, bits, macs)
    notes = [
        *_road_notes(roads),
        *_hidden_notes(roads),
        *_value_notes(roads),
        *_call_notes(roads),
        *_operation_notes(roads),
    ]
    return roads, notes


def _road_notes(roads: _Roads) -> Iterator[_Note]:
    """Where the roads differ."""
    if roads.failure:
        yield _Note("fvcore", f"cannot trace this network ({roads.failure}); MACs count as torch executes them", "")
    if roads.watch.blind:
        yield _Note("torch", f"cannot be watched ({roads.watch.blind}); MACs count as fvcore sees them", "", doubt=True)
    if roads.failure or roads.watch.blind:
        return
    for name, part in roads.parts.items():
        traced, total = roads.traced(name), roads.total(name)
        what, more = type(part).__name__, abs(total - traced)
        if total and not traced:
            yield _Note(what, "fvcore sees no MACs in it; {n} counted as torch executes them", name, total)
        elif total != traced:
            fewer = "fewer" if traced < total else "more"
            yield _Note(what, f"fvcore sees {{n}} MACs {fewer} than torch executes; those executed count", name, more)


def _hidden_notes(roads: _Roads) -> Iterator[_Note]:
    """Layers whose MACs no road sees are counted from their shapes, in place."""
    for name, part in roads.parts.items():
        weight, below = _weight(part), f"{name}." if name else ""
        is_layer = isinstance(part, nn.modules.conv._ConvNd | nn.Linear) or name in roads.bits.reasons
        with_macs = any(roads.total(other) for other in roads.parts if other == name or other.startswith(below))
        if weight is None or with_macs or not roads.seen(name).shapes or not (is_layer or roads.is_opaque(name)):
            continue
        shapes = roads.seen(name).shapes
        macs = [_macs_of_shapes(part, weight, before, after) for before, after in shapes]
        what = type(part).__name__
        if all(macs):
            n = sum(macs)
            roads.macs[name]["linear" if weight.dim() == 2 else "conv"] = n
            yield _Note(what, "no MACs are seen in it; {n} counted from its weight and output shape", name, n)
        else:
            yield _Note(what, "has {n} weights, but no MACs are seen in it", name, weight.numel(), doubt=True)


def _macs_of_shapes(part: nn.Module, weight: Tensor, before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """MACs of one call, from the shapes of its input and output; 0 where they are not those of a convolution or linear
    layer with this weight."""
    if not before or not after:
        return 0
    if weight.dim() == 2:
        fits = (after[-1], before[-1]) == tuple(weight.shape)
        return prod(after) * before[-1] if fits else 0
    if len(before) != weight.dim() or len(after) != weight.dim():
        return 0
    transposed = isinstance(part, nn.modules.conv._ConvTransposeNd)
    fits = (
        before[1] == weight.shape[0] if transposed else after[1] == weight.shape[0] and not before[1] % weight.shape[1]
    )
    return after[0] * prod((before if transposed else after)[2:]) * weight.numel() if fits else 0


def _value_notes(roads: _Roads) -> Iterator[_Note]:
    """Do the operands of binary MACs take two values, and those of float ones more? The input is random, the weights
    are as they are."""
    for name, part in roads.parts.items():
        what, bits, (weights, activations) = type(part).__name__, roads.bits(name, part), roads.seen(name).levels
        if bits == (1, 1) and 4 in (weights, activations):
            many = " and ".join(t for t, n in (("weights", weights), ("activations", activations)) if n == 4)
            yield _Note(what, f"counts as binary, but its {many} take more than two values here", name, doubt=True)
        elif bits == FLOAT and (weights, activations) == (2, 2):
            text = "counts as float, but its weights and activations take two values: --binary counts it as binary"
            yield _Note(what, text, name, doubt=True)


def _call_notes(roads: _Roads) -> Iterator[_Note]:
    """Modules with weights that no call reaches."""
    for name, part in roads.parts.items():
        n = sum(p.numel() for p in part.parameters(recurse=False))
        held = isinstance(part, nn.ParameterList | nn.ParameterDict | torch.jit.ScriptModule)
        if n and not held and not roads.seen(name).shapes and not roads.watch.blind:
            text = "never called: its {n} weights count, its operations do not (unless another module does them)"
            yield _Note(type(part).__name__, text, name, n, doubt=name in roads.bits.reasons)


def _operation_notes(roads: _Roads) -> Iterator[_Note]:
    """What fvcore does not know, and what torch executes that nobody knows."""
    covered = set()
    for name, operations in roads.trace.unsupported.items():
        for operation, times in operations.items():
            text, doubt = _judged(operation, name, roads)
            yield _Note(operation, text, name, times=times, doubt=doubt)
            covered.update([name] if doubt else [])
    for name, seen in roads.watch.seen.items():
        for operation, times in seen.unknown.items():
            if name not in covered:
                yield _Note(operation, _missing(operation), name, times=times, doubt=True)


def _judged(operation: str, name: str, roads: _Roads) -> tuple[str, bool]:
    """Words for an operation that fvcore does not know, and whether they are a doubt."""
    namespace, _, plain = operation.partition("::")
    if namespace == "aten" and _is_harmless(plain):
        return "no MACs", False
    if roads.total(name) > roads.traced(name) and not roads.watch.blind:
        return "fvcore does not see its MACs; they count as torch executes them", False
    if operation.startswith(_FOREIGN):
        return _judged_foreign(name, roads)
    if namespace == "aten" and not roads.is_opaque(name) and not roads.watch.blind:
        return "no MACs", False
    return _missing(operation), True


def _judged_foreign(name: str, roads: _Roads) -> tuple[str, bool]:
    if roads.is_opaque(name) and not roads.total(name):
        return "opaque: MACs inside it are not seen", True
    if roads.is_opaque(name):
        return "opaque, but its layer shows MACs of its own", False
    return "no MACs inside it", False


def _missing(operation: str) -> str:
    namespace, _, plain = operation.partition("::")
    if namespace == "aten" and set(plain.strip("_").split("_")) & _WITH_MACS:
        return "has MACs that are not counted"
    return "unknown: may hide MACs"


# Rows


def _finished(row: Count, roads: _Roads, own: Sequence[nn.Parameter], storage: Storage) -> Count:
    """The row with its output shape, the name that it is shown under, and its weights at their bits."""
    part, shapes = roads.parts[row.name], roads.seen(row.name).shapes
    name, output = row.name or f"({type(part).__name__})", shapes[-1][1][1:] if shapes else ()
    bits = roads.bits(row.name, part)[0]
    if bits == FLOAT_BITS:
        return replace(row, name=name, output=output)
    used = bool(row.macs) or not shapes or isinstance(part, nn.utils.parametrize.ParametrizationList)
    largest = max(own, key=Tensor.numel, default=None)
    by_bits = merged(
        (bits if used and _is_kernel(p, p is largest and bool(row.macs)) else FLOAT_BITS, p.numel()) for p in own
    )
    return replace(row, name=name, output=output, weights=by_bits, size_bytes=size_bytes(by_bits, storage))


def _is_kernel(parameter: nn.Parameter, is_main: bool) -> bool:
    """Is it what multiplies, not a bias or a scale a channel (which may have the dimensions of a map)?"""
    return parameter.dim() > 1 and (is_main or parameter.numel() > max(parameter.shape))


def _owned(parts: Mapping[str, nn.Module]) -> dict[str, list[nn.Parameter]]:
    """Each parameter under the first module that has it."""
    counted: set[int] = set()
    owned: dict[str, list[nn.Parameter]] = {}
    for name, part in parts.items():
        owned[name] = [p for p in part.parameters(recurse=False) if id(p) not in counted]
        counted.update(map(id, owned[name]))
    return owned
