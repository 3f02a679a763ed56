"""BinaryConv2d and the dense families written once more in torch's own operations, from the papers' description."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.arch.families.dense import DenseFamilySpec


class PlainSign(torch.autograd.Function):
    """Sign with sign(0) = +1; the gradient passes where |x| <= clip, everywhere without a clip."""

    @staticmethod
    def forward(ctx, x, clip):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        ctx.clip = clip
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return (grad if ctx.clip is None else torch.where(x.abs() <= ctx.clip, grad, 0.0)), None


def plain_binary_conv(x: Tensor, weight: Tensor, dilation: int, clip: float = 1.3) -> Tensor:
    """The definition: pad the signs with -1, convolve with the weights' signs, (y + K) / 2."""
    signs = F.pad(PlainSign.apply(x, clip), (dilation,) * 4, value=-1.0)  # type: ignore[no-untyped-call]
    y = F.conv2d(signs, PlainSign.apply(weight, None), dilation=dilation)  # type: ignore[no-untyped-call]
    return (y + weight[0].numel()) / 2


def batch_statistics(x: Tensor, running_mean: Tensor, running_var: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of the batch; a tenth of them (variance unbiased) goes into the running ones."""
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    count = x.numel() // x.shape[1]
    with torch.no_grad():
        running_mean.mul_(0.9).add_(0.1 * mean)
        running_var.mul_(0.9).add_(0.1 * var * count / max(1, count - 1))
    return mean, var


class PlainNet(nn.Module):
    """MeliusNet written once more, from the description and not from our code, sharing only the weights."""

    def __init__(self, spec: DenseFamilySpec, state: dict[str, Tensor], training: bool = False) -> None:
        super().__init__()
        self.spec, self.state, self.training = spec, state, training

    def bn(self, x: Tensor, name: str) -> Tensor:
        mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        if self.training:
            mean, var = batch_statistics(x, mean, var)
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        shape = (1, -1, 1, 1)
        return (x - mean.view(shape)) / torch.sqrt(var.view(shape) + 1e-5) * weight.view(shape) + bias.view(shape)

    def forward(self, x: Tensor) -> Tensor:
        spec, w = self.spec, self.state
        if spec.stem == "thumbnail":
            x = F.conv2d(x, w["stem.conv.weight"], padding=1)
        elif spec.stem == "imagenet":
            x = F.relu(self.bn(F.conv2d(x, w["stem.conv.weight"], stride=2, padding=3), "stem.bn"))
        else:
            for i, (stride, groups) in enumerate([(2, 1), (1, 4), (1, 8)], start=1):
                x = F.conv2d(x, w[f"stem.conv{i}.weight"], stride=stride, padding=1, groups=groups)
                x = F.relu(self.bn(x, f"stem.bn{i}"))
        if spec.stem != "thumbnail":
            x = F.max_pool2d(x, 3, 2, 1)
        for s, blocks in enumerate(spec.num_blocks, start=1):
            d = spec.dilation[s - 1]
            for b in range(1, blocks + 1):
                name = f"stage{s}.block{b}"
                new = plain_binary_conv(self.bn(x, f"{name}.dense.bn"), w[f"{name}.dense.conv.weight"], d)
                x = torch.cat([x, new], 1)
                if spec.family == "meliusnet":
                    better = plain_binary_conv(
                        self.bn(x, f"{name}.improvement.bn"), w[f"{name}.improvement.conv.weight"], d
                    )
                    zeros = torch.zeros_like(x[:, : x.shape[1] - better.shape[1]])
                    x = x + torch.cat([zeros, better], 1)
            if s < len(spec.num_blocks):
                x = self.bn(x, f"transition{s}.bn")
                if spec.dilation[s] <= spec.dilation[s - 1]:
                    x = F.max_pool2d(x, 2)
                x = F.relu(x)
                if spec.groups > 1:
                    n, c, h, wd = x.shape
                    g = next(g for g in range(16, 0, -1) if 16 % g == 0 and c % g == 0)
                    x = x.view(n, g, c // g, h, wd).transpose(1, 2).reshape(n, c, h, wd)
                x = F.conv2d(x, w[f"transition{s}.conv.weight"], groups=spec.groups)
        x = F.relu(self.bn(x, "head.bn")).mean((2, 3))
        return x @ w["head.fc.weight"].T + w["head.fc.bias"]
