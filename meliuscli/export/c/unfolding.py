"""The network of a directory of C: its tables back in modules. Nothing of the directory is compiled or executed.

Batch norms are folded there, into weights, into thresholds, or into a scale and a shift. The network that is made has others, but
folds to the same tables to the last bit, which is checked, and so counts and answers as the library."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from torch import nn

from meliuscli.arch.families.dense import DenseFamilySpec, runs_whole
from meliuscli.arch.plan import STEM
from meliuscli.errors import BadInputError
from meliuscli.export.c.chain import BinaryStep, ChainStep, FloatStep, HeadStep, ShortcutStep, SignStep, StemStep
from meliuscli.export.c.chain_fold import fold_chain
from meliuscli.export.c.float_network import runner_for_c
from meliuscli.export.c.manifest import Manifest
from meliuscli.export.c.parts import parts_of
from meliuscli.export.c.reading import read_sources
from meliuscli.export.c.tables import BLOCK, plain
from meliuscli.nn.quantizers import RPReLU, RSign
from meliuscli.packed.convs import fold_convs
from meliuscli.packed.dense import fold_dense
from meliuscli.packed.program import Array
from meliuscli.packed.unfold import before_sign, empty_network, network_of_dense, put, put_norm, put_signs
from meliuscli.packed.words import unpack_bits

Tables = Mapping[str, Array]
"""Constants by name."""


def read_network(manifest: Manifest) -> nn.Module:
    """The network, in eval mode. Raises as ``read_sources``, and ``BadInputError`` where stem and head are in int8."""
    if manifest.is_int8:
        lost = "stem and head are in int8: of their float32 weights 8 bits a weight are left"
        hint = "--to c copies it; export the run or the packed file that it was made of"
        raise BadInputError(f"{manifest.directory}: {lost}", hint)
    constants = read_sources(manifest).tables
    tables: Tables = {table.name: table.values for table in constants}
    spec = manifest.spec
    if runs_whole(spec):
        network = network_of_dense(spec, _dense_tensors(spec, tables))
    else:
        network = empty_network(spec)
        for step in fold_chain(network, spec, fold_convs(network)).steps:
            _fill(network, step, _Own(plain(step.name), tables))
    again = parts_of(runner_for_c(network, spec), manifest.prefix, seeds=()).tables
    if any(one.values.tobytes() != other.values.tobytes() for one, other in zip(constants, again, strict=True)):
        raise BadInputError(
            f"{manifest.directory}: its thresholds are none that a batch norm has", "export the run again"
        )
    return network


class _Own:
    """The tables of one step."""

    def __init__(self, name: str, tables: Tables) -> None:
        self._name, self._tables = name, tables

    def __getitem__(self, what: str) -> Array:
        return self._tables[f"{self._name}_{what}"]

    def __contains__(self, what: str) -> bool:
        return f"{self._name}_{what}" in self._tables


def _rows(values: Array, outputs: int) -> Array:
    """The inverse of ``in_c_blocks``: (outputs, taps)."""
    taps = values.size // outputs
    blocks = np.split(values, range(BLOCK * taps, values.size, BLOCK * taps))
    return np.concatenate([block.reshape(taps, -1).T for block in blocks])


def _dense_tensors(spec: DenseFamilySpec, tables: Tables) -> dict[str, Array]:
    """The packed runner's tensors: thresholds of counts are whole numbers there, which turn the same signs."""
    tensors = fold_dense(empty_network(spec), spec)
    for name, like in tensors.items():
        place, _, what = name.rpartition(".")
        own = _Own(plain(place.removesuffix(".conv")), tables)
        if what == "words":
            tensors[name] = _rows(own["weights"], len(like)).reshape(like.shape)
        elif what == "thresholds":
            counted = [own["count_thresholds"]] if "count_thresholds" in own else []
            tensors[name] = np.concatenate([own["float_thresholds"], *counted]).astype(np.float32)
        elif what == "flips":
            tensors[name] = own["flips"]
        elif place.endswith(".bn"):
            tensors[name] = tables[f"{plain(place.removesuffix('.bn'))}_{what}"]
    for layer in spec.layers():
        if layer.stage == STEM and layer.kind == "conv":
            own = _Own(plain(layer.name), tables)
            like = tensors[f"{layer.name}.weight"]
            tensors[f"{layer.name}.weight"], tensors[f"{layer.name}.bias"] = (
                own["weights"].reshape(like.shape),
                own["bias"],
            )
    for stage in spec.stages():
        if stage.transition is not None:
            name, _, target, groups, *_ = stage.transition
            parts = np.split(tables[f"{name}_weights"], groups)
            tensors[f"{name}.conv.weight"] = np.concatenate([_rows(part, target // groups) for part in parts])
    tensors["head.fc.weight"] = _rows(tables["head_weights"], spec.num_classes)
    tensors["head.fc.bias"] = tables["head_bias"]
    return tensors


def _fill(network: nn.Module, step: ChainStep, own: _Own) -> None:
    """Put the tables of a step where it was folded from."""
    if isinstance(step, StemStep):
        _fill_stem(network, step, own)
    elif isinstance(step, SignStep) and "thresholds" in own:
        shifted = network.get_submodule(step.name)
        assert isinstance(shifted, RSign)
        put(shifted.shift, -own["thresholds"])
    elif isinstance(step, ShortcutStep) and step.weight is not None:
        is_row = isinstance(network.get_submodule(step.name), nn.Sequential)
        conv = f"{step.name}.conv" if is_row else step.name
        _fill_conv(network, conv, _rows(own["weights"], len(step.weight)), own["bias"])
    elif isinstance(step, FloatStep):
        outputs, inputs, kernel, _ = step.weight.shape
        rows = _rows(own["weights"], outputs).reshape(outputs, kernel, kernel, inputs)
        _fill_conv(network, step.name, rows.transpose(0, 3, 1, 2), own["bias"])
    elif isinstance(step, BinaryStep):
        _fill_binary(network, step, own)
    elif isinstance(step, HeadStep):
        weight = _rows(own["weights"], len(step.weight))
        if not step.averages:  # in the order of a map's pixels
            weight = weight.reshape(len(weight), step.size**2, -1).transpose(0, 2, 1)
        fc = network.get_submodule(f"{step.name}.fc")
        assert isinstance(fc, nn.Linear)
        put(fc.weight, weight)
        put(fc.bias, own["bias"])


def _norm_of(conv: str) -> str:
    return re.sub(r"conv(\d*)$", r"bn\1", conv)


def _fill_conv(network: nn.Module, name: str, weight: Array, bias: Array) -> None:
    """A float convolution, and the batch norm behind it where there is one."""
    conv, norm = network.get_submodule(name), _norm_of(name)
    assert isinstance(conv, nn.Conv2d)
    put(conv.weight, weight)
    if norm != name and norm in dict(network.named_modules()):
        put_norm(network.get_submodule(norm), None, bias)


def _fill_stem(network: nn.Module, step: StemStep, own: _Own) -> None:
    for number, conv in enumerate(step.convs):
        _fill_conv(network, conv.name, own[f"weights{number}"], own[f"bias{number}"])
    if step.before is not None:
        put_norm(network.get_submodule("input_norm"), own["image_scale"], own["image_shift"])
    if step.behind is not None:
        put_norm(network.get_submodule(f"{step.name}.norm"), own["norm_scale"], own["norm_shift"])
    if step.signs is not None:
        put_norm(network.get_submodule(f"{step.name}.bn"), *before_sign(own["thresholds"], own["flips"]))


def _fill_binary(network: nn.Module, step: BinaryStep, own: _Own) -> None:
    words = step.weights.words
    bits = unpack_bits(_rows(own["weights"], len(words)).reshape(words.shape), step.weights.channels)
    put_signs(network.get_submodule(step.name), bits.astype(np.int8) * 2 - 1)
    norm = network.get_submodule(_norm_of(step.name))
    if step.affine is not None:
        put_norm(norm, own["scale"], own["shift"])
    else:  # whole numbers, of pixels multiples of a step
        values = own["thresholds"].astype(np.float32) / np.float32(max(step.steps, 1))
        put_norm(norm, *before_sign(values, own["flips"]))
    if step.act is not None:
        act = network.get_submodule(f"{step.name.rpartition('.')[0]}.act")
        assert isinstance(act, RPReLU)
        for what in ("gamma", "slope", "zeta"):
            put(getattr(act, what), own[what])
