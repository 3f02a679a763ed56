"""Weights of larq-zoo's networks as Keras 2 saves them (``.h5``), read with h5py alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import load_name
from meliuscli.errors import BadInputError, MissingError
from meliuscli.exchange.larq_layers import FORMS, as_larq, expected, named_layers, take_layers
from meliuscli.exchange.reactnet import imagenet_images
from meliuscli.exchange.tensors import Array, Imported, Taker

MAX_VALUES = 2**30
KINDS = ("conv2d", "dense", "depthwise_conv2d", "batch_normalization")
NUMBERED = re.compile(rf"((?:quant_)?(?:{'|'.join(KINDS)}))(?:_(\d{{1,6}}))?")
"""The names that Keras gives to layers of these kinds."""
NETWORKS = (
    "binaryalexnet",
    "xnornet-alexnet",
    "dorefanet-alexnet",
    "birealnet18",
    "resnete18",
    "real2binary",
    "binarydensenet28",
    "binarydensenet37",
    "binarydensenet37-dilated",
    "binarydensenet45",
    "meliusnet22",
    "quicknet-small",
    "quicknet",
    "quicknet-large",
)
"""larq-zoo's networks by our names."""
DILATED = (
    "BinaryDenseNet37 and its dilated form have the same tensors; it is the dilated one where the file's name says so, or"
    " with --arch binarydensenet37-dilated"
)


def read_larq(path: Path, asked: ArchSpec | None) -> Imported:
    """The network of a file, or ``asked``, with larq-zoo's borders.

    Raises ``MissingError`` without h5py, ``BadInputError`` for a file that is damaged or of another network."""
    tensors = _as_convolutions(_numbered(read_keras(path)))
    notes: tuple[str, ...] = ()
    if asked is None:
        name, asked = _nearest(path, tensors)
        notes = (DILATED,) if name.startswith("binarydensenet37") else ()
    _check_form(path, asked)
    taker = Taker(path, tensors)
    take_layers(taker, asked)
    return Imported(asked, taker.finish(), imagenet_images(asked.input_size), notes)


def _nearest(path: Path, tensors: Mapping[str, Array]) -> tuple[str, ArchSpec]:
    """Of ``NETWORKS``, with as many classes as the file has, one that leaves the fewest names of the file's over, whatever their
    shapes; then the one with the most of its tensors; a larger network has those of a smaller one, so that tensors which the
    file lacks count against it."""
    specs = {name: _with_classes(as_larq(load_name(name)), tensors) for name in NETWORKS}

    def fit(name: str) -> tuple[int, int, bool]:
        shapes = expected(specs[name])
        equal = sum(tensor in tensors and tensors[tensor].shape == shape for tensor, shape in shapes.items())
        dilated = ("dilated" in name) == ("dilated" in path.name.lower())
        return -len(set(tensors) - set(shapes)), 2 * equal - len(shapes), dilated

    best = max(specs, key=fit)
    return best, specs[best]


def _with_classes(spec: ArchSpec, tensors: Mapping[str, Array]) -> ArchSpec:
    kernels = [name for layer, name in named_layers(spec) if layer.kind in ("conv", "linear")]
    last = tensors.get(f"{kernels[-1]}/kernel")
    return spec if last is None or not 1 <= last.shape[-1] <= 65536 else spec.replace(num_classes=last.shape[-1])


def _check_form(path: Path, spec: ArchSpec) -> None:
    """Raise ``BadInputError`` for a network that larq-zoo has not, or has otherwise."""
    if spec.family not in FORMS:
        known = ", ".join(NETWORKS)
        raise BadInputError(f"{path}: --arch is a {spec.family}, which is none of larq-zoo's", f"those are {known}")
    if spec.family == "meliusnet" and spec.input_size % 32:
        raise BadInputError(
            f"{path}: larq-zoo's MeliusNet rounds odd maps up, ours down", "take a multiple of 32 pixels"
        )
    others = [f"{key}={value}" for key, value in FORMS[spec.family].items() if getattr(spec, key) != value]
    if others:
        sets = " ".join(f"--set {other.lower()}" for other in others)
        raise BadInputError(f"{path}: larq-zoo's {spec.family} has {', '.join(others)}", f"name it with {sets}")


def _as_convolutions(tensors: dict[str, Array]) -> dict[str, Array]:
    """BinaryAlexNet as larq-zoo 1 had it, with three binary dense layers where later ones have 1x1 convolutions."""
    dense = [f"quant_dense {index}/kernel" for index in range(3)]
    if all(name in tensors and tensors[name].ndim == 2 for name in dense):
        for index, name in enumerate(dense, start=5):
            tensors[f"quant_conv2d {index}/kernel"] = tensors.pop(name)[None, None]
    return tensors


def _numbered(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Layers of a kind counted from 0 in the order in which Keras made them: ``quant_conv2d 3/kernel``. Other names stay."""
    numbers: dict[str, set[int]] = {}
    layers: list[tuple[str, int | None, str, Array]] = []
    for name, array in tensors.items():
        layer, _, weight = name.rpartition("/")
        match = NUMBERED.fullmatch(layer)
        kind, number = (match[1], int(match[2] or 0)) if match else (layer, None)
        if number is not None:
            numbers.setdefault(kind, set()).add(number)
        layers.append((kind, number, weight.removesuffix(":0"), array))
    places = {kind: {number: place for place, number in enumerate(sorted(all_))} for kind, all_ in numbers.items()}
    return {
        f"{kind}/{weight}" if number is None else f"{kind} {places[kind][number]}/{weight}": array
        for kind, number, weight, array in layers
    }


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
