"""Files that claim far more than they hold: each is refused, and takes little memory."""

from __future__ import annotations

import gzip
import json
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from mutate import tried
from right import file_seed, idx_seed, small_spec
from warm import in_child

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
BILLION = 10**9
ROOM = 256 << 20
"""Bytes that reading may take."""


def idx(images: int, size: int = 28) -> bytes:
    return struct.pack(">HBBIII", 0, 8, 3, images, size, size)


def tensor_of_a_billion() -> bytes:
    entry = {"dtype": "F32", "shape": [BILLION, 28, 28], "data_offsets": [0, 4 * BILLION * 784]}
    header = json.dumps({"__metadata__": {"spec": small_spec().to_toml()}, "x": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


def arrays_of_a_billion() -> bytes:
    name = b"arg:conv0_weight"
    array = struct.pack("<I4I", 4, BILLION, 3, 7, 7) + struct.pack("<iii", 1, 0, 0)
    return struct.pack("<QQQ", 0x112, 0, 1) + array + struct.pack("<QQ", 1, len(name)) + name


def onnx_of_a_billion(path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra onnx)")
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[BILLION, 784], raw_data=bytes(8))
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1, 3, 32, 32]) for name in ("images", "logits")]
    node = onnx.helper.make_node("Conv", ["images", "w"], ["logits"])
    graph = onnx.helper.make_graph([node], "net", ends[:1], ends[1:], initializer=[tensor])
    onnx.save(onnx.helper.make_model(graph), str(path))


def hdf5_of_a_billion(path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed (extra larq)")
    with h5py.File(path, "w") as file:  # of a data set that nothing was written to the file holds its shape alone
        group = file.create_group("conv")
        group.create_dataset("kernel:0", (BILLION, 784), dtype="f4", chunks=(1024, 784))
        group.attrs["weight_names"], file.attrs["layer_names"] = [b"kernel:0"], [b"conv"]


CLAIMS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "images": ("idx", lambda: idx(BILLION) + bytes(32)),
    "images in an archive": ("idx", lambda: gzip.compress(idx(BILLION) + bytes(32))),
    "all images that 32 bits count": ("idx", lambda: idx(2**32 - 1, 2**32 - 1) + bytes(32)),
    "an archive that holds more than its header says": (
        "idx",
        lambda: gzip.compress(idx_seed()) + 64 * gzip.compress(bytes(16 << 20)),
    ),
    "a header of a terabyte": ("weights", lambda: struct.pack("<Q", 2**40) + b'{"x"'),
    "a tensor": ("weights", tensor_of_a_billion),
    "a packed tensor": ("packed", tensor_of_a_billion),
    "arrays of MXNet": ("MXNet parameters", arrays_of_a_billion),
    "ONNX": ("QONNX", file_seed("net.onnx", onnx_of_a_billion)),
    "HDF5": ("Keras weights", file_seed("net.h5", hdf5_of_a_billion)),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_of_a_billion_takes_no_memory(claim: str, tmp_path: Path) -> None:
    kind, make = CLAIMS[claim]
    content = make()

    def read() -> tuple[str, str | None]:
        tried(kind, b"\0", tmp_path / "before")  # with what it loads
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        return tried(kind, content, tmp_path / "claim")

    assert in_child(read) == ("refused with 2", None)
