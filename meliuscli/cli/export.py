"""``meliuscli export``: a network as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from meliuscli.cli import options
from meliuscli.cli.device_files import (
    InC,
    copy_as_it_is,
    in_c_of,
    network_for_c,
    runner_for_qonnx,
    write_as_c,
    write_as_qonnx,
)
from meliuscli.cli.exported import AskedExport, Exported
from meliuscli.cli.network_files import write_as_onnx, write_as_packed
from meliuscli.cli.networks import the_one
from meliuscli.counting.footprint import COMPARED, TRACED, require_room
from meliuscli.errors import BadInputError
from meliuscli.exchange.headers import FileKind, file_kind, read_header
from meliuscli.results import require_directory
from meliuscli.runs import REPORTS

To = Literal["onnx", "packed", "c", "qonnx"]
SUFFIXES: dict[To, str] = {"onnx": ".onnx", "packed": ".packed.safetensors", "c": "-c", "qonnx": ".qonnx.onnx"}
NEEDS: dict[To, tuple[int, float]] = {
    "onnx": (16, TRACED),
    "packed": (4, COMPARED),
    "c": (1, TRACED),
    "qonnx": (1, COMPARED),
}
"""The images on which a file is held against its network, and the share of their maps that is there at once."""


def export(
    network_: options.Network = None,
    arch_: options.Arch = None,
    set_: options.Set = None,
    input_: options.Input = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", metavar="run:ID|FILE", help="A recorded run, or a file of weights.", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, max=2**31 - 1, help="Which seed of the run (its best on validation).", show_default=False
        ),
    ] = None,
    to: Annotated[
        To | None,
        typer.Option(
            "--to",
            help="onnx: a graph of standard operators; packed: a bit a binary weight, for our runner; c: a library in"
            " C11, for a microcontroller; qonnx: with BipolarQuant nodes, for FPGA flows (default: by the ending of --output, without that onnx).",
            show_default=False,
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option("--prefix", help="What all names in C begin with (the network's name).", show_default=False),
    ] = None,
    float_bits: Annotated[
        int,
        typer.Option(
            "--float-bits", help="With --to c: 8 for stem and head in int8, calibrated on --dataset, and scored there."
        ),
    ] = 32,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", help="For --float-bits 8 (the run's own, else the embedded one).", show_default=False
        ),
    ] = None,
    data: options.Data = None,
    force: Annotated[bool, typer.Option("--force", help="Write over what is there.")] = False,
    reports: options.Reports = REPORTS,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file (ARCH.onnx, ARCH.packed.safetensors, ARCH.qonnx.onnx), or the directory (ARCH-c).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a network to a file, or as C to a directory, run it, and compare it with the network.

    NETWORK may be left out with --weights, and run:ID stands for both. Without these the network is untrained, from
    --seed (0); --weights run:1a2b writes what was trained. The file takes images of --input (default: the size that the network was made for, or trained at).

    Example: meliuscli export meliusnet22 --input 64 --to packed"""
    to = _format(to, output)
    in_c = in_c_of(to, prefix, float_bits, dataset, data)
    if output is not None:
        _check_place(output, force, to)
    arch = None if network_ is None and arch_ is None else the_one(network_, arch_)
    kind = None if arch is None else file_kind(arch)
    if weights is None and (kind == "weights" or (arch or "").lower().startswith("run:")):
        arch, weights = None, arch
    asked = AskedExport(arch, set_ or [], input_, weights, seed, reports)
    if arch is not None and kind is not None and kind != "weights":
        _again(Path(arch), kind, to, output, in_c, force, asked.is_changed)
        return
    exported = asked.exported(to)
    path = _place(exported.name.replace(":", "-"), output, force, to)
    shape = "x".join(map(str, exported.spec.input_shape))
    what = f"exporting {exported.name} for images of {shape}"
    require_room(exported.spec, *NEEDS[to], what, "take a smaller --input", copies=5)
    _write(exported, to, path, in_c.on_data_of(weights, reports), force)


def _write(exported: Exported, to: To, path: Path, in_c: InC, force: bool) -> None:
    name, spec, network, how = exported.name, exported.spec, exported.network, exported.preprocessing
    if to == "c":
        write_as_c(name, network_for_c(network, spec), path, how, in_c, force)
    elif to == "qonnx":
        write_as_qonnx(name, runner_for_qonnx(network, spec), path, how)
    else:
        (write_as_onnx if to == "onnx" else write_as_packed)(name, spec, network, path, how)


def _again(source: Path, kind: FileKind, to: To, output: Path | None, in_c: InC, force: bool, is_changed: bool) -> None:
    """An exported file in its own format as it is, checked; in another one by what it holds of the network."""
    from meliuscli.exchange.again import is_qonnx, network_again

    own: To = "qonnx" if kind == "onnx" and is_qonnx(source) else kind  # type: ignore[assignment]
    if is_changed:
        raise BadInputError(
            f"{source}: an exported file is written again as it is", "export the run that it was made of"
        )
    if to == own and output is None:
        raise BadInputError(f"{source}: where to? it is there already", "name another place with --output")
    name = source.name.partition(".")[0]
    path = _place(name, output, force, to)
    if to == own and in_c == InC():
        copy_as_it_is(source, kind, path, force)
        return
    header = read_header(source)
    if kind == "packed" and to in ("c", "qonnx"):
        from meliuscli.export.packed import load_packed

        runner = load_packed(source)
        if to == "c":
            write_as_c(name, runner, path, header.preprocessing, in_c, force)
        else:
            write_as_qonnx(name, runner, path, header.preprocessing)
        return
    spec = header.named.spec
    _write(Exported(name, spec, network_again(source, kind, spec), header.preprocessing), to, path, in_c, force)


def _format(asked: To | None, output: Path | None) -> To:
    """What ``--to`` says, or the ending of the file. Raises ``BadInputError`` where they contradict each other, and for an ending
    that no format has where there is no ``--to``."""
    named = None if output is None else _named(output)
    if output is None or (asked is None and named is None and (output == Path("-") or output.is_dir())):
        return asked or "onnx"  # what is no place for a file is refused as such
    if asked is None and named is None:
        endings = ", ".join(f"{ending} ({to})" for to, ending in SUFFIXES.items())
        raise BadInputError(f"--output {output}: no format has this ending", f"add --to, or end it in {endings}")
    # C is written to any directory, and QONNX is ONNX.
    if asked and named and asked != named and named != "c" and (asked, named) != ("qonnx", "onnx"):
        raise BadInputError(f"--output {output}: its ending is for {named}, and --to is {asked}", "leave one out")
    return asked or named  # type: ignore[return-value]


def _named(output: Path) -> To | None:
    """The format that has the ending of this name."""
    endings: dict[str, To] = {".qonnx.onnx": "qonnx", ".onnx": "onnx", ".safetensors": "packed", "-c": "c"}
    return next((to for ending, to in endings.items() if output.name.lower().endswith(ending)), None)


def _place(name: str, output: Path | None, force: bool, to: To) -> Path:
    """Where to write: ``output``, or what the network's name and the format make. Raises as ``_check_place``."""
    path = Path(f"{name}{SUFFIXES[to]}") if output is None else output
    _check_place(path, force, to)
    return path


def _check_place(path: Path, force: bool, to: To) -> None:
    """Refuse a place that cannot be written to, or what is there, before anything is computed."""
    if path == Path("-"):
        raise BadInputError("--output -: a network is no text for stdout", "name a file")
    require_directory(path, "--output")
    if to == "c":
        from meliuscli.export.c.writer import require_free

        require_free(path, force)
    elif path.is_dir():
        raise BadInputError(f"--output {path}: it is a directory", "name a file in it")
    elif path.exists() and path.is_file() and not force:
        raise BadInputError(f"{path} exists", "name another with --output, or write over it with --force")
