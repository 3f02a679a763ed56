"""What ``meliuscli export`` writes of a network as one file: ONNX, and packed for our runner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from meliuscli.cli.console import answer, status, talk
from meliuscli.errors import FailedError
from meliuscli.units import format_mib

if TYPE_CHECKING:
    from torch import nn

    from meliuscli.arch.spec import ArchSpec
    from meliuscli.data.preprocessing import Preprocessing


ONNX, QONNX, PACKED = "ONNX", "QONNX", "a packed file"
"""Formats, as the lines of ``export`` name them."""


def written(name: str, spec: ArchSpec, path: Path, form: str) -> str:
    """What was written where, in which format, and how large it is."""
    shape = "x".join(map(str, spec.input_shape))
    return f"{path}: {name} ({spec.archid}) at {shape} as {form}, {format_mib(path.stat().st_size)}"


def write_as_packed(name: str, spec: ArchSpec, network: nn.Module, path: Path, how: Preprocessing | None) -> None:
    """Write a packed file, which is held against the network layer by layer."""
    from meliuscli.counting.analytic import count_spec
    from meliuscli.export.packed import IMAGES, write_or_fail

    with status(f"exporting {name}"):
        write_or_fail(network, spec, path, how)
    size, counted = path.stat().st_size, count_spec(spec).total.size_bytes
    answer(
        f"{written(name, spec, path, PACKED)}; counted {format_mib(counted)}, the file is {size / counted - 1:+.1%}\n",
        None,
    )
    answer(
        f"every packed layer is the network's on {IMAGES} random images, and the file, read again, gives the same logits"
        " to the last bit\n",
        None,
    )


def write_as_onnx(name: str, spec: ArchSpec, network: nn.Module, path: Path, how: Preprocessing | None) -> None:
    """Write an ONNX file, and compare it with the network where onnxruntime is installed."""
    from meliuscli.export.onnx import IMAGES, write_onnx

    with status(f"exporting {name}"):
        agreement = write_onnx(network, spec, path, how)
    answer(f"{written(name, spec, path, ONNX)}\n", None)
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
