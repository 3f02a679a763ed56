"""Networks as files, written and read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from meliuscli.api.costing import Network, load
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import NamedArch
from meliuscli.errors import BadInputError

if TYPE_CHECKING:
    from meliuscli.export.onnx import Agreement
    from meliuscli.runs import Run
    from meliuscli.training.trained import Trained


def pack(trained: Trained, path: Path) -> None:
    """Write a trained network with a bit a binary weight, and hold what the file predicts against the network.

    Raises ``FailedError`` where they differ (nothing is written then), ``BadInputError`` for a family that does not run
    packed, or for the name of an ONNX file, ``MissingError`` without the extra ``packed``."""
    from meliuscli.export.packed import write_or_fail

    if path.suffix.lower() == ".onnx":
        raise BadInputError(f"{path}: is no name of a packed file", "export() writes ONNX")
    write_or_fail(trained.network, trained.spec, path, trained.preprocessing)


def export(trained: Trained, path: Path) -> Agreement | None:
    """Write a trained network as ONNX, (N, C, H, W) to logits; on how many random images the file agrees with it, None
    without onnxruntime. Raises ``MissingError`` without the extra ``onnx``, ``BadInputError`` for the name of a packed file."""
    from meliuscli.export.onnx import write_onnx

    if path.suffix.lower() == ".safetensors":
        raise BadInputError(f"{path}: is no name of an ONNX file", "pack() writes a packed one")

    return write_onnx(trained.network, trained.spec, path, trained.preprocessing)


def import_weights(
    path: str | Path, network: Network | None = None, *, source: str | None = None, reports: Path = Path("reports")
) -> Run:
    """A network of another program's file as a recorded run: what ``meliuscli import`` does. ``source`` is its format
    (``bmxnet``), None for what the file's name says. Nothing of the file is executed.

    Raises ``BadInputError`` for a file that is not there, is damaged or does not fit, naming the tensors."""
    from meliuscli.exchange.importing import check_source, import_file

    if source is not None:
        check_source(source)
    asked = None
    if network is not None:
        spec = load(network)
        asked = NamedArch(spec.summary() if isinstance(network, ArchSpec) else str(network), spec)
    return import_file(Path(path), asked, source, reports)
