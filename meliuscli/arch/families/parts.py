"""What several families share: stems, shortcuts and the classifier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from meliuscli.arch.plan import HEAD, STEM, Layer, batch_norm, conv_size, elementwise, placed, prelu, require_divides
from meliuscli.arch.spec import ArchSpec
from meliuscli.errors import SpecError

Stem = Literal["grouped", "imagenet", "thumbnail"]
GROUPED_STEM_GROUPS = (1, 4, 8)
"""Groups of the three 3x3 convolutions of the grouped stem (MeliusNet, section 4)."""
GROUPED_STEM_MULTIPLE = 2 * max(GROUPED_STEM_GROUPS)
"""Half the grouped stem's width is divided into as many groups as its last convolution has."""
THUMBNAIL: Mapping[str, str] = {"stem": "thumbnail"}
"""``small_images`` of families with a choice of stems."""
Activation = Literal["relu", "prelu", "none"]


def stem_layers(
    spec: ArchSpec, stem: Stem, width: int, activation: Activation = "relu", pool: int = 3
) -> Iterator[Layer]:
    """``imagenet``: 7x7 stride 2, BN, activation, max pooling stride 2. ``grouped``: three 3x3 in its place.
    ``thumbnail``: one 3x3 for small images. ``activation`` is that behind the 7x7 convolution, ``pool`` the pooling's kernel."""
    return placed(_stem(spec, stem, width, activation, pool), STEM)


def _stem(spec: ArchSpec, stem: Stem, width: int, activation: Activation, pool: int) -> Iterator[Layer]:
    size = spec.input_size
    if stem == "thumbnail":
        yield Layer("conv", "conv", spec.input_channels, width, size, kernel=3)
        return
    if stem == "imagenet":
        size = conv_size(size, 7, 2, 3)
        yield Layer("conv", "conv", spec.input_channels, width, size, kernel=7, stride=2)
        yield batch_norm("bn", width, size)
        if activation == "relu":
            yield elementwise("relu", "relu", width, size)
        elif activation == "prelu":
            yield prelu("prelu", width, size)
    else:
        if width % 2:
            raise SpecError("stem_channels", f"the grouped stem needs an even width, not {width}")
        half = width // 2
        sizes = (spec.input_channels, half, half, width)
        size = conv_size(size, 3, 2, 1)
        for index, groups in enumerate(GROUPED_STEM_GROUPS, start=1):
            before, after = sizes[index - 1], sizes[index]
            require_divides("stem_channels", groups, stem_input_channels=before, stem_output_channels=after)
            stride = 2 if index == 1 else 1
            yield Layer(f"conv{index}", "conv", before, after, size, kernel=3, stride=stride, groups=groups)
            yield batch_norm(f"bn{index}", after, size)
            yield elementwise(f"relu{index}", "relu", after, size)
    yield Layer("pool", "max_pool", width, width, conv_size(size, 3, 2, 1), kernel=pool, stride=2)


def strided_stem(channels: int, width: int, size: int) -> Iterator[Layer]:
    """A float 3x3 convolution with stride 2 and BN; ``size`` is that of the map that leaves it."""
    yield Layer("conv", "conv", channels, width, size, kernel=3, stride=2)
    yield batch_norm("bn", width, size)


def classifier_head(
    channels: int, size: int, num_classes: int, *, norm: bool = False, relu: bool = False, bits: int = 32
) -> Iterator[Layer]:
    """[BN,] [ReLU,] global average pooling, linear with bias. ``bits`` are those of the linear layer."""
    return placed(_classifier(channels, size, num_classes, norm, relu, bits), HEAD)


def _classifier(channels: int, size: int, num_classes: int, norm: bool, relu: bool, bits: int) -> Iterator[Layer]:
    if norm:
        yield batch_norm("bn", channels, size)
    if relu:
        yield elementwise("relu", "relu", channels, size)
    yield Layer("pool", "avg_pool", channels, channels, 1, kernel=size)
    yield Layer("fc", "linear", channels, num_classes, 1, bias=True, weight_bits=bits, activation_bits=bits)


def check_length(key: str, values: tuple[object, ...], wanted: int, what: str) -> None:
    """Refuse a list with another number of entries than there are stages (or whatever ``what`` says)."""
    if len(values) != wanted:
        raise SpecError(key, f"needs {wanted} entries, one for each {what}, and has {len(values)}")


def strided_shortcut(channels: int, width: int, stride: int, after: int) -> Iterator[Layer]:
    """A float 1x1 convolution with the stride, and BN, where the shape changes; nothing where it does not."""
    if stride == 1 and channels == width:
        return
    yield Layer("shortcut.conv", "conv", channels, width, after, stride=stride)
    yield batch_norm("shortcut.bn", width, after)


def pooled_shortcut(channels: int, width: int, stride: int, after: int) -> Iterator[Layer]:
    """Average pooling 2x2, float 1x1 convolution, BN where the shape changes; nothing where it does not."""
    if stride == 1 and channels == width:
        return
    if stride > 1:
        yield Layer("shortcut.pool", "avg_pool", channels, channels, after, kernel=2, stride=2)
    yield Layer("shortcut.conv", "conv", channels, width, after)
    yield batch_norm("shortcut.bn", width, after)
