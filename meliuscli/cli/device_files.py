"""What ``meliuscli export`` writes of a packed network for other machines: a C library, a QONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from meliuscli.cli.console import answer, status, talk
from meliuscli.errors import BadInputError, FailedError
from meliuscli.units import format_mib

if TYPE_CHECKING:
    from torch import nn

    from meliuscli.arch.spec import ArchSpec
    from meliuscli.data.preprocessing import Preprocessing
    from meliuscli.packed.runner import PackedDense, PackedNetwork


def write_as_c(
    name: str, runner: PackedNetwork, path: Path, how: Preprocessing | None, prefix: str | None, force: bool
) -> None:
    """Write a directory of C, compile it where there is a compiler, and compare it with the runner."""
    from meliuscli.export.c.compiled import run_vectors
    from meliuscli.export.c.writer import make_library, prefix_of, require_prefix, write_library
    from meliuscli.packed.runner import PackedDense

    with status(f"exporting {name}"):
        library = make_library(runner, name, prefix_of(name) if prefix is None else require_prefix(prefix), how)
        command = run_vectors(library)
        write_library(library, path, force)
    flash, arena, spec = library.flash_bytes, library.arena.size, runner.spec
    answer(f"{path}: {name} ({spec.archid}) at {'x'.join(map(str, spec.input_shape))} in C;", None)
    answer(f" {flash:,} bytes of constants, an arena of {arena:,} bytes\n", None)
    if command is None:
        talk("not compiled: this machine has no C compiler (cc, gcc or clang)")
    else:
        other = "the packed runner" if isinstance(runner, PackedDense) else "its steps in NumPy"
        answer(f"compiled by {command}, it counts and answers as {other}, to the last bit\n", None)
    if library.torch_top1 is not None:
        equal, images = library.torch_top1
        answer(f"torch, which rounds in another order, gives its top-1 on {equal} of {images} random images\n", None)


def network_for_c(network: nn.Module, spec: ArchSpec) -> PackedNetwork:
    """Raises ``BadInputError`` for a family without a C library."""
    from meliuscli.arch.families.dense import DenseFamilySpec
    from meliuscli.export.c.chain import require_chained
    from meliuscli.packed.runner import pack

    if not isinstance(spec, DenseFamilySpec):
        require_chained(spec)
    return pack(network, spec)


def packed_runner(network: nn.Module, spec: ArchSpec, to: str) -> PackedDense:
    """Raises ``BadInputError`` for a family that does not run packed from end to end."""
    from meliuscli.arch.families.dense import DenseFamilySpec
    from meliuscli.packed.runner import pack

    if not isinstance(spec, DenseFamilySpec):
        raise BadInputError(f"--to {to}: for MeliusNet and BinaryDenseNet, not for {spec.family}")
    return require_dense(pack(network, spec), to)


def require_dense(runner: PackedNetwork, to: str) -> PackedDense:
    """Raises ``BadInputError`` for the runner of a family that does not run packed from end to end."""
    from meliuscli.packed.runner import PackedDense

    if not isinstance(runner, PackedDense):
        raise BadInputError(f"--to {to}: for MeliusNet and BinaryDenseNet, not for {runner.spec.family}")
    return runner


def write_as_qonnx(name: str, runner: PackedDense, path: Path, how: Preprocessing | None) -> None:
    """Write a QONNX file and compare it with the runner where qonnx is installed."""
    import torch

    from meliuscli.export.qonnx import IMAGES, write_qonnx

    with status(f"exporting {name}"):
        images = torch.randn(IMAGES, *runner.spec.input_shape, generator=torch.Generator().manual_seed(0))
        compared = write_qonnx(runner, path, how, images)
    answer(f"{written(name, runner.spec, path)}\n", None)
    answer("FINN: refuses it, for float maps are joined in every block; hls4ml: not tried\n", None)
    if compared is None:
        talk('not run: qonnx is not installed (pip install "meliuscli[qonnx]")')
        return
    equal, difference = compared
    verdict = f"qonnx's executor gives the packed runner's top-1 on {equal} of {IMAGES} random images"
    answer(f"{verdict}; logits differ by at most {difference:.1e} of their spread\n", None)
    if equal < IMAGES:
        # Float layers round in another order, which can turn a sign.
        raise FailedError(f"{path}: {verdict}", "the file was written all the same")


def written(name: str, spec: ArchSpec, path: Path) -> str:
    """What was written where, and how large it is."""
    shape = "x".join(map(str, spec.input_shape))
    return f"{path}: {name} ({spec.archid}) at {shape}, {format_mib(path.stat().st_size)}"
