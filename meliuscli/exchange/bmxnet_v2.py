"""BMXNet-v2's MeliusNet and BinaryDenseNet (hpi-xnor/BMXNet-v2-examples, ``binary_models``) as Gluon's ``save_parameters`` writes
them: latent weights of (out, in, height, width), named by the places of layers in each other.

Everything is computed as here: the convolutions of counts with their border of -1, and an epsilon of 1e-5. The class keeps the
stage that it made last under a second name, ``current_stage``, of which the file has the tensors twice."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from meliuscli.arch.families.dense import DenseFamilySpec, runs_whole
from meliuscli.arch.plan import Layer
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import spec_from_fields
from meliuscli.data.preprocessing import Preprocessing
from meliuscli.errors import BadInputError
from meliuscli.exchange.tensors import Array, Imported, Taker

EPS = 1e-5
RGB_MEAN, RGB_STD = (123.68, 116.779, 103.939), (58.393, 57.12, 57.375)
"""Of bytes, as the examples' trainer takes them for ImageNet (``datasets/imagenet.py``)."""
NOTE = "mean and deviation of images are those of the source's trainer for ImageNet"
KNOWN = "BMXNet-v2's MeliusNet and BinaryDenseNet can be imported, with borders of -1, as save_parameters writes them"


def is_gluon(tensors: Mapping[str, Array]) -> bool:
    """Are these names those of a network that Gluon saved?"""
    return any(name.startswith("features.") for name in tensors)


def read_bmxnet_v2(path: object, tensors: Mapping[str, Array], asked: ArchSpec | None) -> Imported:
    """The network of a file, as ``asked`` or, for None, as the file's names and shapes say.

    Raises ``BadInputError`` where tensors do not fit, or ``asked`` is of another family."""
    spec = _spec_of(path, tensors) if asked is None else asked
    if not runs_whole(spec):
        raise BadInputError(f"{path}: --arch is a {spec.family}, {spec.summary()}", KNOWN)
    taker = Taker(path, _once(tensors, len(spec.num_blocks)))
    for layer in spec.layers():
        name = _name(spec, layer)
        if layer.kind == "batch_norm":
            keys = {"gamma": "gamma", "beta": "beta", "mean": "running_mean", "var": "running_var"}
            taker.norm(layer.name, {key: f"{name}.{theirs}" for key, theirs in keys.items()}, layer.out_channels, EPS)
        elif layer.kind == "conv":
            shape = layer.out_channels, layer.in_channels // layer.groups, layer.kernel, layer.kernel
            taker.copy(f"{name}.weight", f"{layer.name}.weight", shape)
        elif layer.kind == "linear":
            taker.copy(f"{name}.weight", f"{layer.name}.weight", (layer.out_channels, layer.in_channels))
            taker.copy(f"{name}.bias", f"{layer.name}.bias", (layer.out_channels,))
    how = _preprocessing(spec)
    return Imported(spec, taker.finish(), how, () if how is None else (NOTE,))


def _preprocessing(spec: DenseFamilySpec) -> Preprocessing | None:
    """Of ImageNet; of small images it is not known."""
    if spec.input_channels != 3 or spec.stem == "thumbnail":
        return None
    size, mean, std = spec.input_size, *(tuple(value / 255 for value in values) for values in (RGB_MEAN, RGB_STD))
    return Preprocessing(size, 3, math.ceil(size / 0.875), size, mean, std)


def _once(tensors: Mapping[str, Array], stages: int) -> dict[str, Array]:
    """Without the second names of the last stage's tensors, as far as they hold the same."""
    stage = _stage(stages)

    def is_again(name: str) -> bool:
        other = tensors.get(f"{stage}.{name.removeprefix('current_stage.')}")
        return name.startswith("current_stage.") and other is not None and np.array_equal(tensors[name], other)

    return {name: array for name, array in tensors.items() if not is_again(name)}


def _stage(number: int) -> str:
    """From the second on, the transition in front of a stage lies with it."""
    return "layer0.0" if number == 1 else f"layer{number - 1}.1"


def _name(spec: DenseFamilySpec, layer: Layer) -> str:
    """Where a layer of ours lies in theirs."""
    name = layer.name
    if match := re.fullmatch(r"stage(\d+)\.block(\d+)\.(dense|improvement)\.(bn|conv)", name):
        stage, block, unit = int(match[1]), int(match[2]) - 1, match[3]
        place = 2 * block + (unit == "improvement") if spec.improvement else block
        inside = "body" if unit == "improvement" else "1"
        return f"{_stage(stage)}.{place}.{inside}.{'0' if match[4] == 'bn' else '1.qconv'}"
    if match := re.fullmatch(r"transition(\d+)\.(bn|conv)", name):
        behind_relu = 2 + spec.pools[int(match[1]) - 1] + (spec.groups > 1)
        return f"layer{match[1]}.0.{0 if match[2] == 'bn' else behind_relu}"
    if match := re.fullmatch(r"stem\.(bn|conv)(\d)", name):
        place = 3 * int(match[2]) - (3 if match[1] == "conv" else 2)
        return "features.1" if name == "stem.bn3" else f"features.0.{place}"
    return {"stem.conv": "features.0", "stem.bn": "features.1", "head.bn": "finalize.0", "head.fc": "output"}.get(
        name, name
    )


def _spec_of(path: object, tensors: Mapping[str, Array]) -> ArchSpec:
    """What the names and shapes of a file say."""
    try:
        fields = _fields(tensors)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise BadInputError(f"{path}: no network of BMXNet-v2 that is known here: it lacks {error}", KNOWN) from None
    return spec_from_fields(fields, f"{path}: ")


def _fields(tensors: Mapping[str, Array]) -> dict[str, Any]:
    convs = [re.fullmatch(r"layer(\d)\.(\d)\.(\d{1,3})\.(1\.1|body\.1)\.qconv\.weight", name) for name in tensors]
    units = [(int(match[1]), match[4] == "1.1", match[0]) for match in convs if match]
    stages = range(1 + max(stage for stage, _, _ in units))
    dense = [[name for at, is_dense, name in units if is_dense and at == stage] for stage in stages]
    first = tensors["features.0.0.weight"] if "features.0.0.weight" in tensors else tensors["features.0.weight"]
    small = first.shape[-1] == 3
    stem = "grouped" if "features.0.0.weight" in tensors else "thumbnail" if small else "imagenet"
    last = tensors["features.0.6.weight"] if stem == "grouped" else first
    targets, groups, dilation = [], 1, [1]
    for number in stages[1:]:
        place, target, seen = _transition(tensors, number)
        groups = int(tensors[f"layer{number}.0.0.gamma"].shape[0]) // seen
        targets.append(target)
        dilation.append(dilation[-1] if place == 3 + (groups > 1) else 2 * dilation[-1])
    return {
        "family": "meliusnet" if any(not is_dense for _, is_dense, _ in units) else "binarydensenet",
        "num_blocks": [len(names) for names in dense],
        "growth_rate": [int(tensors[names[0]].shape[0]) for names in dense],
        "stem": stem,
        "stem_channels": int(last.shape[0]),
        "input_channels": int(first.shape[1]),
        "transition_channels": targets,
        "groups": groups,
        "dilation": dilation,
        "num_classes": int(tensors["output.bias"].shape[0]),
        "input_size": 32 if stem == "thumbnail" else 224,
    }


def _transition(tensors: Mapping[str, Array], number: int) -> tuple[int, int, int]:
    """Place, output channels and input channels a group of the convolution."""
    for place in (2, 3, 4):
        weight = tensors.get(f"layer{number}.0.{place}.weight")
        if weight is not None and weight.ndim == 4:
            return place, int(weight.shape[0]), int(weight.shape[1])
    raise KeyError(f"the convolution of layer{number}.0")
