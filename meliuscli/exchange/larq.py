"""Weights of larq's networks as Keras 2 saves them (``.h5``), read with h5py alone: BinaryAlexNet of larq-zoo.

Kernels are latent floats of (height, width, in, out), of which the sign counts, 0 as +1; batch norm has Keras' epsilon 1e-3 and no
scale. Layers are numbered by Keras in the order in which they were made, from anywhere on. Flattening goes over rows, columns,
channels, where torch has the channels first.

larq-zoo's other networks pad strided layers on one side only (TensorFlow's "same"), which our families do not."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meliuscli.arch.families.alexnet import KERNELS, BinaryAlexNetSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import spec_from_fields
from meliuscli.errors import BadInputError, MissingError
from meliuscli.exchange.reactnet import imagenet_images
from meliuscli.exchange.tensors import Array, Imported, Taker

EPS = 1e-3
MAX_VALUES = 2**30
NUMBERED = re.compile(r"(quant_conv2d|quant_dense|batch_normalization)(?:_(\d{1,6}))?")
"""The names that Keras gives to layers of these kinds."""
KNOWN = "BinaryAlexNet is the network of larq-zoo that can be imported: the others pad strided layers on one side"


def read_larq(path: Path, asked: ArchSpec | None) -> Imported:
    """Raises ``MissingError`` without h5py, ``BadInputError`` for a file that is damaged or of another network."""
    tensors = _numbered(path, read_keras(path))
    if asked is not None and not isinstance(asked, BinaryAlexNetSpec):
        raise BadInputError(f"{path}: --arch is a {asked.family}", KNOWN)
    spec = _spec_of(path, tensors) if asked is None else asked
    taker, channels = Taker(path, tensors), spec.input_channels
    kernels = (3 if spec.stem == "thumbnail" else 11, *KERNELS)
    for index, (width, kernel) in enumerate(zip(spec.channels, kernels, strict=True)):
        place = "stem" if index == 0 else f"conv{index + 1}"
        latent = taker.take(f"quant_conv2d {index}/kernel", (kernel, kernel, channels, width))
        taker.put(f"{place}.conv.weight", latent.transpose(3, 2, 0, 1))
        _norm(taker, index, place, width)
        channels = width
    size = next(layer.out_size for layer in spec.layers() if layer.name == "conv5.pool")
    for index, width in enumerate((spec.hidden, spec.hidden, spec.num_classes)):
        latent = taker.take(f"quant_dense {index}/kernel", (channels * size**2, width))
        latent = latent.reshape(size, size, channels, width).transpose(3, 2, 0, 1)  # size is 1 behind the first
        taker.put(f"fc{index + 6}.conv.weight", latent.reshape(width, -1, 1, 1))
        _norm(taker, index + 5, f"fc{index + 6}", width)
        channels, size = width, 1
    return Imported(spec, taker.finish(), imagenet_images(spec.input_size))


def _norm(taker: Taker, index: int, place: str, channels: int) -> None:
    theirs = f"batch_normalization {index}/"
    parts = {"beta": "beta", "mean": "moving_mean", "var": "moving_variance"}
    taker.norm(f"{place}.bn", {key: f"{theirs}{name}" for key, name in parts.items()}, channels, EPS)


def _spec_of(path: Path, tensors: Mapping[str, Array]) -> ArchSpec:
    """By the shapes of the kernels, at 224x224; an input of another size needs ``--arch`` with it."""
    try:
        convs = [tensors[f"quant_conv2d {index}/kernel"].shape for index in range(5)]
        dense = [tensors[f"quant_dense {index}/kernel"].shape for index in range(3)]
    except KeyError as error:
        raise BadInputError(f"{path}: it has no {error.args[0]}", KNOWN) from None
    fields: dict[str, Any] = {"family": "binary-alexnet", "channels": [int(shape[-1]) for shape in convs]}
    fields |= {"hidden": int(dense[0][-1]), "num_classes": int(dense[2][-1]), "input_channels": int(convs[0][2])}
    spec = spec_from_fields(fields, f"{path}: ")
    assert isinstance(spec, BinaryAlexNetSpec)
    return spec


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
