"""Trained networks opened to be used: of a recorded run, a file of weights, a packed file, an ONNX file or a directory of C.
Each has one way or two to run, and says what its images go through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from meliuscli.arch.spec import ArchSpec, parse_toml
from meliuscli.arch.zoo import arch_of
from meliuscli.data.preprocessing import KEY, Preprocessing
from meliuscli.errors import BadInputError, MeliusError, MissingError, no_file
from meliuscli.export.c.manifest import c_directory, read_manifest
from meliuscli.export.c.shared import open_c
from meliuscli.export.packed import is_packed, load_packed
from meliuscli.export.qonnx_nodes import DOMAIN
from meliuscli.packed.runner import pack
from meliuscli.packed.timing import C
from meliuscli.runs import load_run
from meliuscli.training.trained import Trained, load_network, load_trained
from meliuscli.training.weights import read_preprocessing, read_spec

Way = Callable[[Tensor], Tensor]
"""(N, C, S, S), normalised, -> (N, classes) logits."""


@dataclass(frozen=True, slots=True)
class Opened:
    """``ways`` to run it by name (torch, packed, onnxruntime, C), at least one. ``missing`` says why there are no more."""

    name: str
    spec: ArchSpec
    preprocessing: Preprocessing | None
    ways: dict[str, Way]
    missing: dict[str, str]

    @property
    def way(self) -> Way:
        """The first."""
        return next(iter(self.ways.values()))


def open_network(text: str, reports: Path, seed: int | None = None, threads: int = 1) -> Opened:
    """``run:ID``, a file or a directory of C. Nothing that a file holds is executed; of a directory of C the sources are written
    anew from its numbers, and compiled where they are the same.

    Raises ``BadInputError`` for what is neither and for files that are not there or cannot be read, ``MissingError`` where a
    package is missing."""
    if text.lower().startswith("run:"):
        run = load_run(text.partition(":")[2], reports)
        return _in_torch(f"run:{run.id}", load_trained(run, seed), threads)
    if seed is not None:
        raise BadInputError("--seed: names a training of run:ID, and none is given", "leave it out")
    path = Path(text)
    if (directory := c_directory(path)) is not None:
        if threads > 1:
            raise BadInputError(f"--threads {threads}: a directory of C runs on one thread", "leave it out")
        return _c(directory)
    if path.suffix.lower() not in (".safetensors", ".onnx"):
        raise BadInputError(
            f"{text}: no trained network", "name run:ID, FILE.packed.safetensors, FILE.onnx or a directory of C"
        )
    if not path.is_file():
        raise no_file(path)
    if path.suffix.lower() == ".onnx":
        return _onnx(path, threads)
    if not is_packed(path):
        return _in_torch(path.name, load_network(read_spec(path), path), threads)
    runner = load_packed(path, threads)
    return Opened(path.name, runner.spec, read_preprocessing(path), {"packed": runner}, {})


def _in_torch(name: str, trained: Trained, threads: int) -> Opened:
    ways: dict[str, Way] = {"torch": trained.network}
    missing = {}
    try:
        ways["packed"] = pack(trained.network, trained.spec, None, threads)
    except MeliusError as error:
        missing["packed"] = error.message
    return Opened(name, trained.spec, trained.preprocessing, ways, missing)


def _c(directory: Path) -> Opened:
    manifest = read_manifest(directory)
    return Opened(str(directory), manifest.spec, manifest.preprocessing, {C: open_c(manifest)}, {})


def _onnx(path: Path, threads: int) -> Opened:
    try:
        import onnxruntime
    except ImportError:
        raise MissingError("an ONNX file needs onnxruntime", "pip install 'meliuscli[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its own changes multiply batch norm into signs, which breaks exact ties.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    content = _onnx_bytes(path)
    try:
        # Its fallback is the same provider again, which it announces on stdout.
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        about = session.get_modelmeta().custom_metadata_map
        given = [one.name for one in session.get_inputs()]
    except Exception as error:  # onnxruntime's exceptions have no common class, and text may be none
        raise BadInputError(f"{path}: not run by onnxruntime: {str(error).splitlines()[0][:200]}") from None
    if "spec" not in about or len(given) != 1:
        raise BadInputError(f"{path}: not written by meliuscli: it does not say which network it is")
    spec = arch_of(parse_toml(about["spec"].encode(), path), path.stem, (), f"{path}: ").spec

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {given[0]: images.contiguous().numpy()})[0])

    return Opened(path.name, spec, Preprocessing.from_json(about.get(KEY), path), {"onnxruntime": run}, {})


def _onnx_bytes(path: Path) -> bytes:
    """Raises ``BadInputError`` for a file that cannot be read, or that onnxruntime has no operators for."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error}") from None
    if DOMAIN.encode() in content:
        hint = f"it can be counted, shown and imported; meliuscli import {path} makes a run of it, which can be run"
        raise BadInputError(f"{path}: a QONNX file, whose operators onnxruntime does not have", hint)
    return content
