"""Exported files as networks again: a packed file, an ONNX or QONNX file, a directory of C. Nothing of them is executed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from meliuscli.arch.spec import ArchSpec
from meliuscli.errors import BadInputError, MissingError
from meliuscli.exchange.headers import FileKind
from meliuscli.exchange.qonnx import read_qonnx
from meliuscli.export.c.manifest import c_directory, read_manifest
from meliuscli.export.onnx import compare_with_torch
from meliuscli.export.onnx_header import read_constants
from meliuscli.export.packed import load_packed
from meliuscli.export.qonnx_nodes import DOMAIN
from meliuscli.nn.quantized import QuantConv2d, QuantLinear
from meliuscli.nn.quantizers import RPReLU
from meliuscli.packed.unfold import empty_network, network_of_runner, put, put_quantized


def is_qonnx(path: Path) -> bool:
    """Has the file nodes of QONNX? Raises ``MissingError`` where it cannot be read."""
    try:
        return DOMAIN.encode() in path.read_bytes()
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error}") from None


def network_again(path: Path, kind: FileKind, spec: ArchSpec) -> nn.Module:
    """The network of a file in eval mode; ``spec`` is what its header says.

    Raises ``BadInputError`` for a file that is damaged, or that does not hold all that a network is."""
    if kind == "packed":
        return network_of_runner(load_packed(path))
    if kind == "c":
        from meliuscli.export.c.unfolding import read_network

        return read_network(read_manifest(c_directory(path) or path))
    if is_qonnx(path):
        return _network_of_qonnx(path)
    return _network_of_onnx(path, spec)


def _network_of_qonnx(path: Path) -> nn.Module:
    try:
        read = read_qonnx(path, None)
    except BadInputError as error:
        lost = "of a QONNX file FINN's networks alone are read back: of others batch norms are offsets in front of quantizers"
        raise BadInputError(
            f"{path}: {lost} ({error.message})", "--to qonnx copies it; export the run, or the packed file or C, of it"
        ) from None
    network = empty_network(read.spec)
    network.load_state_dict(read.tensors)
    return network


def _network_of_onnx(path: Path, spec: ArchSpec) -> nn.Module:
    """By the names of its constants, which are those of torch's tensors; slopes of PReLU have lost theirs, but not their order. It
    is held against the file where onnxruntime is installed."""
    constants, slopes = read_constants(path)
    network = empty_network(spec)
    try:
        for name, module in network.named_modules():
            for own, tensor in {**dict(module.named_parameters(recurse=False)), **_statistics(module)}.items():
                full = f"{name}.{own}" if name else own
                if full not in constants and _is_slope(module, own) and slopes:
                    put(tensor, slopes.pop(0))
                else:
                    put(tensor, constants[full])
        for name, module in network.named_modules():
            if isinstance(module, QuantConv2d | QuantLinear):
                sizes = constants.get(f"{name}.scale", np.ones(len(module.weight), np.float32))
                put_quantized(name, module, module.weight.detach().clone(), torch.from_numpy(sizes))
    except KeyError as error:
        raise _no_network(path, f"it has no constant {error}") from None
    except (ValueError, RuntimeError) as error:
        raise _no_network(path, str(error)) from None
    agreement = compare_with_torch(network, spec, path.read_bytes())
    if agreement is not None and agreement.equal < agreement.images:
        raise _no_network(path, "what is made of its constants answers otherwise than the file")
    return network


def _no_network(path: Path, why: str) -> BadInputError:
    return BadInputError(f"{path}: {why}", "export the run, or the packed file, that it was made of")


def _statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in module.named_buffers(recurse=False) if value.is_floating_point()}


def _is_slope(module: nn.Module, name: str) -> bool:
    return (isinstance(module, nn.PReLU) and name == "weight") or (isinstance(module, RPReLU) and name == "slope")
