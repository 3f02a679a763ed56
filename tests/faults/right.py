"""Right contents of what the tool reads, for others to spoil."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from meliuscli.arch.spec import ArchSpec
from meliuscli.errors import FailedError


def spec_seed() -> bytes:
    from meliuscli.arch.zoo import load_name

    return load_name("meliusnet22").to_toml().encode()


def study_seed() -> bytes:
    settings = {"space": "tiny", "budget": 1e8, "trials": 3, "seed": 0, "sampler": "random", "finalists": 1}
    origin = {
        "command": "x",
        "time": "2026-01-01T00:00",
        "dataset": {"name": "a", "digest": "b"},
        "versions": {},
        "machine": {},
    }
    return json.dumps({"settings": {**settings, "final_seeds": 1, "lag": 4}, "origin": origin}).encode()


def journal_seed() -> bytes:
    lines: list[dict[str, Any]] = [
        {"op_code": 0, "worker_id": "a", "study_name": "tiny", "directions": [2, 1]},
        {"op_code": 4, "worker_id": "a", "study_id": 0, "datetime_start": "2026-01-01T00:00:00.000000+00:00"},
        {"op_code": 8, "worker_id": "a", "trial_id": 0, "user_attr": {"owner": None}},
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def safetensors_seed() -> bytes:
    header = json.dumps(
        {"__metadata__": {"spec": spec_seed().decode()}, "x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


def idx_seed() -> bytes:
    return struct.pack(">HBBIII", 0, 8, 3, 2, 4, 4) + bytes(32)


CHECKSUM = "0" * 64
"""In place of one that is computed."""


def packed_seed(checksum: str | None = None) -> bytes:
    """A packed network, with its own checksum where none is given."""
    from meliuscli.export.packed import write_packed
    from meliuscli.nn.build import build

    spec = small_spec()
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        if checksum is not None:
            stack.enter_context(patch("meliuscli.export.packed._digest", lambda *_: checksum))
        path = Path(place) / "packed.safetensors"
        write_packed(build(spec).eval(), spec, path)
        return path.read_bytes()


def small_spec() -> ArchSpec:
    from meliuscli.arch.zoo import load_changed

    fields = {
        "num_blocks": [1, 1],
        "growth_rate": 32,
        "transition_channels": [32],
        "stem_channels": 32,
        "input_size": 32,
    }
    return load_changed("meliusnet22", {**fields, "num_classes": 10, "groups": 1}).spec


def run_seed() -> bytes:
    from meliuscli.api import train
    from meliuscli.training.recipe import Recipe

    with tempfile.TemporaryDirectory() as place:
        recipe = Recipe(epochs=0.05, batch_size=50, learning_rate=0.01)
        with suppress(FailedError):  # of a training so short; it is recorded before
            train(small_spec(), recipe=recipe, seeds=1, width_divisor=8, device="cpu", reports=Path(place))
        path = next(Path(place).glob("*.json"))
        return path.read_bytes().replace(path.stem.partition("-")[2].encode(), RUN.encode())


def file_seed(name: str, write: Callable[[Path], object]) -> Callable[[], bytes]:
    """What a function writes to a file of this name."""

    def made() -> bytes:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / name
            write(path)
            return path.read_bytes()

    return made


@cache
def c_files() -> dict[str, bytes]:
    """A directory of C, file by file."""
    from meliuscli.export.c.float_network import runner_for_c
    from meliuscli.export.c.writer import make_library, write_library
    from meliuscli.nn.build import build

    spec = small_spec()
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "net-c"
        write_library(make_library(runner_for_c(build(spec).eval(), spec), "net", "net"), directory)
        return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def write_qonnx(path: Path) -> None:
    from test_import import write_qonnx

    write_qonnx(path, conv=False)


def write_onnx(path: Path) -> None:
    import pytest

    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra onnx)")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra onnx)")
    make = onnx.helper
    ends = [make.make_tensor_value_info(name, 1, [1, 3, 32, 32]) for name in ("images", "logits")]
    graph = make.make_graph([make.make_node("Neg", ["images"], ["logits"])], "net", ends[:1], ends[1:])
    model = make.make_model(graph, ir_version=8, opset_imports=[make.make_opsetid("", 17)])
    onnx.helper.set_model_props(model, {"spec": small_spec().to_toml()})
    onnx.save(model, str(path))


def write_larq(path: Path) -> None:
    from test_import_larq import written

    written("birealnet18", path)


def write_params(path: Path) -> None:
    from test_import import bmxnet_arrays, write_params

    write_params(path, bmxnet_arrays((64,)))


def write_torch(path: Path) -> None:
    import torch

    torch.save({"state_dict": {"module.fc.weight": torch.zeros(2, 3)}}, path)


def checkpoint_seed(checksum: str | None = None) -> bytes:
    import torch
    from safetensors.torch import save

    from meliuscli.training.weights import tensors_digest

    tensors = {"fc.weight": torch.zeros(2, 3)}
    progress = {"step": 3, "curve": [], "seconds": 1.0}
    state = json.dumps({"made_for": {"seed": 0}, "progress": progress, "epoch": 1})
    return save(tensors, {"state": state, "digest": checksum or tensors_digest(tensors, state)})


def cifar_seed(is_pickle: bool) -> bytes:
    """Two images, as each of CIFAR-10's six files may hold them."""
    if not is_pickle:
        return b"".join(bytes([label]) + bytes(3072) for label in (3, 9))
    import numpy as np

    return pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [3, 9]}, protocol=2)


def image_seed(kind: str) -> bytes:
    import pytest

    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed (extra images)")
    made = io.BytesIO()
    image.linear_gradient("L").resize((40, 32)).convert("RGB").save(made, kind)
    return made.getvalue()


def latency_seed() -> bytes:
    from meliuscli.packed.isa import choose_isa
    from meliuscli.packed.latency import _line, _made_for

    lines = (_made_for(choose_isa()), ("factor", 1.1), ("constant", 1e-5), ("stem 32", 3e-5))
    return "".join(map(_line, lines)).encode()


CONFIGURATION = b"""format = "json"
threads = 1

[count]
convention = "bmxnet"
input = 64
set = ["groups=1", "num_classes=10"]
"""
RUN = "01234567"
"""The id of the run whose record is changed."""
RECIPE = b"epochs = 1.0\nbatch_size = 64\nlearning_rate = 0.01\nbetas = [0.9, 0.99]\nshift = 2\n"
