"""``meliuscli export``: a network as a file for other programs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from meliuscli.cli import options
from meliuscli.cli.console import answer, status, talk
from meliuscli.cli.device_files import (
    InC,
    copy_as_it_is,
    in_c_of,
    network_for_c,
    runner_for_qonnx,
    write_as_c,
    write_as_qonnx,
    written,
)
from meliuscli.cli.networks import DEFAULT_INPUT, is_own, load_network, own_arch, parse_input, the_one, with_input
from meliuscli.counting.footprint import COMPARED, TRACED, require_room
from meliuscli.errors import BadInputError, FailedError, MissingError
from meliuscli.exchange.headers import FileKind, file_kind
from meliuscli.results import require_directory
from meliuscli.runs import REPORTS
from meliuscli.units import format_mib

if TYPE_CHECKING:
    from torch import nn

    from meliuscli.arch.spec import ArchSpec
    from meliuscli.data.preprocessing import Preprocessing
    from meliuscli.training.trained import Trained

    Exported = tuple[str, ArchSpec, nn.Module, Preprocessing | None]
    """What to call a network, its spec, the network, and what its images go through where that is known."""

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
            " C11, for a microcontroller; qonnx: with BipolarQuant nodes, for FPGA flows (default: as the file is named, else onnx).",
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
            help="The file (ARCH.onnx or ARCH.packed.safetensors), or the directory (ARCH-c).",
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
    if arch is not None and arch.lower().startswith("run:") and weights is None:
        arch, weights = None, arch
    if arch is not None and (kind := file_kind(arch)) is not None:
        if kind != "weights":
            _again(Path(arch), kind, to, output, in_c, force, bool(set_ or weights or input_))
            return
        if weights is None:
            arch, weights = None, arch
    if is_own(arch or ""):
        name, spec, network, how = _own(str(arch), set_ or [], weights, seed, reports, input_, to)
    else:
        name, spec, network, how = _network(arch, set_ or [], weights, seed, reports, input_)
    path = Path(f"{name.replace(':', '-')}{SUFFIXES[to]}") if output is None else output
    _check_place(path, force, to)
    shape = "x".join(map(str, spec.input_shape))
    require_room(spec, *NEEDS[to], f"exporting {name} for images of {shape}", "take a smaller --input", copies=5)
    if to == "c":
        write_as_c(name, network_for_c(network, spec), path, how, in_c.on_data_of(weights, reports), force)
    elif to == "qonnx":
        write_as_qonnx(name, runner_for_qonnx(network, spec), path, how)
    else:
        (_to_onnx if to == "onnx" else _to_packed)(name, spec, network, path, how)


AGAIN: dict[FileKind, tuple[str, tuple[To, ...]]] = {
    "packed": ("a packed file is written again as it is, --to packed (or c, qonnx)", ("packed", "c", "qonnx")),
    "onnx": ("an ONNX file is written again as it is, --to onnx", ("onnx",)),
    "c": ("a directory of C is written again as it is, --to c", ("c",)),
}
"""What becomes of an exported file, in words, and as what it can be written."""


def _again(source: Path, kind: FileKind, to: To, output: Path | None, in_c: InC, force: bool, is_changed: bool) -> None:
    """An exported file as it is, checked; a packed one in C or QONNX too. Its batch norms are thresholds, of which no ONNX
    graph is made."""
    from meliuscli.export.packed import copy_packed, load_packed
    from meliuscli.training.weights import read_preprocessing

    says, possible = AGAIN[kind]
    if to not in possible or is_changed or (kind == "c" and in_c != InC()):
        raise BadInputError(f"{source}: {says}", "export the run that it was made of")
    if to == kind and output is None:
        raise BadInputError(f"{source}: where to? it is there already", "name another place with --output")
    name = source.name.partition(".")[0]
    path = Path(f"{name}{SUFFIXES[to]}") if output is None else output
    _check_place(path, force, to)
    if kind != "packed":
        copy_as_it_is(source, kind, path, force)
        return
    if to == "packed":
        spec = copy_packed(source, path)
        answer(f"{written(source.name, spec, path)}; the same bytes, checked against their digest\n", None)
        return
    runner, how = load_packed(source), read_preprocessing(source)
    if to == "c":
        write_as_c(name, runner, path, how, in_c, force)
    else:
        write_as_qonnx(name, runner, path, how)


def _format(asked: To | None, output: Path | None) -> To:
    """What ``--to`` says, or the suffix of the file. Raises ``BadInputError`` where they contradict each other."""
    suffix = "" if output is None else output.suffix.lower()
    named: To | None = {".onnx": "onnx", ".safetensors": "packed"}.get(suffix)  # type: ignore[assignment]
    if asked == "qonnx" and named == "onnx":
        return asked
    if asked and named and asked != named:
        raise BadInputError(f"--output {output}: {suffix} is for {named}, and --to is {asked}", "leave one out")
    return asked or named or "onnx"


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


def _to_packed(name: str, spec: ArchSpec, network: nn.Module, path: Path, how: Preprocessing | None) -> None:
    from meliuscli.counting.analytic import count_spec
    from meliuscli.export.packed import IMAGES, write_or_fail

    with status(f"exporting {name}"):
        write_or_fail(network, spec, path, how)
    size, counted = path.stat().st_size, count_spec(spec).total.size_bytes
    answer(f"{written(name, spec, path)}; counted {format_mib(counted)}, the file is {size / counted - 1:+.1%}\n", None)
    answer(
        f"every packed layer is the network's on {IMAGES} random images, and the file, read again, gives the same logits"
        " to the last bit\n",
        None,
    )


def _to_onnx(name: str, spec: ArchSpec, network: nn.Module, path: Path, how: Preprocessing | None) -> None:
    from meliuscli.export.onnx import IMAGES, write_onnx

    with status(f"exporting {name}"):
        agreement = write_onnx(network, spec, path, how)
    answer(f"{written(name, spec, path)}\n", None)
    if agreement is None:
        talk('not run: onnxruntime is not installed (pip install "meliuscli[onnx]")')
        return
    if not agreement.images:
        raise FailedError(
            f"{path}: not compared: on each of {IMAGES} random images torch itself gives another top-1 alone than among others",
            "the file was written all the same; the ties of untrained weights do that, --weights are free of them",
        )
    verdict = f"onnxruntime gives torch's top-1 on {agreement.equal} of {agreement.images} random images"
    if agreement.images < IMAGES:
        verdict += (
            f" ({IMAGES - agreement.images} more, on which torch differs from itself by a rounding, do not count)"
        )
    answer(f"{verdict}; logits differ by at most {agreement.difference:.1e} of their spread\n", None)
    if agreement.optimised < agreement.images == agreement.equal:
        answer(
            f"with onnxruntime's optimisations it is {agreement.optimised} of {agreement.images}: they multiply batch norm"
            " into the signs, and this network's top-1 turns on exact ties\n",
            None,
        )
    if agreement.equal < agreement.images:
        # A last digit in a float layer can flip a sign, which a network that is not sure of itself turns into another answer.
        raise FailedError(f"{path}: {verdict}", "the file was written all the same")


def _resized(network: nn.Module, spec: ArchSpec, text: str) -> nn.Module:
    """The network's weights in one of ``spec``, which is for images of another size."""
    from meliuscli.training.network import build_for_training

    resized = build_for_training(spec)
    try:
        resized.load_state_dict(network.state_dict())
    except RuntimeError:
        raise BadInputError(f"--input {text}: the network's weights do not fit images of that shape") from None
    return resized.eval()


def _own(
    arch: str, set_: list[str], weights: str | None, seed: int | None, reports: Path, input_: str | None, to: str
) -> Exported:
    """A module of the user's own, as it is made or, with a run that this file was trained in, trained."""
    if set_ or to != "onnx":
        raise BadInputError(f"{arch}: a module of your own has no fields to --set, and is exported --to onnx")
    if weights is None:
        return _own_network(arch, input_, seed or 0)
    own_arch(arch, [])  # so the command line names the file that the run's record wants executed
    return _network(None, set_, weights, seed, reports, input_)


def _own_network(arch: str, input_: str | None, seed: int) -> Exported:
    """A module of the user's own as it is made, for images of ``input_``."""
    import torch

    from meliuscli.counting.foreign import count_own, load_module

    channels, height, width = DEFAULT_INPUT if input_ is None else parse_input(input_)
    if height != width:
        raise BadInputError(f"--input {input_}: {arch} is exported for square images only")
    torch.manual_seed(seed)
    talk(f"no --weights: {arch} is untrained, from seed {seed}")
    network, named = load_module(arch), own_arch(arch, [])
    logits = count_own(network, (channels, height, width)).count.total.output
    if len(logits) != 1:
        raise BadInputError(f"{arch}: gives {'x'.join(map(str, logits))} for an image, not logits")
    changes = {"num_classes": logits[0], "input_channels": channels, "input_size": height}
    return named.name, named.spec.replace(**changes), network.eval(), None


def _network(
    arch: str | None, set_: list[str], weights: str | None, seed: int | None, reports: Path, input_: str | None
) -> Exported:
    """For images of ``input_``."""
    if weights is None:
        named = load_network(the_one(arch, None), set_, reports)
        spec = named.spec if input_ is None else with_input(named.spec, input_, named.name)
        return named.name, spec, _untrained(named.name, spec, 0 if seed is None else seed), None
    name, trained = _trained(arch, set_, weights, seed, reports)
    if input_ is None:
        return name, trained.spec, trained.network, trained.preprocessing
    spec = with_input(trained.spec, input_, name)
    how = None if trained.preprocessing is None else trained.preprocessing.at_size(spec.input_size)
    return name, spec, _resized(trained.network, spec, input_), how


def _trained(arch: str | None, set_: list[str], weights: str, seed: int | None, reports: Path) -> tuple[str, Trained]:
    """What to call the network of ``--weights``, and the network."""
    if set_ and (arch is None or weights.lower().startswith("run:")):
        raise BadInputError(f"--set: the network of {weights} is what was trained, and stays so", "leave --set out")
    named = None if arch is None else load_network(arch, set_, reports)
    if weights.lower().startswith("run:"):
        from meliuscli.runs import load_run

        run = load_run(weights.partition(":")[2], reports)
        if named is not None and named.spec.archid != run.fields["archid"]:
            raise BadInputError(
                f"--weights {weights}: a training of {run.fields['arch']}, not of {named.name}",
                "leave the network out: the run knows its own",
            )
        from meliuscli.training.trained import load_trained

        return str(run.fields["arch"]), load_trained(run, seed)
    if seed is not None:
        raise BadInputError("--seed: is for run:ID, or for a network without --weights")
    path = Path(weights)
    if not path.exists() and re.fullmatch("[0-9a-fA-F]{3,8}", weights):
        raise MissingError(f"--weights {weights}: no such file", f"did you mean run:{weights}?")
    from meliuscli.training.trained import load_network as load_weights
    from meliuscli.training.weights import read_spec

    spec = read_spec(path) if named is None else named.spec
    return path.name.removesuffix(path.suffix) if named is None else named.name, load_weights(spec, path)


def _untrained(name: str, spec: ArchSpec, seed: int) -> nn.Module:
    import torch

    from meliuscli.nn.build import build

    torch.manual_seed(seed)
    talk(f"no --weights: {name} is untrained, from seed {seed}")
    return build(spec).eval()
