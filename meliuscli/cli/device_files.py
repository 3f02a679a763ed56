"""What ``meliuscli export`` writes of a packed network for other machines: a C library, a QONNX graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from meliuscli.cli.console import answer, status, talk
from meliuscli.cli.network_files import ONNX, PACKED, QONNX, written
from meliuscli.cli.progress import SHELL, Counter
from meliuscli.data.names import DEFAULT_DATASET, check_dataset_name
from meliuscli.errors import BadInputError, FailedError

if TYPE_CHECKING:
    from torch import nn

    from meliuscli.arch.spec import ArchSpec
    from meliuscli.data.preprocessing import Preprocessing
    from meliuscli.export.c.float_network import CNetwork
    from meliuscli.export.c.int8_run import Int8Network
    from meliuscli.packed.runner import PackedNetwork


CALIBRATED, SCORED = 200, 1000
"""Training images that int8 is calibrated on, and test images that it is scored on."""


@dataclass(frozen=True, slots=True)
class InC:
    """How ``--to c`` is done: what names begin with, and float parts in 32 or 8 bits, these on a data set."""

    prefix: str | None = None
    float_bits: int = 32
    dataset: str | None = None
    data: Path | None = None

    def on_data_of(self, weights: str | None, reports: Path) -> InC:
        """With the data set of a run where none is named."""
        from meliuscli.runs import load_run

        if self.dataset is not None or self.float_bits == 32 or not (weights or "").lower().startswith("run:"):
            return self
        name = load_run(str(weights).partition(":")[2], reports).fields["dataset"]["name"]
        return self if name == "unknown" else replace(self, dataset=name)


def in_c_of(to: str, prefix: str | None, float_bits: int, dataset: str | None, data: Path | None) -> InC:
    """Raises ``BadInputError`` for other bits, a prefix that cannot be, and where another format is asked for."""
    from meliuscli.export.c.prefix import require_prefix

    if float_bits not in (8, 32):
        raise BadInputError(f"--float-bits {float_bits}: stem and head have 32 bits, or 8")
    if dataset is not None:
        check_dataset_name(dataset)
    given = {"--prefix": prefix is not None, "--float-bits": float_bits != 32}
    for option, is_given in given.items():
        if is_given and to != "c":
            raise BadInputError(f"{option}: is for --to c")
    if float_bits == 32 and (dataset is not None or data is not None):
        raise BadInputError("--dataset and --data: are for --float-bits 8")
    return InC(None if prefix is None else require_prefix(prefix), float_bits, dataset, data)


def write_as_c(name: str, runner: CNetwork, path: Path, how: Preprocessing | None, in_c: InC, force: bool) -> None:
    """Write a directory of C, compile it where there is a compiler, and compare it with the runner."""
    from meliuscli.export.c.compiled import run_vectors
    from meliuscli.export.c.prefix import prefix_of
    from meliuscli.export.c.writer import make_library, write_library
    from meliuscli.packed.runner import PackedDense

    prefix = prefix_of(name) if in_c.prefix is None else in_c.prefix
    int8, measured = (None, None) if in_c.float_bits == 32 else _in_int8(name, runner, how, in_c)
    with status(f"exporting {name}"):
        library = make_library(runner, name, prefix, how, int8, measured)
        command = run_vectors(library)
        write_library(library, path, force)
    flash, arena, spec = library.flash_bytes, library.arena.size, runner.spec
    answer(f"{path}: {name} ({spec.archid}) at {'x'.join(map(str, spec.input_shape))} in C;", None)
    answer(f" {flash:,} bytes of constants, an arena of {arena:,} bytes\n", None)
    if command is None:
        talk("not compiled: this machine has no C compiler (cc, gcc or clang)")
    else:
        other = "the packed runner" if isinstance(runner, PackedDense) and int8 is None else "its steps in NumPy"
        answer(f"compiled by {command}, it counts and answers as {other}, to the last bit\n", None)
    if measured is not None:
        change = (
            f"top-1 {measured['int8_top1']:.2%} with stem and head in int8, {measured['float32_top1']:.2%} in float32"
        )
        images = f"{measured['images']:,} test images of {measured['dataset']}"
        answer(f"{change}, on {images} (the same class on {measured['equal']:,})\n", None)
    elif library.torch_top1 is not None:
        equal, random = library.torch_top1
        answer(f"torch, which rounds in another order, gives its top-1 on {equal} of {random} random images\n", None)


def copy_as_it_is(source: Path, kind: str, path: Path, force: bool) -> None:
    """An ONNX file, a packed one that is whole, or a directory of C whose library is what this version writes for its weights,
    once more."""
    from meliuscli.exchange.headers import read_header

    if kind == "packed":
        from meliuscli.export.packed import copy_packed

        spec = copy_packed(source, path)
        answer(f"{written(source.name, spec, path, PACKED)}; the same bytes, checked against their digest\n", None)
        return
    spec = read_header(source).named.spec
    if kind == "onnx":
        from meliuscli.exchange.again import is_qonnx
        from meliuscli.results import write_bytes

        write_bytes(path, source.read_bytes())
        answer(f"{written(source.name, spec, path, QONNX if is_qonnx(path) else ONNX)}; the same bytes\n", None)
        return
    from meliuscli.export.c.reading import copy_library

    with status(f"checking {source}"):
        copy_library(source, path, force)
    answer(
        f"{path}: {source.name} ({spec.archid}) in C; the same files, checked against their weights and digests\n", None
    )


def _in_int8(
    name: str, runner: CNetwork, how: Preprocessing | None, in_c: InC
) -> tuple[Int8Network, dict[str, object]]:
    """Stem and head calibrated on training images, and what that costs on test images."""
    import torch

    from meliuscli.data.catalog import load_dataset
    from meliuscli.data.decoding import prepare_and_tell
    from meliuscli.exchange.evaluation import calibration_images, check_classes, evaluate_on
    from meliuscli.exchange.opened import Opened
    from meliuscli.export.c.int8_run import Int8Network

    dataset = DEFAULT_DATASET if in_c.dataset is None else in_c.dataset
    opened = Opened(name, runner.spec, how, {"float32": runner}, {})
    loaded = load_dataset(dataset, in_c.data)
    check_classes(opened, loaded, dataset)
    prepared = prepare_and_tell(loaded, runner.spec.input_size, SHELL)
    with status("calibrating"), torch.inference_mode():
        calibration = calibration_images(opened, prepared, CALIBRATED)
        int8 = Int8Network(runner, calibration)
    both = replace(opened, ways={"float32": runner, "int8": int8})
    with Counter("scoring") as counter:
        result = evaluate_on(both, dataset, prepared, "test", SCORED, counter)
    tops = {f"{way}_top1": scores.top1 for way, scores in result.scores.items()}
    images = {"calibration_images": len(calibration), "images": result.num_images, "equal": result.agreeing}
    return int8, {"dataset": dataset, "split": "test", **images, **tops}


def network_for_c(network: nn.Module, spec: ArchSpec) -> CNetwork:
    """Raises ``BadInputError`` for a family without a C library."""
    from meliuscli.arch.families.dense import runs_whole
    from meliuscli.export.c.chain_fold import require_chained
    from meliuscli.export.c.float_network import runner_for_c

    if not runs_whole(spec):
        require_chained(spec)
    return runner_for_c(network, spec)


def runner_for_qonnx(network: nn.Module, spec: ArchSpec) -> PackedNetwork:
    """Raises ``BadInputError`` for a family of which no QONNX file is made."""
    from meliuscli.export.qonnx import require_qonnx
    from meliuscli.packed.runner import pack

    require_qonnx(spec)
    return pack(network, spec)


def write_as_qonnx(name: str, runner: PackedNetwork, path: Path, how: Preprocessing | None) -> None:
    """Write a QONNX file and compare it with the runner where qonnx is installed."""
    import torch

    from meliuscli.export.qonnx import IMAGES, verdicts, write_qonnx

    with status(f"exporting {name}"):
        images = torch.randn(IMAGES, *runner.spec.input_shape, generator=torch.Generator().manual_seed(0))
        compared = write_qonnx(runner, path, how, images)
    answer(f"{written(name, runner.spec, path, QONNX)}\n", None)
    answer(f"{verdicts(runner.spec)}\n", None)
    if compared is None:
        talk('not run: qonnx is not installed (pip install "meliuscli[qonnx]")')
        return
    equal, difference = compared
    verdict = f"qonnx's executor gives the packed runner's top-1 on {equal} of {IMAGES} random images"
    answer(f"{verdict}; logits differ by at most {difference:.1e} of their spread\n", None)
    if equal < IMAGES:
        # Float layers round in another order, which can turn a sign.
        raise FailedError(f"{path}: {verdict}", "the file was written all the same")
