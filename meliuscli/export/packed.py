"""One safetensors file of a network with a bit a binary weight, and back.

It holds the packed runner's tensors: of MeliusNet and BinaryDenseNet ``fold_dense``'s, of the other families words and scales of
their binary convolutions and all else as torch has it; one behind the other in the order of their names, as the bytes of
one tensor: a header that names each would outweigh the 2 % by which a file of a MeliusNet or BinaryDenseNet may differ from
what is counted (of the others batch norms have four values a channel, where counting takes two). Those of bits, ``NAME.words`` and ``NAME.flips``, are without padding, the first channel in the lowest bit, to
whole bytes; the others are little-endian float32. The spec in the metadata says their names and shapes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from meliuscli.arch.families.dense import runs_whole
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import spec_from_fields
from meliuscli.counting.analytic import count_spec
from meliuscli.data.preprocessing import KEY, Preprocessing
from meliuscli.errors import BadInputError, FailedError, no_file, why_unread
from meliuscli.nn.build import build
from meliuscli.nn.quantizers import SteSign
from meliuscli.packed.convs import fold_convs
from meliuscli.packed.dense import Tensors, fold_dense
from meliuscli.packed.isa import choose_isa
from meliuscli.packed.program import Array
from meliuscli.packed.runner import PackedDense, PackedModule, PackedNetwork, pack
from meliuscli.packed.selftest import check, require_exact
from meliuscli.packed.words import BinaryWeights, pack_bits, unpack_bits
from meliuscli.results import write_bytes
from meliuscli.runs import PACKED_FORMAT

FORMAT = f"{PACKED_FORMAT}2"
TENSOR = "weights"
IMAGES = 4
"""Random images on which every packed layer must be the network's, and the file, read again, must give the runner's
logits to the last bit."""


def write_packed(network: nn.Module, spec: ArchSpec, path: Path, preprocessing: Preprocessing | None = None) -> bool:
    """Write a network in eval mode and read it again; nothing is written where that predicts otherwise (False).

    Raises ``FailedError`` where a packed layer differs from the network's, ``BadInputError`` for a network without
    anything to pack, ``MissingError`` without llvmlite or where the file cannot be written."""
    runner = pack(network, spec)
    images = torch.randn(IMAGES, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    require_exact(check(runner, network, images))
    channels, tensors = _bit_channels(network), _tensors(network, spec)
    pieces = (_bits(value, channels[name]) if name in channels else value for name, value in sorted(tensors.items()))
    stored = np.concatenate([np.ascontiguousarray(piece).reshape(-1).view(np.uint8) for piece in pieces])
    about = {"format": FORMAT, "archid": spec.archid, "spec": spec.model_dump_json()}
    if preprocessing is not None:
        about[KEY] = preprocessing.to_json()
    content = save({TENSOR: stored}, {**about, "sha256": _digest(stored, about)})
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory) / path.name
        write_bytes(made, content)
        again = load_packed(made)
    equal = torch.equal(runner(images), again(images))
    if equal:
        write_bytes(path, content)
    return equal


def write_or_fail(network: nn.Module, spec: ArchSpec, path: Path, preprocessing: Preprocessing | None = None) -> None:
    """As ``write_packed``. Raises ``FailedError`` too where nothing is written."""
    if not write_packed(network, spec, path, preprocessing):
        raise FailedError(f"{path}: not written: read again, the file predicts otherwise than the network")


def is_packed(path: Path) -> bool:
    """Is this a safetensors file of a packed network, whole or not? Raises ``BadInputError`` for no safetensors file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return str((file.metadata() or {}).get("format")).startswith(PACKED_FORMAT)
    except (SafetensorError, OSError) as error:
        raise BadInputError(f"{path}: corrupt, or no safetensors file: {error}") from None


def load_packed(path: Path, threads: int = 1, isa: str | None = None) -> PackedNetwork:
    """The runner of a file. Nothing is executed, and nothing reaches a kernel whose shape is not that of the file's spec.

    Raises ``BadInputError`` for anything but a whole file of ours."""
    if not path.is_file():
        raise no_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise BadInputError(f"{path}: no packed network ({FORMAT})")
            spec = spec_from_fields(json.loads(metadata["spec"]), f"{path}: ")
            stored: Array = file.get_tensor(TENSOR)
            about = {key: metadata[key] for key in ("format", "archid", "spec", KEY) if key in metadata}
            if metadata["sha256"] != _digest(stored, about):
                raise ValueError("its checksum is not that of its content")
            if metadata["archid"] != spec.archid:
                raise ValueError(f"its network is {spec.archid}, not {metadata['archid']}")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInputError(f"{path}: corrupt, or no packed network: {why_unread(error)}") from None
    counted = count_spec(spec).total.size_bytes  # before anything of that size is built
    if not 0.5 * counted < stored.nbytes < 4 * counted:
        raise BadInputError(f"{path}: it has {stored.nbytes:,} bytes of weights, its network about {counted:,}")
    with torch.random.fork_rng(devices=[]):
        network = build(spec).eval()
    channels, expected = _bit_channels(network), sorted(_tensors(network, spec).items())
    sizes = [
        -(-like[..., 0].size * channels[name] // 8) if name in channels else like.nbytes for name, like in expected
    ]
    if stored.dtype != np.uint8 or stored.shape != (sum(sizes),):
        raise BadInputError(f"{path}: its weights are {stored.dtype}{list(stored.shape)}, not uint8[{sum(sizes)}]")
    tensors: Tensors = {}
    for (name, like), piece in zip(expected, np.split(stored, np.cumsum(sizes)[:-1]), strict=True):
        if name in channels:
            tensors[name] = _words(piece, like.shape, channels[name])
        else:
            tensors[name] = piece.copy().view(like.dtype).reshape(like.shape)
    if runs_whole(spec):
        return PackedDense(spec, tensors, choose_isa(isa), threads)
    return PackedModule(network, spec, choose_isa(isa), threads, _filled(network, tensors))


@torch.no_grad()
def _tensors(network: nn.Module, spec: ArchSpec) -> Tensors:
    """What a file holds of a network, by name."""
    if runs_whole(spec):
        return fold_dense(network, spec)
    tensors = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
    stored = {name: value.float().numpy().copy() for name, value in tensors.items()}
    for name, weights in fold_convs(network).items():
        del stored[f"{name}.weight"]
        stored[f"{name}.words"] = weights.words
        if weights.scale is not None and not isinstance(network.get_submodule(f"{name}.quantizer"), SteSign):
            stored[f"{name}.scale"] = weights.scale
    return stored


@torch.no_grad()
def _filled(network: nn.Module, tensors: Tensors) -> dict[str, BinaryWeights]:
    """The binary convolutions exactly as they were packed; all else of a file's tensors goes into the network."""
    weights = {}
    for name, made in fold_convs(network).items():
        scale = tensors.pop(f"{name}.scale", made.scale)
        weights[name] = replace(made, words=tensors.pop(f"{name}.words"), scale=scale)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()}, strict=False)
    return weights


def copy_packed(path: Path, to: Path) -> ArchSpec:
    """Write a packed file again, which must be whole. Raises as ``load_packed``, and where ``to`` cannot be written."""
    runner = load_packed(path)
    write_bytes(to, path.read_bytes())
    return runner.spec


def _digest(stored: Array, about: Mapping[str, str]) -> str:
    """SHA-256 over what the file says of itself, and its bytes."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode() + stored.tobytes()).hexdigest()


def _bit_channels(network: nn.Module) -> dict[str, int]:
    """Names of the tensors that hold bits -> channels."""
    convs = fold_convs(network).items()
    return {f"{name}.{what}": weights.channels for name, weights in convs for what in ("words", "flips")}


def _bits(words: Array, channels: int) -> Array:
    """(..., words) of uint32 -> the bits of the channels, one after the other, in bytes."""
    return np.packbits(unpack_bits(words, channels), bitorder="little")


def _words(stored: Array, shape: tuple[int, ...], channels: int) -> Array:
    """The inverse of ``_bits``."""
    count = int(np.prod(shape[:-1])) * channels
    bits = np.unpackbits(stored, bitorder="little", count=count)
    return pack_bits(bits.reshape(*shape[:-1], channels).astype(bool))
