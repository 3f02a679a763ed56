"""BMXNet's first version: MXNet's symbolic ResNet with packed binary weights (hpi-xnor/BMXNet, ``smd_hpi/binary_models``).

A packed filter is uint64 words in a container of float64, its bits in the order (input channel, row, column), set for +1.
Where BMXNet counts equal signs, in [0, K], ours gives the dot product in [-K, K]: twice the count, less K. All sums of counts
go into a batch norm, which takes the difference, and the epsilon 2e-5."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from meliuscli.arch.families.bmxnet import BMXNetResNetSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import spec_from_fields
from meliuscli.data.names import CLASS_NAMES
from meliuscli.data.preprocessing import Preprocessing
from meliuscli.errors import BadInputError
from meliuscli.exchange.tensors import Array, Imported, Taker, signs_of

EPS = 2e-5
WORD = 64
RGB_MEAN = (123.68, 116.779, 103.939)
"""Subtracted from bytes by the example's trainer (``--rgb-mean``); the variance is the first batch norm's."""


def read_bmxnet(path: object, tensors: Mapping[str, Array], asked: ArchSpec | None) -> Imported:
    """The ResNet of a file, as ``asked`` or, for None, as the file's shapes say.

    Raises ``BadInputError`` where tensors do not fit, or ``asked`` is of another family."""
    if asked is not None and not isinstance(asked, BMXNetResNetSpec):
        raise BadInputError(f"{path}: is a ResNet of BMXNet, and --arch a {asked.family}", "leave --arch out")
    spec = _spec_of(path, tensors) if asked is None else asked
    taker = Taker(path, tensors)
    _norm(taker, "bn_data", "input_norm", spec.input_channels, fix_gamma=True)
    kernel = 3 if spec.stem == "thumbnail" else 7
    taker.copy("arg:conv0_weight", "stem.conv.weight", (spec.stem_channels, spec.input_channels, kernel, kernel))
    if spec.stem == "imagenet":
        _norm(taker, "bn0", "stem.bn", spec.stem_channels)
    counts = _stages(taker, spec)
    _norm(taker, "bn1", "head.bn", spec.channels[-1], counts)
    taker.copy("arg:fc1_weight", "head.fc.weight", (spec.num_classes, spec.channels[-1]))
    taker.copy("arg:fc1_bias", "head.fc.bias", (spec.num_classes,))
    state = taker.finish()
    size = spec.input_size
    resize = round(size * 256 / 224) if spec.stem == "imagenet" else size
    mean, std = tuple(value / 255 for value in RGB_MEAN), (1 / 255,) * 3
    names = CLASS_NAMES["cifar10"] if (spec.num_classes, spec.stem) == (10, "thumbnail") else ()
    how = Preprocessing(size, spec.input_channels, resize, size, mean, std, names)
    return Imported(spec, state, how, ("the mean colour that is subtracted is that of the source's trainer",))


def _stages(taker: Taker, spec: BMXNetResNetSpec) -> float:
    """The blocks; what is to be added to our sums, twice BMXNet's, where they enter the head."""
    channels, counts = spec.stem_channels, 0.0
    for stage, (num, width) in enumerate(zip(spec.num_blocks, spec.channels, strict=True), start=1):
        for block in range(1, num + 1):
            theirs, ours = f"stage{stage}_unit{block}_", f"stage{stage}.block{block}."
            _norm(taker, f"{theirs}bn1", f"{ours}bn1", channels, counts)
            _conv(taker, f"{theirs}conv1_weight", f"{ours}conv1", width, channels, 3)
            _norm(taker, f"{theirs}bn2", f"{ours}bn2", width, 9 * channels)
            _conv(taker, f"{theirs}conv2_weight", f"{ours}conv2", width, width, 3)
            if block == 1:
                _conv(taker, f"{theirs}sc_weight", f"{ours}shortcut", width, channels, 1)
            counts = 9 * width + (channels if block == 1 else counts)
            channels = width
    return counts


def _norm(taker: Taker, theirs: str, ours: str, channels: int, counts: float = 0.0, *, fix_gamma: bool = False) -> None:
    """``fix_gamma``: MXNet stores a scale and computes with 1. ``counts`` is K of the sums that enter, 0 for floats."""
    parts = {"beta": f"arg:{theirs}_beta", "mean": f"aux:{theirs}_moving_mean", "var": f"aux:{theirs}_moving_var"}
    gamma = f"arg:{theirs}_gamma"
    if fix_gamma:
        taker.take(gamma, (channels,))
    else:
        parts["gamma"] = gamma
    taker.norm(ours, parts, channels, EPS, factor=0.5 if counts else 1.0, offset=counts)


def _conv(taker: Taker, theirs: str, ours: str, outputs: int, inputs: int, kernel: int) -> None:
    name, shape = f"arg:{theirs}", (outputs, inputs, kernel, kernel)
    packed = taker.tensors.get(name)
    words = outputs * inputs * kernel**2 // WORD
    if inputs % WORD:
        taker.problems.append(f"{name}: {inputs} input channels are no multiple of {WORD}")
    elif packed is not None and packed.dtype == np.dtype("<f8") and packed.shape == (words,):
        taker.taken.add(name)
        taker.put(f"{ours}.weight", signs_of(packed, shape))
        return
    elif packed is not None and packed.shape == shape:  # not packed: latent weights, of which the signs count
        taker.put(f"{ours}.weight", np.where(taker.take(name, shape) >= 0, 1.0, -1.0))
        return
    taker.take(name, (words,))


def _spec_of(path: object, tensors: Mapping[str, Array]) -> BMXNetResNetSpec:
    """What the names and shapes of a file say."""
    found = [re.fullmatch(r"arg:stage(\d{1,2})_unit(\d{1,3})_bn2_gamma", name) for name in tensors]
    units = [(int(match[1]), int(match[2])) for match in found if match]
    stages = range(1, max(stage for stage, _ in units) + 1) if units else ()
    try:
        first = tensors["arg:conv0_weight"].shape
        fields = {
            "family": "bmxnet-resnet",
            "num_blocks": [max(unit for at, unit in units if at == stage) for stage in stages],
            "channels": [int(tensors[f"arg:stage{stage}_unit1_bn2_gamma"].shape[0]) for stage in stages],
            "stem": "thumbnail" if first[-1] == 3 else "imagenet",
            "stem_channels": int(first[0]),
            "input_channels": int(first[1]),
            "input_size": 32 if first[-1] == 3 else 224,
            "num_classes": int(tensors["arg:fc1_bias"].shape[0]),
        }
    except (KeyError, ValueError, IndexError) as error:
        raise BadInputError(f"{path}: no ResNet of BMXNet: it lacks {error}", "--arch names the network") from None
    spec = spec_from_fields(fields, f"{path}: ")
    assert isinstance(spec, BMXNetResNetSpec)
    return spec
