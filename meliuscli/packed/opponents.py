"""What packed kernels are measured against: torch as it is, torch at its best (compiled, in bf16, in int8), the float
twin, and the binary convolutions alone in oneDNN."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from meliuscli.nn.binary_conv import BinaryConv2d, integer_convolution
from meliuscli.nn.compiled import compile_quietly
from meliuscli.nn.quantized import QuantConv2d
from meliuscli.nn.quantizers import ApproxSign, SteSign
from meliuscli.packed.convs import binary_weights, channels_last, replace_module

Run = Callable[[], object]


class PlainSign(nn.Module):
    """Sign in operations that torch.compile can fuse."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


class PlainConv2d(nn.Module):
    """A binary convolution in float arithmetic with its weights' signs made beforehand."""

    def __init__(self, conv: BinaryConv2d | QuantConv2d) -> None:
        super().__init__()
        self.of_signs = isinstance(conv, QuantConv2d)
        if isinstance(conv, QuantConv2d):
            weight, bias = conv.quantizer(conv.weight), None
            self.padding, self.pad_value = conv.padding, conv.pad_value
            self.activation = PlainSign() if isinstance(conv.activation, SteSign | ApproxSign) else conv.activation
        else:
            weight = torch.where(conv.weight >= 0, 1.0, -1.0)
            bias = nn.Parameter((weight[0].numel() - weight.sum((1, 2, 3))) / 2, requires_grad=False)
            self.padding, self.pad_value = conv.dilation, 0.0
            self.activation = nn.Identity()
        self.stride, self.dilation = conv.stride, conv.dilation
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        x, padding = self.activation(x) if self.of_signs else (x >= 0).to(x.dtype), self.padding
        if padding and self.pad_value:
            x, padding = F.pad(x, (padding,) * 4, value=self.pad_value), 0
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation)


class Int8Conv2d(nn.Module):
    """A binary convolution in oneDNN's int8 arithmetic, which is exact for it, with float32 results."""

    def __init__(self, conv: BinaryConv2d | QuantConv2d) -> None:
        super().__init__()
        same = PlainConv2d(conv)
        # Signs as 0 and 2 about a zero point of 1, so that zero padding is one too; bits as they are.
        self.step, self.zero = (2, 1) if same.of_signs else (1, 0)
        self.border = self.zero + int(same.pad_value) if same.of_signs and same.padding and same.pad_value else None
        self.before = same.padding if self.border is not None else 0
        self.around = ([same.stride] * 2, [same.padding - self.before] * 2, [same.dilation] * 2, 1)
        self.scale = same.weight.abs().amax((1, 2, 3))
        self.zeros, self.bias = torch.zeros(len(self.scale), dtype=torch.int32), same.bias
        signs = torch.where(same.weight > 0, 1, -1).to(torch.int8)
        self.packed = torch.ops.onednn.qconv_prepack(signs, self.scale, 1.0, self.zero, *self.around)
        self.weight, self.stride = torch.empty(signs.shape, device="meta"), same.stride

    def forward(self, x: Tensor) -> Tensor:
        bytes_ = (x >= 0).to(torch.uint8) * self.step
        if self.border is not None:
            bytes_ = F.pad(bytes_, (self.before,) * 4, value=self.border)
        weights, as_floats = (self.packed, self.scale, self.zeros, self.bias), (1.0, 0, torch.float32)
        out: Tensor = torch.ops.onednn.qconv2d_pointwise(
            bytes_, 1.0, self.zero, *weights, *self.around, *as_floats, "none", [], ""
        )
        return out


@torch.no_grad()
def plain(network: nn.Module, conv: Callable[[BinaryConv2d | QuantConv2d], nn.Module] = PlainConv2d) -> nn.Module:
    """The same function in operations that torch.compile sees through, its binary convolutions as ``conv`` makes them;
    channels last."""
    copied = copy.deepcopy(network)
    for name, module in list(copied.named_modules()):
        if binary_weights(module) is not None:
            assert isinstance(module, BinaryConv2d | QuantConv2d)
            replace_module(copied, name, conv(module))
    for name, module in list(copied.named_modules()):
        if isinstance(module, SteSign | ApproxSign):
            replace_module(copied, name, PlainSign())
    return channels_last(copied)


def float_twin(network: nn.Module) -> nn.Module:
    """The same network with its signs removed: float convolutions of the same shapes; channels last."""
    copied = copy.deepcopy(network)
    for name, module in list(copied.named_modules()):
        if (weights := binary_weights(module)) is None:
            continue
        assert isinstance(module, BinaryConv2d | QuantConv2d)
        outputs, inputs, kernel = weights.outputs, weights.channels, weights.window.kernel
        padding = module.dilation if isinstance(module, BinaryConv2d) else module.padding
        twin = nn.Conv2d(inputs, outputs, kernel, module.stride, padding, module.dilation, bias=False)
        replace_module(copied, name, twin)
    for name, module in list(copied.named_modules()):
        if isinstance(module, SteSign | ApproxSign):
            replace_module(copied, name, nn.Identity())
    return channels_last(copied).eval()


def compiled(network: nn.Module, images: Tensor, dtype: torch.dtype) -> Run:
    """As ``compiled_call``, channels last."""
    return compiled_call(network, ((images.contiguous(memory_format=torch.channels_last),), {}), dtype)


def compiled_call(network: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]], dtype: torch.dtype) -> Run:
    """``torch.compile`` with its weights frozen, and floats of the call as ``dtype``; compiled when this returns.

    Raises ``RuntimeError`` and its kin where torch cannot (no C++ compiler, say)."""
    import torch._inductor.config as inductor

    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    module, (args, keywords) = copy.deepcopy(network).to(dtype), tree_map(cast, call)
    with inductor.patch(freezing=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function = compile_quietly(module)
        for _ in range(2):
            function(*args, **keywords)
    return lambda: function(*args, **keywords)


def int8(network: nn.Module) -> nn.Module:
    """As ``plain``, with the binary convolutions in int8. Raises ``RuntimeError`` where torch cannot."""
    if not integer_convolution():
        raise RuntimeError("torch has no fast int8 convolution for this processor")
    return plain(network, Int8Conv2d)


def conv_runs(network: nn.Module, images: Tensor) -> tuple[dict[str, Run], dict[str, str]]:
    """The network's binary convolutions, all of them after each other, as float and int8 ones in oneDNN, weights
    prepacked and channels last (as compiled networks call it), by format; and why a format is missing."""
    shapes: list[tuple[Tensor, Tensor, int, int, int]] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        assert isinstance(module, BinaryConv2d | QuantConv2d)
        padding = module.padding if isinstance(module, QuantConv2d) else module.dilation
        filters = module.quantizer(module.weight) if isinstance(module, QuantConv2d) else module.weight
        shapes.append((inputs[0], filters.detach(), module.stride, padding, module.dilation))

    convs = [module for module in network.modules() if binary_weights(module) is not None]
    handles = [conv.register_forward_hook(watch) for conv in convs]
    network(images)
    for handle in handles:
        handle.remove()
    runs: dict[str, Run] = {}
    missing: dict[str, str] = {}
    for name, make in (("fp32", _float_conv), ("bf16", _bfloat_conv), ("int8", _int8_conv)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's quantized tensors are deprecated
                runs[name] = _one_after_another([make(*shape) for shape in shapes])
                runs[name]()
        except (RuntimeError, AttributeError, NotImplementedError) as error:
            runs.pop(name, None)
            missing[f"convolutions in {name}"] = str(error).splitlines()[0]
    return runs, missing


def _one_after_another(runs: list[Run]) -> Run:
    def run() -> None:
        for one in runs:
            one()

    return run


def _float_conv(
    x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int, dtype: torch.dtype = torch.float32
) -> Run:
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    around = ([padding] * 2, [stride] * 2, [dilation] * 2, 1)
    ready = torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to(dtype).to_mkldnn(), *around, list(x.shape))  # type: ignore[call-arg]
    return lambda: torch.ops.mkldnn._convolution_pointwise(x, ready, None, *around, "none", [], "")


def _bfloat_conv(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Run:
    return _float_conv(x, weight, stride, padding, dilation, torch.bfloat16)


def _int8_conv(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Run:
    torch.backends.quantized.engine = "onednn"
    quantized = torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)
    ready = torch.ops.quantized.conv2d_prepack(quantized, None, [stride] * 2, [padding] * 2, [dilation] * 2, 1)
    given = torch.quantize_per_tensor(x.contiguous(memory_format=torch.channels_last), 0.1, 64, torch.quint8)
    return lambda: torch.ops.quantized.conv2d(given, ready, 0.1, 64)
