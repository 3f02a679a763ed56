"""``meliuscli export``: a network as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from meliuscli.arch.zoo import load_arch
from meliuscli.cli import options
from meliuscli.cli.console import answer, status, talk
from meliuscli.cli.networks import DEFAULT_INPUT, is_own, own_arch, parse_input, with_input
from meliuscli.errors import BadInputError, FailedError
from meliuscli.results import require_directory
from meliuscli.units import format_mib

if TYPE_CHECKING:
    from torch import nn

    from meliuscli.arch.spec import ArchSpec


def export(
    arch: Annotated[
        str | None,
        typer.Option(
            "--arch",
            help="A name, a TOML file, or FILE.py:FACTORY; with --weights run:ID it may be left out.",
            show_default=False,
        ),
    ] = None,
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
        typer.Option("--seed", min=0, help="Which seed of the run (its best on validation).", show_default=False),
    ] = None,
    to: Annotated[
        Literal["onnx", "packed"],
        typer.Option(
            "--to", help="onnx: a graph of standard operators; packed: a bit a binary weight, for our runner."
        ),
    ] = "onnx",
    reports: Annotated[Path, typer.Option("--reports", help="Where recorded runs lie.")] = Path("reports"),
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file (ARCH.onnx or ARCH.packed.safetensors).", show_default=False),
    ] = None,
) -> None:
    """Write a network to a file, run the file, and compare it with the network.

    Without --weights the network is untrained, from --seed (0). The file takes images of --input (default: the size
    that the network was made for, or trained at)."""
    if arch is not None and is_own(arch):
        if weights is not None or set_ or to == "packed":
            raise BadInputError(f"{arch}: is exported untrained, --to onnx; a training of it by --weights run:ID alone")
        name, spec, network = _own_network(arch, input_, seed or 0)
    else:
        name, spec, network = _network(arch, set_ or [], weights, seed, reports)
    if input_ is not None and not (arch is not None and is_own(arch)):
        spec, network = _resized(network, with_input(spec, input_, name), input_)
    suffix = "onnx" if to == "onnx" else "packed.safetensors"
    path = Path(f"{name}.{suffix}") if output is None else output
    require_directory(path, "--output")
    (_to_onnx if to == "onnx" else _to_packed)(name, spec, network, path)


def _to_packed(name: str, spec: ArchSpec, network: nn.Module, path: Path) -> None:
    from meliuscli.counting.analytic import count_spec
    from meliuscli.export.packed import IMAGES, write_packed

    with status(f"exporting {name}"):
        equal = write_packed(network, spec, path)
    if not equal:
        raise FailedError(f"{path}: not written: read again, the file predicts otherwise than the network")
    size, counted = path.stat().st_size, count_spec(spec).total.size_bytes
    answer(
        f"{_written(name, spec, path)}; counted {format_mib(counted)}, the file is {size / counted - 1:+.1%}\n", None
    )
    answer(
        f"every packed layer is the network's on {IMAGES} random images, and the file, read again, gives the same logits"
        " to the last bit\n",
        None,
    )


def _written(name: str, spec: ArchSpec, path: Path) -> str:
    shape = "x".join(map(str, spec.input_shape))
    return f"{path}: {name} ({spec.archid}) at {shape}, {format_mib(path.stat().st_size)}"


def _to_onnx(name: str, spec: ArchSpec, network: nn.Module, path: Path) -> None:
    from meliuscli.export.onnx import IMAGES, write_onnx

    with status(f"exporting {name}"):
        agreement = write_onnx(network, spec, path)
    answer(f"{_written(name, spec, path)}\n", None)
    if agreement is None:
        talk('not run: onnxruntime is not installed (pip install "meliuscli[onnx]")')
        return
    verdict = f"onnxruntime gives torch's top-1 on {agreement.equal} of {agreement.images} random images"
    if agreement.images < IMAGES:
        verdict += (
            f" ({IMAGES - agreement.images} more, on which torch differs from itself by a rounding, do not count)"
        )
    answer(f"{verdict}; logits differ by at most {agreement.difference:.1e} of their spread\n", None)
    if agreement.equal < agreement.images:
        # A last digit in a float layer can flip a sign, which a network that is not sure of itself turns into another answer.
        raise FailedError(f"{path}: {verdict}", "the file was written all the same")


def _resized(network: nn.Module, spec: ArchSpec, text: str) -> tuple[ArchSpec, nn.Module]:
    """The network's weights in one of ``spec``, which is for images of another size, and that spec."""
    from meliuscli.training.network import build_for_training

    resized = build_for_training(spec)
    try:
        resized.load_state_dict(network.state_dict())
    except RuntimeError:
        raise BadInputError(f"--input {text}: the network's weights do not fit images of that shape") from None
    return spec, resized.eval()


def _own_network(arch: str, input_: str | None, seed: int) -> tuple[str, ArchSpec, nn.Module]:
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
    return named.name, named.spec.replace(**changes), network.eval()


def _network(
    arch: str | None, set_: list[str], weights: str | None, seed: int | None, reports: Path
) -> tuple[str, ArchSpec, nn.Module]:
    """What to call the network, its spec, and the network."""
    named = None if arch is None else load_arch(arch, set_)
    if weights is not None and weights.lower().startswith("run:"):
        from meliuscli.runs import load_run

        run = load_run(weights.partition(":")[2], reports)
        if named is not None and named.spec.archid != run.fields["archid"]:
            raise BadInputError(f"--weights {weights}: a training of {run.fields['arch']}, not of {named.name}")
        from meliuscli.training.trained import load_trained

        trained = load_trained(run, seed)
        return str(run.fields["arch"]), trained.spec, trained.network
    if named is None:
        raise BadInputError("--arch: missing", "only --weights run:ID knows its network")
    if weights is not None:
        if seed is not None:
            raise BadInputError("--seed: is for run:ID, or for a network without --weights")
        from meliuscli.training.trained import load_network

        return named.name, named.spec, load_network(named.spec, Path(weights)).network
    import torch

    from meliuscli.nn.build import build

    seed = 0 if seed is None else seed
    torch.manual_seed(seed)
    talk(f"no --weights: {named.name} is untrained, from seed {seed}")
    return named.name, named.spec, build(named.spec).eval()
