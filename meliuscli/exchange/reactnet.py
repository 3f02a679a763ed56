"""ReActNet's own checkpoints (liuzechun/ReActNet): ``mobilenet/2_step2`` as ReActNet-A, ``resnet/2_step2`` on Bi-Real Net.

Binary filters are latent floats, flattened to (O * I * K * K, 1) in the first, of which the mean magnitude is the scale; files
that were saved after binarization hold +1 and -1. Their sign of exactly 0 is 0, and ours +1."""

from __future__ import annotations

import re
from collections.abc import Mapping

from meliuscli.arch.families.reactnet import ReActNetSpec
from meliuscli.arch.families.resnet import BiRealNetSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import load_name
from meliuscli.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from meliuscli.errors import BadInputError
from meliuscli.exchange.tensors import Array, Imported, Taker

EPS = 1e-5


def is_reactnet(tensors: Mapping[str, Array]) -> bool:
    """Are these the weights of one of ReActNet's two networks?"""
    return bool({"feature.1.move11.bias", "layer1.0.move0.bias"} & set(tensors))


def read_reactnet(path: object, tensors: Mapping[str, Array], asked: ArchSpec | None) -> Imported:
    """The network of a file; ``asked`` must be of its family. Raises ``BadInputError`` where tensors do not fit."""
    spec = _spec_of(path, tensors) if asked is None else asked
    taker = Taker(path, tensors)
    if isinstance(spec, ReActNetSpec) and spec.widening == "binary":
        _mobilenet(taker, spec)
    elif isinstance(spec, BiRealNetSpec) and spec.block == "basic" and spec.reactivation and spec.stem == "imagenet":
        _resnet(taker, spec)
    else:
        raise BadInputError(f"{path}: is a ReActNet, and --arch another network ({spec.summary()})", "leave --arch out")
    taker.copy("fc.weight", "head.fc.weight", (spec.num_classes, spec.channels[-1]))
    taker.copy("fc.bias", "head.fc.bias", (spec.num_classes,))
    state = taker.finish()
    zeros = sum(int((state[name] == 0).sum()) for name in state if name.endswith((".conv.weight", "conv1.weight")))
    notes = (
        (f"{zeros:,} binary weights are exactly 0, which their sign leaves out and ours takes as +1",) if zeros else ()
    )
    return Imported(spec, state, imagenet_images(spec.input_size), notes)


def imagenet_images(size: int) -> Preprocessing:
    """What torchvision's evaluation does: the middle of a square of 256 for 224, ImageNet's mean and deviation."""
    return Preprocessing(size, 3, round(size * 256 / 224), size, IMAGENET_MEAN, IMAGENET_STD)


def _spec_of(path: object, tensors: Mapping[str, Array]) -> ArchSpec:
    try:
        classes = int(tensors["fc.bias"].shape[0])
        if "feature.1.move11.bias" in tensors:
            return load_name("reactnet-a").replace(num_classes=classes)
        blocks = [re.fullmatch(r"layer(\d)\.(\d{1,2})\.move0\.bias", name) for name in tensors]
        found = [(int(match[1]), int(match[2])) for match in blocks if match]
        num = [1 + max(block for layer, block in found if layer == stage) for stage in (1, 2, 3, 4)]
    except (KeyError, IndexError, ValueError):
        raise BadInputError(f"{path}: no ReActNet: it has no fc.bias or no four layers", "--arch names it") from None
    return load_name("reactnet18").replace(num_classes=classes, num_blocks=tuple(num))


def _shift(taker: Taker, theirs: str, ours: str, channels: int, sign: int = 1) -> None:
    taker.put(ours, sign * taker.take(f"{theirs}.bias", (1, channels, 1, 1))[0])


def _conv(taker: Taker, theirs: str, ours: str, shape: tuple[int, int, int, int]) -> None:
    """Binary filters, flat or not, called ``weights`` or ``weight``."""
    name = next((f"{theirs}.{key}" for key in ("weights", "weight") if f"{theirs}.{key}" in taker.tensors), None)
    name = f"{theirs}.weights" if name is None else name
    flat = (shape[0] * shape[1] * shape[2] * shape[3], 1)
    is_flat = name in taker.tensors and taker.tensors[name].ndim == 2
    taker.put(f"{ours}.weight", taker.take(name, flat if is_flat else shape).reshape(shape))


def _rprelu(taker: Taker, before: str, prelu: str, behind: str, ours: str, channels: int) -> None:
    """Theirs adds in front of PReLU, ours subtracts."""
    _shift(taker, before, f"{ours}.gamma", channels, -1)
    taker.copy(f"{prelu}.weight", f"{ours}.slope", (channels,))
    _shift(taker, behind, f"{ours}.zeta", channels)


def _mobilenet(taker: Taker, spec: ReActNetSpec) -> None:
    channels = spec.stem_channels
    taker.copy("feature.0.conv1.weight", "stem.conv.weight", (channels, spec.input_channels, 3, 3))
    taker.norm_of_torch("feature.0.bn1", "stem.bn", channels, EPS)
    for block, width in enumerate(spec.channels, start=1):
        theirs, ours = f"feature.{block}", f"block{block}"
        _shift(taker, f"{theirs}.move11", f"{ours}.sign1.shift", channels)
        _conv(taker, f"{theirs}.binary_3x3", f"{ours}.conv1", (channels, channels, 3, 3))
        taker.norm_of_torch(f"{theirs}.bn1", f"{ours}.bn1", channels, EPS)
        _rprelu(taker, f"{theirs}.move12", f"{theirs}.prelu1", f"{theirs}.move13", f"{ours}.act1", channels)
        _shift(taker, f"{theirs}.move21", f"{ours}.sign2.shift", channels)
        halves = (("binary_pw", "bn2", ""),)
        if width != channels:
            halves = (("binary_pw_down1", "bn2_1", "a"), ("binary_pw_down2", "bn2_2", "b"))  # type: ignore[assignment]
        for conv, norm, copy in halves:
            _conv(taker, f"{theirs}.{conv}", f"{ours}.conv2{copy}", (channels, channels, 1, 1))
            taker.norm_of_torch(f"{theirs}.{norm}", f"{ours}.bn2{copy}", channels, EPS)
        _rprelu(taker, f"{theirs}.move22", f"{theirs}.prelu2", f"{theirs}.move23", f"{ours}.act2", width)
        channels = width


def _resnet(taker: Taker, spec: BiRealNetSpec) -> None:
    channels = spec.stem_channels
    taker.copy("conv1.weight", "stem.conv.weight", (channels, spec.input_channels, 7, 7))
    taker.norm_of_torch("bn1", "stem.bn", channels, EPS)
    for stage, (num, width) in enumerate(zip(spec.num_blocks, spec.channels, strict=True), start=1):
        for block in range(num):
            theirs, ours = f"layer{stage}.{block}", f"stage{stage}.block{block + 1}"
            _shift(taker, f"{theirs}.move0", f"{ours}.sign.shift", channels)
            _conv(taker, f"{theirs}.binary_conv", f"{ours}.conv", (width, channels, 3, 3))
            taker.norm_of_torch(f"{theirs}.bn1", f"{ours}.bn", width, EPS)
            if width != channels or (stage > 1 and not block):
                shape = (width, channels, 1, 1)
                taker.copy(f"{theirs}.downsample.1.weight", f"{ours}.shortcut.conv.weight", shape)
                taker.norm_of_torch(f"{theirs}.downsample.2", f"{ours}.shortcut.bn", width, EPS)
            _rprelu(taker, f"{theirs}.move1", f"{theirs}.prelu", f"{theirs}.move2", f"{ours}.act", width)
            channels = width
