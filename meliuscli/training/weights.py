"""Weights on disk: safetensors, with the network that they are for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from meliuscli.arch.spec import ArchSpec, parse_toml
from meliuscli.arch.zoo import arch_of
from meliuscli.data.preprocessing import KEY, Preprocessing
from meliuscli.errors import BadInputError, no_file
from meliuscli.results import write_bytes


def tensors_digest(tensors: Mapping[str, Tensor], state: str = "") -> str:
    """SHA-256 of names, values and a text that goes with them: safetensors has no checksum of its own, and files of the
    same tensors may differ."""
    digest = hashlib.sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def save_weights(network: nn.Module, spec: ArchSpec, path: Path, preprocessing: Preprocessing | None = None) -> None:
    """Parameters and buffers, atomically; ``archid``, the spec's TOML and the preprocessing go with them.

    Raises ``MissingError`` where the file cannot be written."""
    # Copies: while a network is trained its parameters are views of one long one.
    tensors = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    about = {"archid": spec.archid, "spec": spec.to_toml()}
    if preprocessing is not None:
        about[KEY] = preprocessing.to_json()
    write_bytes(path, save(tensors, about))


def load_weights(network: nn.Module, spec: ArchSpec, path: Path) -> None:
    """Into a network of ``spec``. Nothing is executed.

    Raises ``BadInputError`` when the file is not there, corrupt or another network's."""
    if not path.is_file():
        raise no_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            archid = (file.metadata() or {}).get("archid")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise BadInputError(f"{path}: corrupt, or no safetensors file: {error}") from None
    if archid != spec.archid:
        raise BadInputError(f"{path}: weights of another network ({archid}), not of {spec.archid}")
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise BadInputError(f"{path}: does not fit the network: {str(error).splitlines()[0]}") from None


def read_preprocessing(path: Path) -> Preprocessing | None:
    """What a file of weights says of the images that its network takes; None where it says nothing, as files of before.

    Raises ``BadInputError`` when it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise BadInputError(f"{path}: corrupt, or no safetensors file: {error}") from None
    return Preprocessing.from_json(text, path)


def read_spec(path: Path) -> ArchSpec:
    """The network that a file of weights says it is for.

    Raises ``BadInputError`` when the file is not there or none of ours."""
    if not path.is_file():
        raise no_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("spec")
    except (SafetensorError, OSError) as error:
        raise BadInputError(f"{path}: corrupt, or no safetensors file: {error}") from None
    if text is None:
        raise BadInputError(f"{path}: it does not say which network it is for", "name the network too")
    return arch_of(parse_toml(text.encode(), path), path.stem, (), f"{path}: ").spec
