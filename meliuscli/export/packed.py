"""One safetensors file of a network with a bit a binary weight and its batch norms folded, and back.

It holds the packed runner's tensors (``meliuscli.packed.dense``). Those of bits, ``NAME.words`` and ``NAME.flips``, are
stored as uint8 without padding, the first channel in the lowest bit; the spec in the metadata says their shapes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import spec_from_fields
from meliuscli.errors import BadInputError, MissingError
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.build import build
from meliuscli.packed.dense import fold_dense
from meliuscli.packed.isa import choose_isa
from meliuscli.packed.program import Array
from meliuscli.packed.runner import PackedDense, pack
from meliuscli.packed.steps import pack_bits
from meliuscli.results import write_bytes

FORMAT = "meliuscli-packed-1"
IMAGES = 4
"""Random images on which the file, read again, must give the runner's logits to the last bit."""


def write_packed(network: nn.Module, spec: ArchSpec, path: Path) -> bool:
    """Write a network in eval mode and read it again; nothing is written where that predicts otherwise (False).

    Raises ``BadInputError`` for a family that does not run packed from end to end, ``MissingError`` without llvmlite
    or where the file cannot be written."""
    if not isinstance(spec, DenseFamilySpec):
        raise BadInputError(f"--to packed: for MeliusNet and BinaryDenseNet, not for {spec.family}")
    runner = pack(network, spec)
    assert isinstance(runner, PackedDense)
    channels = _bit_channels(network)
    stored = {
        name: _bits(value, channels[name]) if name in channels else np.ascontiguousarray(value)
        for name, value in runner.tensors.items()
    }
    about = {"format": FORMAT, "archid": spec.archid, "spec": spec.model_dump_json()}
    content = save(stored, {**about, "sha256": _digest(stored, about)})
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory) / path.name
        write_bytes(made, content)
        again = load_packed(made)
    images = torch.randn(IMAGES, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    equal = torch.equal(runner(images), again(images))
    if equal:
        write_bytes(path, content)
    return equal


def load_packed(path: Path, threads: int = 1) -> PackedDense:
    """The runner of a file. Nothing is executed, and nothing reaches a kernel that does not fit the file's spec in
    every name, shape and type.

    Raises ``MissingError`` where the file is not there, ``BadInputError`` for anything but a whole file of ours."""
    if not path.is_file():
        raise MissingError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise BadInputError(f"{path}: no packed network ({FORMAT})")
            spec = spec_from_fields(json.loads(metadata["spec"]), f"{path}: ")
            stored: dict[str, Array] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = {key: metadata[key] for key in ("format", "archid", "spec")}
            if metadata["sha256"] != _digest(stored, about):
                raise ValueError("its checksum is not that of its content")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path}: corrupt, or no packed network: {error}") from None
    if not isinstance(spec, DenseFamilySpec):
        raise BadInputError(f"{path}: a {spec.family} does not run packed from end to end")
    with torch.random.fork_rng(devices=[]):
        network = build(spec).eval()
    channels, expected = _bit_channels(network), fold_dense(network)
    if odd := sorted(set(stored) ^ set(expected)):
        raise BadInputError(f"{path}: its tensors are not those of its network ({odd[0]})")
    for name, like in expected.items():
        wanted = _bits(like, channels[name]) if name in channels else like
        if stored[name].shape != wanted.shape or stored[name].dtype != wanted.dtype:
            raise BadInputError(f"{path}: {name} is {_form(stored[name])}, not {_form(wanted)}")
        if name in channels:
            stored[name] = _words(stored[name], like.shape, channels[name])
    return PackedDense(spec, stored, choose_isa(), threads)


def _digest(stored: Mapping[str, Array], about: Mapping[str, str]) -> str:
    """SHA-256 over what the file says of itself and all tensors, with their names, types and shapes."""
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(stored):
        sha.update(f"{name} {_form(stored[name])}".encode())
        sha.update(stored[name].tobytes())
    return sha.hexdigest()


def _bit_channels(network: nn.Module) -> dict[str, int]:
    """Names of the runner's tensors that hold bits -> channels."""
    convs = [(name, module) for name, module in network.named_modules() if isinstance(module, BinaryConv2d)]
    return {f"{name}.{what}": conv.weight.shape[1] for name, conv in convs for what in ("words", "flips")}


def _bits(words: Array, channels: int) -> Array:
    """(..., words) of uint32 -> the bits of the channels, one after the other, in bytes."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    return np.packbits(bits[..., :channels], bitorder="little")


def _words(stored: Array, shape: tuple[int, ...], channels: int) -> Array:
    """The inverse of ``_bits``."""
    count = int(np.prod(shape[:-1])) * channels
    bits = np.unpackbits(stored, bitorder="little", count=count)
    return pack_bits(bits.reshape(*shape[:-1], channels).astype(bool))


def _form(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"
