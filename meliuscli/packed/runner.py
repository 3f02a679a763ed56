"""``pack(network, spec)``: a network ready to run bit-packed on this CPU."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from meliuscli.arch.families.dense import DenseFamilySpec, runs_whole
from meliuscli.arch.plan import FLOAT_BITS
from meliuscli.arch.spec import ArchSpec
from meliuscli.errors import BadInputError
from meliuscli.nn.build import build
from meliuscli.packed.convs import PackedConv2d, fold_convs, pack_convs
from meliuscli.packed.dense import DensePlan, Tensors, fold_dense
from meliuscli.packed.isa import Isa, choose_isa
from meliuscli.packed.program import Crew, Kind, Program, clock
from meliuscli.packed.steps import BinaryWeights

PartSeconds = dict[tuple[str, Kind], float]
"""Seconds by part of the network (stem, stage, transition, head) and kind of work, by ``program.clock``."""


class PackedNetwork(ABC):
    """(N, C, H, W) float images -> (N, num_classes) logits. One call at a time; others wait.

    ``num_convs`` binary convolutions are packed; ``left`` names those of few bits that run in torch."""

    num_convs: int
    left: tuple[str, ...] = ()

    def __init__(self, spec: ArchSpec, isa: Isa, threads: int) -> None:
        if threads < 1:
            raise BadInputError(f"threads must be at least 1, not {threads}")
        self.spec, self.isa, self.threads = spec, isa, threads
        self._lock, self._crew = threading.Lock(), Crew(threads)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Raises ``BadInputError`` for images of another shape or type, or with values that are not finite."""
        images = checked_images(images, self.spec)
        with self._lock:
            return self._run(images)

    @torch.inference_mode()
    def part_seconds(self, images: Tensor) -> PartSeconds:
        """One call, timed part by part."""
        images = checked_images(images, self.spec)
        with self._lock:
            return self._time(images)

    @abstractmethod
    def convolutions(self) -> Callable[[], object]:
        """A function that does the binary convolutions alone, on what the last call left in the maps."""

    @abstractmethod
    def _run(self, images: Tensor) -> Tensor: ...

    @abstractmethod
    def _time(self, images: Tensor) -> PartSeconds: ...


class PackedDense(PackedNetwork):
    """MeliusNet and BinaryDenseNet, all in kernels of our own. ``tensors`` and ``spec`` are all there is to it: what
    is made of them again predicts the same to the last bit."""

    spec: DenseFamilySpec

    def __init__(self, spec: DenseFamilySpec, tensors: Tensors, isa: Isa, threads: int = 1) -> None:
        super().__init__(spec, isa, threads)
        self.tensors = tensors
        self.num_convs = sum(name.endswith(".words") for name in tensors)
        self._batch = 0

    def plan(self, batch: int) -> tuple[DensePlan, Program]:
        """The steps for a batch, made when another one was run before."""
        if batch != self._batch:
            self._plan = DensePlan(self.spec, self.tensors, self.isa, batch, self.threads)
            self._program, self._batch = Program(self.isa, self._plan.steps, self._crew), batch
        return self._plan, self._program

    def convolutions(self) -> Callable[[], object]:
        return Program(self.isa, [step for step in self._plan.steps if step.kind == "binary"], self._crew).run

    def _enter(self, images: Tensor) -> tuple[DensePlan, Program]:
        plan, program = self.plan(len(images))
        plan.images[..., : self.spec.input_size] = images.numpy()
        return plan, program

    def _run(self, images: Tensor) -> Tensor:
        plan, program = self._enter(images)
        program.run()
        return torch.from_numpy(plan.logits.data[:, 0, 0, : self.spec.num_classes].copy())

    def _time(self, images: Tensor) -> PartSeconds:
        plan, program = self._enter(images)
        seconds: PartSeconds = {}
        now = clock(self.threads)
        for key, steps in groupby(range(len(plan.steps)), lambda i: (plan.steps[i].stage, plan.steps[i].kind)):
            numbers = list(steps)
            started = now()
            program.run(numbers[0], numbers[-1] + 1)
            seconds[key] = seconds.get(key, 0.0) + now() - started
        return seconds


class PackedModule(PackedNetwork):
    """The other families: binary convolutions in our kernels, what is between them in torch. ``weights`` are those of the
    binary convolutions by name, and of ``network`` all else counts."""

    def __init__(
        self,
        network: nn.Module,
        spec: ArchSpec,
        isa: Isa,
        threads: int = 1,
        weights: Mapping[str, BinaryWeights] | None = None,
    ) -> None:
        super().__init__(spec, isa, threads)
        self.network = network
        self.weights = fold_convs(network) if weights is None else weights
        self.module, packed, left = pack_convs(network, self.weights, isa, self._crew)
        self.packed, self.left, self.num_convs = tuple(packed), tuple(left), len(packed)
        if not packed:
            raise _nothing_to_pack(spec, bool(left))

    def convolutions(self) -> Callable[[], object]:
        convs = [module for module in self.module.modules() if isinstance(module, PackedConv2d)]
        return Program(self.isa, [conv.step for conv in convs], self._crew).run

    def _run(self, images: Tensor) -> Tensor:
        return self.module(images.contiguous(memory_format=torch.channels_last)).clone()  # type: ignore[no-any-return]

    def _time(self, images: Tensor) -> PartSeconds:
        seconds: PartSeconds = {}
        now = clock(self.threads)
        x = images.contiguous(memory_format=torch.channels_last)
        for name, part in self.module.named_children():
            convs = [module for module in part.modules() if isinstance(module, PackedConv2d)]
            for conv in convs:
                conv.pack_seconds = conv.conv_seconds = 0.0
            started = now()
            x = part(x)
            whole = now() - started
            binary, pack = sum(c.conv_seconds for c in convs), sum(c.pack_seconds for c in convs)
            times: dict[Kind, float] = {"binary": binary, "pack": pack, "float": whole - binary - pack}
            seconds |= {(name, kind): value for kind, value in times.items() if value}
        return seconds


def pack(network: nn.Module, spec: ArchSpec, isa: str | None = None, threads: int = 1) -> PackedNetwork:
    """A network of ``spec`` in eval mode, packed for this machine (or for an instruction set of ``isa.ISAS``).

    Raises ``MissingError`` without llvmlite, ``BadInputError`` for a module that is not ``build(spec)``'s, one that is
    in training mode, and one without anything to pack."""
    chosen = choose_isa(isa)
    _check_network(network, spec)
    if runs_whole(spec):
        return PackedDense(spec, fold_dense(network, spec), chosen, threads)
    return PackedModule(network, spec, chosen, threads)


def require_binary(spec: ArchSpec) -> None:
    """Raise ``BadInputError`` for a spec without a convolution of one bit on both sides."""
    bits = {(layer.weight_bits, layer.activation_bits) for layer in spec.layers() if layer.kind == "conv"}
    if (1, 1) not in bits:
        raise _nothing_to_pack(spec, bits != {(FLOAT_BITS, FLOAT_BITS)})


def _nothing_to_pack(spec: ArchSpec, few_bits: bool) -> BadInputError:
    what = "its convolutions have more than one bit" if few_bits else "it has no binary convolution"
    return BadInputError(f"nothing of this {spec.family} can be packed: {what}")


def _check_network(network: nn.Module, spec: ArchSpec) -> None:
    with torch.random.fork_rng(devices=[]):
        expected = build(spec)

    def structure(module: nn.Module) -> tuple[object, ...]:
        kinds = [(name, type(part), _settings(part)) for name, part in module.named_modules()]
        return kinds, [(name, tensor.shape, tensor.dtype) for name, tensor in module.state_dict().items()]

    if structure(network) != structure(expected):
        raise BadInputError("the module is not a network of this spec", "build it with meliuscli.nn.build.build(spec)")
    if any(module.training for module in network.modules()):
        raise BadInputError("the network is in training mode", "call its eval() first")
    if any("forward" in vars(part) for part in network.modules()):
        raise BadInputError("the network has a forward of its own, which packed kernels do not call")
    if hooked := [name for name, part in network.named_modules() if part._forward_hooks or part._forward_pre_hooks]:
        raise BadInputError(f"the network has hooks, which packed kernels do not call (at {hooked[0] or 'its top'})")
    if any(tensor.device.type != "cpu" for tensor in network.state_dict().values()):
        raise BadInputError("the network is not on the CPU")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values()):
        raise BadInputError("the network has weights or statistics that are not finite")


def _settings(part: nn.Module) -> object:
    """What a module computes with besides its tensors."""
    return part.eps if isinstance(part, nn.BatchNorm2d) else part.extra_repr()


def checked_images(images: Tensor, spec: ArchSpec) -> Tensor:
    """Float32 images of the network's shape, whatever their layout in memory."""
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.device.type != "cpu":
        raise BadInputError("images must be a float tensor on the CPU")
    if images.layout is not torch.strided:
        raise BadInputError(f"images must be a dense tensor, not {images.layout}", "call its to_dense() first")
    if images.dim() != 4 or len(images) == 0 or tuple(images.shape[1:]) != spec.input_shape:
        wanted = "x".join(map(str, spec.input_shape))
        raise BadInputError(
            f"images of shape {tuple(images.shape)}: the network takes (N, {wanted.replace('x', ', ')})"
        )
    images = images.detach().float().resolve_neg()
    # A sum is not finite when a value is not; it may also overflow, so look again. Not torch's sum: its threads would go
    # on waiting, awake, on the cores that ours are about to use.
    values = images.numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not math.isfinite(values.sum())
    if suspicious and not np.isfinite(values).all():
        raise BadInputError("images have values that are not finite (NaN or infinite)")
    return images
