"""What several families share in torch: stems, the classifier, the pooled shortcut."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from meliuscli.arch.families.parts import GROUPED_STEM_GROUPS, Activation, Stem
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.layers import SameMaxPool2d, float_conv, linear
from meliuscli.nn.quantized import QuantConv2d, sign_conv
from meliuscli.nn.quantizers import SteSign


def build_stem(
    stem: Stem, in_channels: int, width: int, activation: Activation = "relu", same: bool = False, pool: int = 3
) -> OrderedDict[str, nn.Module]:
    """Layers by name, as ``meliuscli.arch.families.parts.stem_layers`` lists them; ``same``: with TensorFlow's borders.
    ``pool`` is the kernel of the max pooling, which rounds odd maps up."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stem == "thumbnail":
        layers["conv"] = float_conv(in_channels, width, 3)
        return layers
    if stem == "imagenet":
        layers["conv"] = float_conv(in_channels, width, 7, stride=2, same=same)
        layers["bn"] = nn.BatchNorm2d(width)
        if activation != "none":
            layers[activation] = nn.ReLU() if activation == "relu" else nn.PReLU(width)
    else:
        first, second, third = GROUPED_STEM_GROUPS
        half = width // 2
        for index, (before, after, stride, groups) in enumerate(
            [(in_channels, half, 2, first), (half, half, 1, second), (half, width, 1, third)], start=1
        ):
            layers[f"conv{index}"] = float_conv(before, after, 3, stride, groups, same=same and stride > 1)
            layers[f"bn{index}"], layers[f"relu{index}"] = nn.BatchNorm2d(after), nn.ReLU()
    layers["pool"] = nn.MaxPool2d(3, stride=2, padding=1) if pool == 3 and not same else SameMaxPool2d(pool, stride=2)
    return layers


def build_head(
    channels: int, num_classes: int, *, norm: bool = False, relu: bool = False, fc: nn.Module | None = None
) -> nn.Sequential:
    """[BN,] [ReLU,] global average pooling, linear with bias."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if norm:
        layers["bn"] = nn.BatchNorm2d(channels)
    if relu:
        layers["relu"] = nn.ReLU()
    layers["pool"], layers["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    layers["fc"] = linear(channels, num_classes) if fc is None else fc
    return nn.Sequential(layers)


def pooled_shortcut(channels: int, width: int, stride: int) -> nn.Module:
    """Average pooling, float 1x1 convolution, BN where the shape changes; the identity where it does not."""
    if stride == 1 and channels == width:
        return nn.Identity()
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stride > 1:
        layers["pool"] = half_pool()
    layers["conv"], layers["bn"] = float_conv(channels, width, 1), nn.BatchNorm2d(width)
    return nn.Sequential(layers)


def half_pool() -> nn.Module:
    """Average pooling 2x2 with stride 2 that rounds odd maps up, as a padded strided convolution does."""
    return nn.AvgPool2d(2, ceil_mode=True)


def batch_norm(channels: int, *, scale: bool = True, shift: bool = True) -> nn.BatchNorm2d:
    """Batch norm, without a learnable scale or without both (what is not learned stays at one and zero)."""
    norm = nn.BatchNorm2d(channels)
    norm.weight.requires_grad_(scale)
    norm.bias.requires_grad_(shift)
    return norm


def recipe_conv(
    channels: int,
    width: int,
    clip: float,
    *,
    stride: int = 1,
    dilation: int = 1,
    pad_value: int = -1,
    same: bool = False,
) -> BinaryConv2d | QuantConv2d:
    """A binary 3x3 convolution of the families of MeliusNet's recipe: BMXNet's, of counts in [0, K], where the border is -1 on
    both sides; with any other border larq's, of sums in [-K, K]. Batch norm takes that difference away."""
    if pad_value == -1 and not (same and stride > 1):
        return BinaryConv2d(channels, width, dilation, clip, stride)
    same = same and stride > 1
    return sign_conv(
        channels, width, 3, stride, clip, pad_value, activation=SteSign(clip), same=same, dilation=dilation
    )
