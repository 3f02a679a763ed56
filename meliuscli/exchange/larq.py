"""Weights of larq's networks as Keras 2 saves them (``.h5``), read with h5py alone: BinaryAlexNet and Bi-Real Net of larq-zoo.

Kernels are latent floats of (height, width, in, out), of which the sign counts, 0 as +1; batch norm has Keras' epsilon 1e-3,
and no scale in BinaryAlexNet. Layers are numbered by Keras in the order in which they were made, from anywhere on. Flattening goes over rows, columns,
channels, where torch has the channels first.

Strided layers have their border on one side only (TensorFlow's "same"), which of our families Bi-Real Net has as a field."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meliuscli.arch.families.alexnet import KERNELS, BinaryAlexNetSpec
from meliuscli.arch.families.resnet import BiRealNetSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import load_name, spec_from_fields
from meliuscli.errors import BadInputError, MissingError
from meliuscli.exchange.reactnet import imagenet_images
from meliuscli.exchange.tensors import Array, Imported, Taker

EPS = 1e-3
MAX_VALUES = 2**30
NUMBERED = re.compile(r"(quant_conv2d|quant_dense|conv2d|dense|batch_normalization)(?:_(\d{1,6}))?")
"""The names that Keras gives to layers of these kinds."""
KNOWN = "BinaryAlexNet and Bi-Real Net are the networks of larq-zoo that can be imported"


def read_larq(path: Path, asked: ArchSpec | None) -> Imported:
    """Raises ``MissingError`` without h5py, ``BadInputError`` for a file that is damaged or of another network."""
    tensors = _numbered(path, read_keras(path))
    is_alexnet = any(name.startswith("quant_dense") for name in tensors)
    spec = (_alexnet_of if is_alexnet else _bireal_of)(path, tensors) if asked is None else asked
    taker = Taker(path, tensors)
    if isinstance(spec, BinaryAlexNetSpec):
        _alexnet(taker, spec)
    elif (
        isinstance(spec, BiRealNetSpec) and spec.padding == "same" and not spec.reactivation and spec.stem == "imagenet"
    ):
        _bireal(taker, spec)
    else:
        raise BadInputError(f"{path}: --arch is a {spec.family}, {spec.summary()}", KNOWN)
    return Imported(spec, taker.finish(), imagenet_images(spec.input_size))


def _alexnet(taker: Taker, spec: BinaryAlexNetSpec) -> None:
    kernels, channels = (3 if spec.stem == "thumbnail" else 11, *KERNELS), spec.input_channels
    for index, (width, kernel) in enumerate(zip(spec.channels, kernels, strict=True)):
        place = "stem" if index == 0 else f"conv{index + 1}"
        _conv(taker, f"quant_conv2d {index}", f"{place}.conv", (width, channels, kernel, kernel))
        _norm(taker, index, f"{place}.bn", width, scale=False)
        channels = width
    size = next(layer.out_size for layer in spec.layers() if layer.name == "conv5.pool")
    for index, width in enumerate((spec.hidden, spec.hidden, spec.num_classes)):
        latent = taker.take(f"quant_dense {index}/kernel", (channels * size**2, width))
        latent = latent.reshape(size, size, channels, width).transpose(3, 2, 0, 1)  # size is 1 behind the first
        taker.put(f"fc{index + 6}.conv.weight", latent.reshape(width, -1, 1, 1))
        _norm(taker, index + 5, f"fc{index + 6}.bn", width, scale=False)
        channels, size = width, 1


def _bireal(taker: Taker, spec: BiRealNetSpec) -> None:
    """A block that widens makes its shortcut first."""
    channels, norms, shortcuts, blocks = spec.stem_channels, 1, 1, 0
    _conv(taker, "conv2d 0", "stem.conv", (channels, spec.input_channels, 7, 7))
    _norm(taker, 0, "stem.bn", channels)
    for stage, (num, width) in enumerate(zip(spec.num_blocks, spec.channels, strict=True), start=1):
        for block in range(1, num + 1):
            place = f"stage{stage}.block{block}"
            if width != channels:
                _conv(taker, f"conv2d {shortcuts}", f"{place}.shortcut.conv", (width, channels, 1, 1))
                _norm(taker, norms, f"{place}.shortcut.bn", width)
                shortcuts, norms = shortcuts + 1, norms + 1
            _conv(taker, f"quant_conv2d {blocks}", f"{place}.conv", (width, channels, 3, 3))
            _norm(taker, norms, f"{place}.bn", width)
            channels, norms, blocks = width, norms + 1, blocks + 1
    taker.put("head.fc.weight", taker.take("dense 0/kernel", (channels, spec.num_classes)).T)
    taker.copy("dense 0/bias", "head.fc.bias", (spec.num_classes,))


def _conv(taker: Taker, theirs: str, ours: str, shape: tuple[int, int, int, int]) -> None:
    outputs, inputs, height, width = shape
    kernel = taker.take(f"{theirs}/kernel", (height, width, inputs, outputs))
    taker.put(f"{ours}.weight", kernel.transpose(3, 2, 0, 1))


def _norm(taker: Taker, index: int, ours: str, channels: int, *, scale: bool = True) -> None:
    names = {"beta": "beta", "mean": "moving_mean", "var": "moving_variance", **({"gamma": "gamma"} if scale else {})}
    parts = {key: f"batch_normalization {index}/{name}" for key, name in names.items()}
    taker.norm(ours, parts, channels, EPS)


def _alexnet_of(path: Path, tensors: Mapping[str, Array]) -> ArchSpec:
    """By the shapes of the kernels, at 224x224; an input of another size needs ``--arch`` with it."""
    try:
        convs = [tensors[f"quant_conv2d {index}/kernel"].shape for index in range(5)]
        dense = [tensors[f"quant_dense {index}/kernel"].shape for index in range(3)]
    except KeyError as error:
        raise BadInputError(f"{path}: it has no {error.args[0]}", KNOWN) from None
    fields: dict[str, Any] = {"family": "binary-alexnet", "channels": [int(shape[-1]) for shape in convs]}
    fields |= {"hidden": int(dense[0][-1]), "num_classes": int(dense[2][-1]), "input_channels": int(convs[0][2])}
    return spec_from_fields(fields, f"{path}: ")


def _bireal_of(path: Path, tensors: Mapping[str, Array]) -> ArchSpec:
    """Bi-Real-18 of as many classes as the file has."""
    if "dense 0/bias" not in tensors:
        raise BadInputError(f"{path}: it has no dense layer with a bias", KNOWN)
    return load_name("birealnet18").replace(padding="same", num_classes=int(tensors["dense 0/bias"].shape[0]))


def _numbered(path: Path, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Layers of a kind counted from 0 in the order in which Keras made them: ``quant_conv2d 3/kernel``."""
    numbers: dict[str, set[int]] = {}
    found: list[tuple[str, int, str, Array]] = []
    for name, array in tensors.items():
        layer, _, weight = name.rpartition("/")
        match = NUMBERED.fullmatch(layer.rpartition("/")[2])
        if match is None:
            raise BadInputError(f"{path}: {name} is left over", KNOWN)
        number = int(match[2] or 0)
        numbers.setdefault(match[1], set()).add(number)
        found.append((match[1], number, weight.removesuffix(":0"), array))
    places = {kind: {number: place for place, number in enumerate(sorted(all_))} for kind, all_ in numbers.items()}
    return {f"{kind} {places[kind][number]}/{weight}": array for kind, number, weight, array in found}


def read_keras(path: Path) -> dict[str, Array]:
    """``layer/weight:0`` -> array, of a file of weights or of a model. Links to other files, and data that lie outside of this
    one, are refused.

    Raises ``MissingError`` without h5py, ``BadInputError`` for what is no such file."""
    try:
        import h5py
    except ImportError:
        raise MissingError("a file of larq's needs h5py", "pip install 'meliuscli[larq]'") from None
    tensors: dict[str, Array] = {}
    try:
        with h5py.File(path, "r") as file:
            top = file.get("model_weights", file)
            _collect(h5py, top, "", tensors)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: corrupt, or no weights of Keras 2 (.h5): {str(error)[:100]}") from None
    if not tensors:
        raise BadInputError(f"{path}: no weights in it")
    return tensors


def _collect(h5py: Any, group: Any, prefix: str, tensors: dict[str, Array], depth: int = 0) -> None:
    if depth > 8 or len(tensors) > 10_000:
        raise ValueError("it is nested too deeply, or has too many arrays")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{prefix}{name} is a link to elsewhere")
        member = group[name]
        if isinstance(member, h5py.Group):
            if name not in ("optimizer_weights", "top_level_model_weights"):
                _collect(h5py, member, f"{prefix}{name}/", tensors, depth + 1)
            continue
        if member.external or member.is_virtual or member.dtype.kind != "f" or math.prod(member.shape) > MAX_VALUES:
            raise ValueError(f"{prefix}{name} is no array of floats in this file")
        layer = prefix.rstrip("/").rpartition("/")[2]
        tensors[f"{layer}/{name}"] = np.asarray(member[()], np.float32)
