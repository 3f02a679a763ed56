"""What the tool reads: of every kind a right content, the name of its file, and the function that reads it."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from conftest import TINY_SPACE, run_here
from right import (
    CHECKSUM,
    CONFIGURATION,
    RECIPE,
    RUN,
    c_files,
    checkpoint_seed,
    cifar_seed,
    file_seed,
    idx_seed,
    image_seed,
    journal_seed,
    latency_seed,
    packed_seed,
    run_seed,
    safetensors_seed,
    spec_seed,
    study_seed,
    write_larq,
    write_onnx,
    write_params,
    write_qonnx,
    write_torch,
)

Read = Callable[[Path], object]


def _spec(path: Path) -> object:
    from meliuscli.arch.zoo import load_arch
    from meliuscli.counting.analytic import count_spec

    return count_spec(load_arch(str(path)).spec)


def _space(path: Path) -> object:
    from meliuscli.search.space import load_space

    return load_space(str(path))


def _recipe(path: Path) -> object:
    from meliuscli.training.recipe import find_recipe

    return find_recipe(str(path))


def _study(path: Path) -> object:
    from meliuscli.search.resume import reopen

    (path.parent / "study.json").write_bytes(path.read_bytes())
    (path.parent / "space.toml").write_text(TINY_SPACE, encoding="utf-8")
    return reopen(path.parent)


def _journal(path: Path) -> object:
    from meliuscli.search.addresses import open_backend

    return open_backend(f"journal:{path}", path.parent).storage.get_all_studies()


def _idx(path: Path) -> object:
    from meliuscli.data.idx import read_idx

    return read_idx(path, 3)


def _cifar(path: Path) -> object:
    """A file in place of the first of six right ones."""
    from meliuscli.data.cifar import read_cifar

    for name in (*(f"data_batch_{number}" for number in range(2, 6)), "test_batch"):
        path.with_name(f"{name}{path.suffix}").write_bytes(cifar_seed(is_pickle=not path.suffix))
    return read_cifar(path.parent, 10)


def _image(path: Path) -> object:
    from meliuscli.data.decode import read_image

    return read_image(path, 32)


def _latencies(path: Path) -> object:
    from meliuscli.packed.isa import choose_isa
    from meliuscli.packed.latency import LatencyTable

    return LatencyTable(choose_isa(), path)


def _weights(path: Path) -> object:
    from meliuscli.training.weights import read_spec

    return read_spec(path)


def _packed(path: Path) -> object:
    from meliuscli.export.packed import load_packed

    return load_packed(path)


def _resigned_packed(path: Path) -> object:
    """As one who knows how checksums are made would spoil it; and what is read must run."""
    import torch

    with patch("meliuscli.export.packed._digest", lambda *_: CHECKSUM):
        runner = _packed(path)
    return runner(torch.zeros(1, 3, runner.spec.input_size, runner.spec.input_size))  # type: ignore[attr-defined, operator]


def _resigned_checkpoint(path: Path) -> object:
    with patch("meliuscli.training.checkpoint.tensors_digest", lambda *_: CHECKSUM):
        return _checkpoint(path)


def _run(path: Path) -> object:
    from meliuscli.runs import list_runs, load_run, record_path

    path.rename(record_path(path.parent, RUN))
    list_runs(path.parent)
    return load_run(RUN, path.parent)


def _import(path: Path) -> object:
    from meliuscli.exchange.importing import import_file

    return import_file(path, None, None, path.parent)


def _larq(path: Path) -> object:
    from test_import_larq import small

    from meliuscli.exchange.larq import read_larq

    return read_larq(path, small("birealnet18"))


def _torch(path: Path) -> object:
    from meliuscli.exchange.torch_files import read_torch

    return read_torch(path)


def _onnx(path: Path) -> object:
    from meliuscli.exchange.opened import open_network

    return open_network(str(path), path.parent).way


def _c(path: Path) -> object:
    """A file in place of the right one of a directory of C."""
    from meliuscli.export.c.manifest import read_manifest
    from meliuscli.export.c.reading import read_sources

    directory = path.parent / "net-c"
    for name, content in c_files().items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    path.replace(directory / path.name)
    return read_sources(read_manifest(directory))


class _Training:
    """In place of one that goes on: whatever fits the file."""

    def restore(self, tensors: object, step: int) -> None:
        pass


def _checkpoint(path: Path) -> object:
    from meliuscli.training.checkpoint import Checkpoint

    return Checkpoint(path, {"seed": 0}).restore(_Training())  # type: ignore[arg-type]


def _configuration(path: Path) -> object:
    with contextlib.chdir(path.parent), contextlib.redirect_stdout(io.StringIO()):
        return run_here("count", "meliusnet22", "--no-verify", "--print-config")


def _command_line(path: Path) -> object:
    words = os.fsdecode(path.read_bytes()).split("\n")
    with contextlib.chdir(path.parent), contextlib.redirect_stdout(io.StringIO()):
        return run_here("count", *words)


MALFORMED: dict[str, tuple[Callable[[], bytes], str, Read]] = {
    "spec": (spec_seed, "net.toml", _spec),
    "space": (TINY_SPACE.encode, "space-in.toml", _space),
    "recipe": (lambda: RECIPE, "recipe.toml", _recipe),
    "study": (study_seed, "in.json", _study),
    "journal": (journal_seed, "all.log", _journal),
    "CIFAR": (lambda: cifar_seed(False), "data_batch_1.bin", _cifar),
    "CIFAR's pickles": (lambda: cifar_seed(True), "data_batch_1", _cifar),
    "JPEG": (lambda: image_seed("JPEG"), "0.jpg", _image),
    "PNG": (lambda: image_seed("PNG"), "0.png", _image),
    "table of latencies": (latency_seed, "table.jsonl", _latencies),
    "idx": (idx_seed, "train-images-idx3-ubyte", _idx),
    "weights": (safetensors_seed, "w.safetensors", _weights),
    "packed": (packed_seed, "p.safetensors", _packed),
    "packed, checksum right": (lambda: packed_seed(CHECKSUM), "p.safetensors", _resigned_packed),
    "checkpoint, checksum right": (lambda: checkpoint_seed(CHECKSUM), "c.safetensors", _resigned_checkpoint),
    "run record": (run_seed, "in.json", _run),
    "checkpoint": (checkpoint_seed, "c.safetensors", _checkpoint),
    "configuration": (lambda: CONFIGURATION, "meliuscli.toml", _configuration),
    "command line": (lambda: b"meliusnet22\n--set\ngroups=1\n--input\n64\n--no-verify", "words", _command_line),
    "QONNX": (file_seed("net.onnx", write_qonnx), "net.onnx", _import),
    "ONNX": (file_seed("net.onnx", write_onnx), "net.onnx", _onnx),
    "Keras weights": (file_seed("net.h5", write_larq), "net.h5", _larq),
    "MXNet parameters": (file_seed("net.params", write_params), "net.params", _import),
    "C manifest": (lambda: c_files()["manifest.json"], "manifest.json", _c),
    "C constants": (lambda: c_files()["weights.c"], "weights.c", _c),
    "C source": (lambda: c_files()["kernels.c"], "kernels.c", _c),
    "torch weights": (file_seed("net.pth", write_torch), "net.pth", _torch),
}
