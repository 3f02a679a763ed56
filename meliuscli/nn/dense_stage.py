"""A stage of dense blocks as one operation for training on the CPU, where its own batch norms and concatenations cost
more than its convolutions.

One buffer holds the stage's map. A channel's mean and variance are computed once: every later batch norm of the stage
sees the same values. Only the buffer and the dense convolutions' results are kept for the gradient; signs are computed
again. The gradient of batch norm is linear in that of its result, so what all batch norms send back to a channel is
summed first and corrected for mean and variance once.

Counts are held without their constant K / 2, which batch norm takes away anyway: bfloat16 then holds all whole numbers
up to 256 exactly, and that is what counts nearly always are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from meliuscli.nn.binary_conv import BinaryConv2d, centred_counts, convolution_gradients, element_type
from meliuscli.nn.direct import direct_gradients, direct_pays
from meliuscli.nn.kernels import CHUNKS, Kernels, kernels
from meliuscli.nn.tiles import tiled_gradients, tiles_pay


@dataclass(frozen=True, slots=True)
class Unit:
    """A batch norm and a binary convolution; ``adds`` to the newest channels or appends new ones."""

    bn: nn.BatchNorm2d
    conv: BinaryConv2d
    adds: bool


def can_fuse(x: Tensor, units: list[Unit]) -> bool:
    """Whether ``run_stage`` can stand for the modules: training on the CPU, not under ``torch.compile``, modules as this
    project builds them, more than one value a channel, a C compiler."""
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and element_type(x) in (torch.float32, torch.float64, torch.bfloat16)
        and x.numel() > x.shape[1]
        and len({unit.bn.eps for unit in units}) == 1
        and all(_is_usual(unit) for unit in units)
        and kernels() is not None
    )


def _is_usual(unit: Unit) -> bool:
    bn, conv = unit.bn, unit.conv
    usual = type(bn) is nn.BatchNorm2d and type(conv) is BinaryConv2d
    return usual and conv.clip is not None and bn.training and bn.momentum is not None and bn.running_mean is not None


def run_stage(x: Tensor, units: list[Unit]) -> Tensor:
    """(N, C, H, W) -> (N, C + all growth, H, W), in channels-last memory. Running statistics are updated."""
    parameters = [p for unit in units for p in (unit.bn.weight, unit.bn.bias, unit.conv.weight)]
    return _Stage.apply(x, units, element_type(x), *parameters)  # type: ignore[no-untyped-call, no-any-return]


class _Channels:
    """Statistics of channels, in double: mean, variance, and how far the true value lies above the held one."""

    def __init__(self, num: int) -> None:
        self.mean, self.variance, self.offset = (torch.zeros(num, dtype=torch.float64) for _ in range(3))


@dataclass(slots=True)
class _Kept:
    """What a unit keeps for its gradient: BN(x) = x * scale + shift, and the newest channels as they were."""

    mean: Tensor
    inverse: Tensor
    scale: Tensor
    shift: Tensor
    fresh: Tensor | None


@dataclass(frozen=True, slots=True)
class _Sink:
    """Where the gradient of channels ``start`` to ``end`` of a unit's input goes: sums like the map ``x``, and parts of
    the sums that make the gradients of gamma and beta."""

    into: Tensor
    x: Tensor
    start: int
    end: int
    parts: Tensor


class _Stage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, units: list[Unit], dtype: torch.dtype, *parameters: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            work = _Work(x.shape, units, dtype)
            out = work.forward(x)
        ctx.work = work
        ctx.save_for_backward(*work.hand_over(), *parameters)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        work: _Work = ctx.work
        work.take_back(ctx.saved_tensors)
        with torch.autocast("cpu", enabled=False):
            gradients = work.backward(grad, ctx.needs_input_grad[0])
        work.hand_over()
        return gradients


class _Work:
    """One forward and backward pass. Maps are (N * H * W, channels)."""

    def __init__(self, shape: torch.Size, units: list[Unit], dtype: torch.dtype) -> None:
        made = kernels()
        assert made is not None
        self.call: Kernels = made
        self.units, self.dtype = units, dtype
        self.real = torch.float64 if dtype == torch.float64 else torch.float32
        self.batch, self.entering, self.height, self.width = shape
        self.rows = self.batch * self.height * self.width
        self.channels = self.entering + sum(unit.conv.weight.shape[0] for unit in units if not unit.adds)
        self.kept: list[_Kept] = []

    def forward(self, x: Tensor) -> Tensor:
        self.input_type = x.dtype
        self.held = torch.empty(self.rows, self.channels, dtype=self.dtype)
        self.known = _Channels(self.channels)
        filled = self.entering
        self._store(0, self._as_rows(x), None)
        fresh: Tensor | None = None
        for index, unit in enumerate(self.units):
            counts = self._unit_forward(unit, filled, fresh)
            growth, offset = counts.shape[1], unit.conv.weight[0].numel() / 2
            if unit.adds:
                self.known.offset[filled - growth : filled] += offset
                self._store(filled - growth, fresh, counts)
                fresh = None
                continue
            self.known.offset[filled : filled + growth] = offset
            followed = index + 1 < len(self.units) and self.units[index + 1].adds
            fresh = counts if followed else None
            self._store(filled, counts, None, moments_only=followed)
            filled += growth
        out = self.held.to(self.real) if self.dtype == torch.bfloat16 else self.held
        return self._as_map(out + self.known.offset.to(self.real))

    def hand_over(self) -> list[Tensor]:
        """The maps that the gradient needs, for autograd to keep in this object's place: it frees them in time."""
        maps = [self.held, *(kept.fresh for kept in self.kept if kept.fresh is not None)]
        del self.held
        for kept in self.kept:
            kept.fresh = None
        return maps

    def take_back(self, maps: Sequence[Tensor]) -> None:
        """The opposite of ``hand_over``; what lies behind the maps is left alone."""
        self.held, *fresh = maps
        for unit, kept in zip(self.units, self.kept, strict=True):
            kept.fresh = fresh.pop(0) if unit.adds else None

    def _unit_forward(self, unit: Unit, filled: int, fresh: Tensor | None) -> Tensor:
        known, bn = self.known, unit.bn
        mean, variance = known.mean[:filled].clone(), known.variance[:filled]
        inverse = torch.rsqrt(variance + bn.eps)
        scale = bn.weight.double() * inverse
        shift = bn.bias.double() - mean * scale
        kept = _Kept(mean.to(self.real), inverse, scale.to(self.real), shift.to(self.real), fresh)
        self.kept.append(kept)
        self._update_running(bn, mean + known.offset[:filled], variance)
        if self.call.has_xnor:
            return self._xnor(unit.conv, kept, filled)
        signs = torch.empty(self.rows, filled, dtype=torch.uint8)
        self._binarize("bytes", signs, kept)
        latent = unit.conv.weight.detach()
        return self._as_rows(centred_counts(self._as_map(signs), latent, unit.conv, self.dtype))

    def _xnor(self, conv: BinaryConv2d, kept: _Kept, filled: int) -> Tensor:
        """The convolution on packed bits."""
        latent, outputs, words = conv.weight.detach().to(self.real), conv.weight.shape[0], -(-filled // 32)
        lanes = -(-outputs // self.call.lanes) * self.call.lanes
        signs = torch.empty(self.rows, words, dtype=torch.int32)
        fresh, old = kept.fresh, filled - (0 if kept.fresh is None else kept.fresh.shape[1])
        vectors = kept.scale, kept.shift
        self.call("pack", self.dtype, signs, words, self.held, self.channels, fresh, old, *vectors, self.rows, filled)
        weights = torch.empty(9, words, lanes, dtype=torch.int32)
        by_output, by_channel, _, by_tap = latent.stride()
        strides = by_output, by_channel, by_tap
        self.call("pack_weights", self.dtype, weights, words, lanes, latent, outputs, filled, *strides)
        counts = torch.empty(self.rows, outputs, dtype=self.dtype)
        shape = self.batch, self.height, self.width, words, lanes, outputs, conv.dilation
        self.call("xnor", self.dtype, counts, signs, weights, *shape, latent[0].numel() / 2)
        return counts

    def _update_running(self, bn: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
        assert bn.running_mean is not None
        assert bn.running_var is not None
        assert bn.num_batches_tracked is not None
        assert bn.momentum is not None
        bn.running_mean.lerp_(mean.to(bn.running_mean.dtype), bn.momentum)
        unbiased = variance * (self.rows / max(1, self.rows - 1))
        bn.running_var.lerp_(unbiased.to(bn.running_var.dtype), bn.momentum)
        bn.num_batches_tracked += 1

    def backward(self, grad: Tensor, needs_input: bool) -> tuple[Tensor | None, ...]:
        grads: list[tuple[Tensor, Tensor, Tensor]] = []
        outer = self._as_rows(grad)
        self.sums = torch.zeros(self.rows, self.channels, dtype=self.real)
        self.total, self.moment = (torch.zeros(self.channels, dtype=torch.float64) for _ in range(2))
        self.inverse = torch.rsqrt(self.known.variance + self.units[0].bn.eps)
        filled = self.channels
        whole: Tensor | None = None
        for unit, kept in zip(reversed(self.units), reversed(self.kept), strict=True):
            growth = unit.conv.weight.shape[0]
            if whole is None:
                whole = self._finish(outer, filled - growth, filled)
            if unit.adds:
                whole, found = self._added_backward(unit, kept, whole, filled)
            else:
                filled -= growth
                found, _ = self._unit_backward(unit, kept, whole, filled)
                whole = None
            grads.append(found)
        entering = self._as_map(self._finish(outer, 0, self.entering)).to(self.input_type) if needs_input else None
        del self.sums
        return entering, None, None, *(g for found in reversed(grads) for g in found)

    def _added_backward(
        self, unit: Unit, kept: _Kept, whole: Tensor, filled: int
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """The unit's gradients, and the gradient of the newest channels as they were before it."""
        growth = whole.shape[1]
        old = filled - growth
        found, (sums, total, moment) = self._unit_backward(unit, kept, whole, filled, old)
        assert sums is not None
        assert kept.fresh is not None
        terms = self._terms(kept.inverse[old:], kept.mean[old:].double(), total, moment)
        return self._combine(whole, sums, kept.fresh, *terms), found

    def _unit_backward(
        self, unit: Unit, kept: _Kept, whole: Tensor, filled: int, old: int | None = None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor | None, Tensor, Tensor]]:
        """Gradients of gamma, beta and the weights; and, from channel ``old`` on, what the batch norm sends back."""
        old = filled if old is None else old
        sums = torch.zeros(self.rows, filled - old, dtype=self.real) if old < filled else None
        sinks = [
            _Sink(into, x, start, end, torch.zeros(CHUNKS, 2, end - start, dtype=self.real))
            for into, x, start, end in ((self.sums, self.held, 0, old), (sums, kept.fresh, old, filled))
            if into is not None and x is not None
        ]
        grad_weight = self._convolution_backward(unit, kept, whole, sinks).to(unit.conv.weight.dtype)
        total, moment = torch.cat([sink.parts.sum(0, dtype=torch.float64) for sink in sinks], dim=1)
        grad_gamma, grad_beta = (moment * kept.inverse).to(unit.bn.weight.dtype), total.to(unit.bn.weight.dtype)
        total, moment = total * unit.bn.weight.double(), moment * unit.bn.weight.double()
        self.total[:old] += total[:old]
        self.moment[:old] += moment[:old]
        return (grad_gamma, grad_beta, grad_weight), (sums, total[old:], moment[old:])

    def _convolution_backward(self, unit: Unit, kept: _Kept, whole: Tensor, sinks: list[_Sink]) -> Tensor:
        """The gradient of the weights; that of the input's signs goes to ``sinks``."""
        conv, latent = unit.conv, unit.conv.weight.detach()
        size = self.batch, self.height, self.width

        def send(kernel: str, sink: _Sink, grad: Tensor, *place: Tensor | int) -> None:
            self._send(kernel, unit, kept, grad, sink, *place)

        if direct_pays(self.call, conv, self.dtype):
            found, vector = [], self.call.vector_bytes
            for sink in sinks:
                part, pass_on = latent[:, sink.start : sink.end].to(self.real), partial(send, "direct", sink, whole)
                found.append(direct_gradients(whole, part, size, conv.dilation, vector, pass_on))
            return torch.cat(found, dim=1)
        signs = torch.empty(self.rows, latent.shape[1], dtype=self.dtype)
        self._binarize("bits", signs, kept)
        if tiles_pay(conv, self.height, self.width):

            def send_planes(planes: Tensor, *place: int) -> None:
                for sink in sinks:
                    send("accumulate_planes", sink, planes[..., sink.start :], *place)

            return tiled_gradients(self.call, whole, signs, latent.to(self.real), size, send_planes)
        grad_input, grad_weight = convolution_gradients(self._as_map(whole), self._as_map(signs), latent, conv)
        grad_rows = self._as_rows(grad_input)
        for sink in sinks:
            send("accumulate", sink, grad_rows[:, sink.start :], self.rows)
        return grad_weight

    def _send(self, kernel: str, unit: Unit, kept: _Kept, grad: Tensor, sink: _Sink, *place: Tensor | int) -> None:
        """Add what batch norm and sign send back to the channels of ``sink``."""
        part = slice(sink.start, sink.end)
        gamma = unit.bn.weight.detach().to(self.real)
        vectors = [v[part] for v in (kept.scale, kept.shift, kept.mean, gamma)]
        maps = (sink.into, sink.into.shape[1], grad, grad.stride(-2), sink.x, sink.x.shape[1])
        assert unit.conv.clip is not None
        clip = float(unit.conv.clip)
        self.call(kernel, self.dtype, *maps, *vectors, clip, sink.parts, *place, sink.end - sink.start)

    def _terms(self, inverse: Tensor, mean: Tensor, total: Tensor, moment: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """p, q, r of batch norm's gradient p * sums + q * x + r."""
        q = inverse.pow(3) * moment / -self.rows
        r = -inverse * total / self.rows - q * mean
        return inverse.to(self.real), q.to(self.real), r.to(self.real)

    def _finish(self, outer: Tensor, start: int, end: int) -> Tensor:
        """The whole gradient of channels once all that saw them have sent theirs."""
        part = slice(start, end)
        terms = self._terms(self.inverse[part], self.known.mean[part], self.total[part], self.moment[part])
        return self._combine(outer[:, part], self.sums[:, part], self.held[:, part], *terms)

    def _combine(self, base: Tensor, sums: Tensor, x: Tensor, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        num = x.shape[1]
        to = torch.empty(self.rows, num, dtype=self.dtype)
        maps = (base, base.stride(0), sums, sums.stride(0), x, x.stride(0))
        self.call("finish", self.dtype, to, *maps, p, q, r, self.rows, num)
        return to

    def _binarize(self, kernel: str, to: Tensor, kept: _Kept) -> None:
        filled = to.shape[1]
        old = filled if kept.fresh is None else filled - kept.fresh.shape[1]
        for x, start, end in ((self.held, 0, old), (kept.fresh, old, filled)):
            if x is not None:
                vectors = kept.scale[start:end], kept.shift[start:end]
                into = to[:, start:]
                self.call(kernel, self.dtype, into, filled, x, x.shape[1], *vectors, self.rows, end - start)

    def _store(self, start: int, x: Tensor | None, added: Tensor | None, moments_only: bool = False) -> None:
        """Hold ``x`` (plus ``added``) from channel ``start`` on and take its moments; or its moments alone."""
        assert x is not None
        end = start + x.shape[1]
        to = None if moments_only else self.held[:, start:]
        moments = self.known.mean[start:end], self.known.variance[start:end]
        self.call("store_moments", self.dtype, to, self.channels, x, added, *moments, self.rows, end - start)

    def _as_rows(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).permute(0, 2, 3, 1).reshape(self.rows, x.shape[1]).contiguous()

    def _as_map(self, rows: Tensor) -> Tensor:
        return rows.view(self.batch, self.height, self.width, rows.shape[1]).permute(0, 3, 1, 2)
