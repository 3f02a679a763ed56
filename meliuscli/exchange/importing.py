"""``import_file``: a network of another program's file as a recorded run, usable wherever ``run:ID`` is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import NamedArch
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import MELIUS
from meliuscli.errors import BadInputError, unknown_name
from meliuscli.exchange.headers import file_kind
from meliuscli.exchange.tensors import Imported
from meliuscli.nn.build import build
from meliuscli.results import origin, write_record
from meliuscli.runs import Run, new_id, record_path, summary, weights_path
from meliuscli.training.weights import save_weights

MAX_BYTES = 2**32
"""Of a file that is read: the largest network here has 80 MB of latent weights."""
Reader = Callable[[Path, ArchSpec | None], Imported]


def _bmxnet(path: Path, asked: ArchSpec | None) -> Imported:
    from meliuscli.exchange.bmxnet import read_bmxnet
    from meliuscli.exchange.mxnet import read_params

    return read_bmxnet(path, read_params(path), asked)


def _bmxnet_v2(path: Path, asked: ArchSpec | None) -> Imported:
    from meliuscli.exchange.bmxnet_v2 import read_bmxnet_v2
    from meliuscli.exchange.mxnet import read_params

    return read_bmxnet_v2(path, read_params(path), asked)


def _of_mxnet(path: Path) -> str:
    """Which of BMXNet's versions a file of MXNet's is of."""
    from meliuscli.exchange.bmxnet_v2 import is_gluon
    from meliuscli.exchange.mxnet import read_params

    return "bmxnet-v2" if is_gluon(read_params(path)) else "bmxnet"


def _reactnet(path: Path, asked: ArchSpec | None) -> Imported:
    from meliuscli.exchange.reactnet import read_reactnet
    from meliuscli.exchange.torch_files import read_torch

    return read_reactnet(path, read_torch(path), asked)


def _bnext(path: Path, asked: ArchSpec | None) -> Imported:
    from meliuscli.exchange.bnext import read_bnext
    from meliuscli.exchange.torch_files import read_torch

    return read_bnext(path, read_torch(path), asked)


def _qonnx(path: Path, asked: ArchSpec | None) -> Imported:
    from meliuscli.exchange.qonnx import read_qonnx

    return read_qonnx(path, asked)


def _larq(path: Path, asked: ArchSpec | None) -> Imported:
    from meliuscli.exchange.larq import read_larq

    return read_larq(path, asked)


def _ours(path: Path, asked: ArchSpec | None) -> Imported:
    from meliuscli.training.trained import load_network
    from meliuscli.training.weights import read_spec

    if file_kind(str(path)) == "packed":
        hint = "evaluate, predict, bench, count and export take it as it is; import takes run-ID-seedN.safetensors"
        raise BadInputError(f"{path}: a packed network: its weights are signs and thresholds", hint)
    trained = load_network(read_spec(path) if asked is None else asked, path)
    return Imported(trained.spec, dict(trained.network.state_dict()), trained.preprocessing)


def _of_torch(path: Path) -> str:
    """Which network's names a file of torch's has."""
    from meliuscli.exchange.bnext import is_bnext
    from meliuscli.exchange.reactnet import is_reactnet
    from meliuscli.exchange.torch_files import read_torch

    tensors = read_torch(path)
    if is_reactnet(tensors):
        return "reactnet"
    if is_bnext(tensors):
        return "bnext"
    some = ", ".join(sorted(tensors)[:3])
    raise BadInputError(f"{path}: neither a ReActNet nor a BNext: its tensors are called {some} ...")


READERS: Mapping[str, Reader] = {
    "larq": _larq,
    "bmxnet": _bmxnet,
    "bmxnet-v2": _bmxnet_v2,
    "reactnet": _reactnet,
    "bnext": _bnext,
    "qonnx": _qonnx,
    "ours": _ours,
}
"""Format -> its reader."""
SUFFIXES: Mapping[str, Callable[[Path], str]] = {
    ".params": _of_mxnet,
    ".onnx": lambda path: "qonnx",
    **dict.fromkeys((".h5", ".hdf5"), lambda path: "larq"),
    ".safetensors": lambda path: "ours",
    **dict.fromkeys((".pth", ".tar", ".pt"), _of_torch),
}
"""Ending of a file -> what tells its format."""


def import_file(path: Path, asked: NamedArch | None, source: str | None, reports: Path) -> Run:
    """Read a file and record its network as a run in ``reports``, with its weights. ``source`` is a format of ``READERS``,
    ``asked`` the network; None for what the file says.

    Raises ``MissingError`` where a package is missing, ``BadInputError`` for a file that is not there, cannot be read or
    does not fit."""
    digest = _digest(path)
    source = _format(path) if source is None else source
    read = READERS[source](path, None if asked is None else asked.spec)
    network = build(read.spec)
    network.load_state_dict(read.tensors)
    check_finite(network, read.spec, path)
    run_id = new_id(read.spec.archid, digest)
    save_weights(network, read.spec, weights_path(reports, run_id, 0), read.preprocessing)
    name = path.name.removesuffix(path.suffix) if asked is None else asked.name
    record = _record(run_id, name, read, {"file": path.name, "sha256": digest, "format": source})
    write_record(record_path(reports, run_id), record)
    return Run(record_path(reports, run_id), record)


def _digest(path: Path) -> str:
    """SHA-256 of a file that may be read. Raises ``BadInputError`` where it may not."""
    if path.is_dir():
        raise BadInputError(f"{path}: is a directory, not a file of weights")
    if not path.is_file():
        raise BadInputError(f"{path}: no such file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise BadInputError(f"{path}: has {size:,} bytes, more than any network here")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _format(path: Path) -> str:
    """By the file's ending. Raises ``BadInputError`` where that does not tell."""
    tell = SUFFIXES.get(path.suffix.lower())
    if tell is None:
        raise BadInputError(f"{path}: its ending does not say what it is", f"--from names it: {', '.join(READERS)}")
    return tell(path)


def check_source(name: str) -> None:
    """Raise ``BadInputError`` for the name of no format."""
    if name not in READERS:
        raise unknown_name("format", name, READERS, "--from")


@torch.no_grad()
def check_finite(network: torch.nn.Module, spec: ArchSpec, path: Path) -> None:
    """Raise ``BadInputError`` where a network gives no finite logits for a random image."""
    image = torch.randn(1, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    if not torch.isfinite(network.eval()(image)).all():
        raise BadInputError(f"{path}: its network gives logits that are no finite numbers")


def _record(run_id: str, name: str, read: Imported, imported: dict[str, Any]) -> dict[str, Any]:
    """As of a training, which was somebody else's: nothing is claimed of its accuracy."""
    spec, total = read.spec, count_spec(read.spec).total
    costs = {"ops": MELIUS.derive(total).ops, "params": total.params, "size_bytes": total.size_bytes}
    unknown = ("validation_top1", "test_top1", "train_loss", "seconds", "images_per_second")
    return {
        "id": run_id,
        "arch": name,
        "archid": spec.archid,
        "trained_as": spec.model_dump(mode="json"),
        "trained": {"archid": spec.archid, **costs},
        "dataset": {"name": "unknown", "digest": ""},
        "recipe": {"epochs": 0},
        "n": 1,
        **{key: summary([]) for key in ("validation_top1", "test_top1")},
        "runs": [{"seed": 0, **dict.fromkeys(unknown)}],
        "imported": {**imported, "notes": list(read.notes)},
        "preprocessing": None if read.preprocessing is None else asdict(read.preprocessing),
        "origin": origin(),
    }
