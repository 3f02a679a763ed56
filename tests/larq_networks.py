"""larq-zoo's networks written down once more, in torch, on layers that number themselves as Keras numbers them: random tensors by
their names in a file, and the logits that TensorFlow gives for them. Widths are small ones. Maps lie (N, C, H, W) here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Quantizer = Callable[[Tensor], Tensor]


def sign(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


def magnitudes(kernel: Tensor, clip: float = 1.0) -> Tensor:
    """Signs times the mean magnitude of a filter."""
    kernel = kernel.clamp(-clip, clip)
    return sign(kernel) * kernel.abs().mean((0, 1, 2), keepdim=True)


def same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """TensorFlow's border: of what is needed, the odd pixel lies behind."""
    total = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)
    return F.pad(x, (total // 2, total - total // 2) * 2, value=value)


class Keras:
    """Layers, called once each, which keep their random tensors in ``tensors``; their numbers begin at ``first``."""

    def __init__(self, first: int = 0) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.first, self.made = first, Counter[str]()
        self.random = torch.Generator().manual_seed(0)

    def new(self, kind: str) -> str:
        self.made[kind] += 1
        number = self.first + self.made[kind] - 1
        return f"{kind}_{number}" if number else kind

    def weight(self, layer: str, key: str, *shape: int, positive: bool = False) -> Tensor:
        values = torch.randn(shape, generator=self.random)
        self.tensors[f"{layer}/{key}"] = values = values.square() + 0.02 if positive else values
        return values

    def conv(
        self,
        x: Tensor,
        filters: int,
        kernel: int,
        stride: int = 1,
        *,
        name: str | None = None,
        padding: str = "same",
        quantizer: Quantizer | None = None,
        inputs: Quantizer | None = None,
        pad_value: float = 0.0,
        dilation: int = 1,
        depthwise: bool = False,
        bias: bool = False,
        kind: str | None = None,
    ) -> Tensor:
        name = name or self.new(kind or ("conv2d" if quantizer is None else "quant_conv2d"))
        key, shape = ("depthwise_kernel", (x.shape[1], 1)) if depthwise else ("kernel", (x.shape[1], filters))
        weight = self.weight(name, key, kernel, kernel, *shape)
        axes = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
        weight = (weight if quantizer is None else quantizer(weight)).permute(axes)
        x = x if inputs is None else inputs(x)
        x = same(x, (kernel - 1) * dilation + 1, stride, pad_value) if padding == "same" else x
        added = self.weight(name, "bias", filters) if bias else None
        return F.conv2d(x, weight, added, stride, 0, dilation, x.shape[1] if depthwise else 1)

    def binary(self, x: Tensor, filters: int, kernel: int = 3, stride: int = 1, **others: Any) -> Tensor:
        return self.conv(x, filters, kernel, stride, **{"quantizer": sign, "inputs": sign, **others})

    def norm(
        self, x: Tensor, eps: float = 1e-3, *, name: str | None = None, scale: bool = True, shift: bool = True
    ) -> Tensor:
        name, width = name or self.new("batch_normalization"), x.shape[1]
        gamma = self.weight(name, "gamma", width) if scale else None
        beta = self.weight(name, "beta", width) if shift else None
        mean, var = self.weight(name, "moving_mean", width), self.weight(name, "moving_variance", width, positive=True)
        return F.batch_norm(x, mean, var, gamma, beta, eps=eps)

    def dense(
        self,
        x: Tensor,
        units: int,
        *,
        name: str | None = None,
        quantizer: Quantizer | None = None,
        bias: bool = True,
        kind: str | None = None,
    ) -> Tensor:
        name = name or self.new(kind or ("dense" if quantizer is None else "quant_dense"))
        kernel = self.weight(name, "kernel", x.shape[1], units)
        out = x @ (kernel if quantizer is None else quantizer(kernel))
        return out + self.weight(name, "bias", units) if bias else out

    def prelu(self, x: Tensor, name: str) -> Tensor:
        return F.prelu(x, self.weight(name, "alpha", 1, 1, x.shape[1]).flatten())

    def write(self, path: Path, above: str = "") -> None:
        """As Keras 2 saves weights; ``above`` "model_weights/" as it saves a model."""
        import h5py

        with h5py.File(path, "w") as file:
            for name, value in self.tensors.items():
                layer, _, key = name.partition("/")
                file.create_dataset(f"{above}{layer}/{layer}/{key}:0", data=value.numpy())


def max_pool(x: Tensor, kernel: int = 3, stride: int = 2, padding: str = "same") -> Tensor:
    return F.max_pool2d(same(x, kernel, stride, float("-inf")) if padding == "same" else x, kernel, stride)


def flat(x: Tensor) -> Tensor:
    """Channels last, as TensorFlow flattens."""
    return x.permute(0, 2, 3, 1).flatten(1)


# Networks: larq_zoo 2.4, ``literature`` and ``sota``


def binary_alexnet(k: Keras, x: Tensor) -> Tensor:
    for index, (width, kernel) in enumerate(zip((8, 12, 16, 16, 8), (11, 5, 3, 3, 3), strict=True)):
        x = k.binary(x, width, kernel, 1 if index else 4, inputs=sign if index else None)
        x = k.norm(max_pool(x, padding="valid") if index in (0, 1, 4) else x, scale=False)
    x = flat(x)[:, :, None, None]
    for units in (24, 24, 10):
        x = k.norm(k.binary(x, units, 1), scale=False)
    return x.flatten(1)


def xnornet(k: Keras, x: Tensor) -> Tensor:
    x = max_pool(F.relu(k.norm(k.conv(x, 8, 11, 4), 1e-5, scale=False)), padding="valid")
    for index, (width, kernel) in enumerate(zip((12, 16, 16, 8), (5, 3, 3, 3), strict=True)):
        x = k.binary(k.norm(x, 1e-4, scale=False), width, kernel, quantizer=magnitudes)
        x = max_pool(x, padding="valid") if index in (0, 3) else x
    x = k.binary(k.norm(x, 1e-4, scale=False), 24, x.shape[-1], quantizer=magnitudes, padding="valid")
    x = k.binary(k.norm(x, 1e-4, scale=False), 24, 1, quantizer=magnitudes)
    return k.dense(F.relu(k.norm(x, scale=False)).flatten(1), 10, bias=False)


def dorefanet(k: Keras, x: Tensor) -> Tensor:
    def two_bits(x: Tensor) -> Tensor:
        return torch.round(x.clamp(0, 1) * 3) / 3

    def scaled(kernel: Tensor) -> Tensor:
        return sign(kernel) * kernel.abs().mean()

    x = k.conv(x, 8, 12, 4, padding="valid", bias=True)
    poolings = ("same", "same", None, "valid")
    for width, kernel, padding in zip((12, 16, 16, 8), (5, 3, 3, 3), poolings, strict=True):
        x = k.norm(k.conv(x, width, kernel, quantizer=scaled, inputs=two_bits), 1e-4, scale=False)
        x = max_pool(x, padding=padding) if padding else x
    x = flat(x)
    for _ in range(2):
        x = k.norm(k.dense(two_bits(x), 24, quantizer=scaled, bias=False), 1e-4, scale=False)
    return k.dense(x.clamp(0, 1), 10)


def residual(k: Keras, x: Tensor, eps: float, quantizer: Quantizer) -> Tensor:
    for width in (8, 16, 16):
        shortcut, widens = x, width != x.shape[1]
        if widens:
            shortcut = k.norm(k.conv(F.avg_pool2d(x, 2), width, 1), eps)
        x = k.norm(k.binary(x, width, 3, 2 if widens else 1, quantizer=quantizer), eps) + shortcut
    return x


def birealnet(k: Keras, x: Tensor) -> Tensor:
    x = max_pool(k.norm(k.conv(x, 8, 7, 2)))
    return k.dense(residual(k, x, 1e-3, lambda kernel: magnitudes(kernel, 1e9)).mean((2, 3)), 10)


def resnet_e(k: Keras, x: Tensor) -> Tensor:
    x = k.norm(max_pool(F.relu(k.norm(k.conv(x, 8, 7, 2), 1e-5))), 1e-5)
    return k.dense(F.relu(residual(k, x, 1e-5, sign)).mean((2, 3)), 10)


def real2binary(k: Keras, x: Tensor) -> Tensor:
    def at(block: str, layer: str) -> dict[str, Any]:
        return {"name": f"r2b_bnn_block_{block}_{layer}"}

    x = k.norm(k.conv(x, 8, 7, 2, **at("1", "conv2d")), **at("1", "batch_norm"))
    x = max_pool(k.prelu(x, **at("1", "prelu")))
    for block, width in (("2a", 8), ("2b", 8), ("3a", 16), ("3b", 16)):
        shortcut, widens = x, width != x.shape[1]
        if widens:
            shortcut = k.conv(F.avg_pool2d(x, 2), width, 1, **at(block, "shortcut_conv2d"))
            shortcut = k.norm(shortcut, **at(block, "shortcut_batch_norm"))
        x = k.norm(x, **at(block, "batch_norm"))
        out = k.binary(x, width, 3, 2 if widens else 1, **at(block, "conv2d"))
        narrow = F.relu(k.dense(x.mean((2, 3)), x.shape[1] // 8, bias=False, **at(block, "scaling_dense_reduce")))
        scales = torch.sigmoid(k.dense(narrow, width, bias=False, **at(block, "scaling_dense_expand")))
        x = k.prelu(out * scales[:, :, None, None], **at(block, "prelu")) + shortcut
    return k.dense(x.mean((2, 3)), 10, **at("4", "logits"))


def quicknet(k: Keras, x: Tensor) -> Tensor:
    x = F.relu(k.norm(k.conv(x, 2, 3, 2, kind="quant_conv2d")))
    x = k.norm(k.conv(x, 2, 3, 2, depthwise=True, kind="quant_depthwise_conv2d"), scale=False, shift=False)
    x = k.norm(k.conv(x, 8, 1, kind="quant_conv2d"))
    for width, num in ((8, 1), (16, 2)):
        for _ in range(num):
            if width != x.shape[1]:
                x = k.conv(max_pool(F.relu(x), 2, 1, "valid"), 0, 3, 2, depthwise=True, kind="depthwise_conv2d")
                x = k.norm(k.conv(x, width, 1, kind="quant_conv2d"), 1e-5)
            x = k.norm(F.relu(k.binary(x, width, pad_value=1.0)), 1e-5) + x
    return k.dense(F.relu(x).mean((2, 3)), 10, kind="quant_dense")


def binary_densenet(k: Keras, x: Tensor) -> Tensor:
    x = max_pool(F.relu(k.norm(k.conv(x, 8, 7, 2), 1e-5)))
    for num, dilation in ((2, 1), (2, 2)):
        for _ in range(num):
            x = torch.cat([x, k.binary(k.norm(x, 1e-5), 8, dilation=dilation)], 1)
        if dilation == 1:
            x = k.conv(F.relu(k.norm(x, 1e-5)), 16, 1)
    return k.dense(F.relu(k.norm(x, 1e-5)).mean((2, 3)), 10)


def meliusnet(k: Keras, x: Tensor) -> Tensor:
    def grouped(x: Tensor, filters: int, groups: int, name: str) -> Tensor:
        pieces = enumerate(x.chunk(groups, 1))
        return torch.cat([k.conv(piece, filters // groups, 3, name=f"{name}_conv{i}") for i, piece in pieces], 1)

    def act(x: Tensor, name: str) -> Tensor:
        return F.relu(k.norm(x, 1e-5, name=name))

    x = act(k.conv(x, 16, 3, 2, name="stem_s0_conv"), "stem_s0_bn")
    x = act(grouped(x, 16, 4, "stem_s1_groupconv"), "stem_s1_bn")
    x = max_pool(act(grouped(x, 32, 8, "stem_s2_groupconv"), "stem_s2_bn"), 2)
    for stage, (num, target) in enumerate([(1, 16), (2, 0)]):
        for at in (f"section_{stage}_block_{block}_" for block in range(num)):
            new = k.binary(k.norm(x, 1e-5, name=f"{at}dense_bn"), 8, name=f"{at}dense_binconv")
            x = torch.cat([x, new], 1)
            better = k.binary(k.norm(x, 1e-5, name=f"{at}improve_bn"), 8, name=f"{at}improve_binconv")
            x = x + F.pad(better, (0, 0, 0, 0, x.shape[1] - 8, 0))
        if target:
            at = f"section_{stage}_transition_"
            x = k.conv(F.relu(max_pool(k.norm(x, 1e-5, name=f"{at}bn"), 2)), target, 1, name=f"{at}pw")
    return k.dense(act(x, "head_bn").mean((2, 3)), 10, name="head_dense")
