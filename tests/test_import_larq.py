"""Files of larq-zoo: read whole, a network answers as its layers do in TensorFlow, written down once more in ``larq_networks``
and, where TensorFlow is there, in larq-zoo itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Cli
from larq_networks import (
    Keras,
    binary_alexnet,
    binary_densenet,
    birealnet,
    dorefanet,
    meliusnet,
    quicknet,
    real2binary,
    resnet_e,
    xnornet,
)
from torch import Tensor

from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import NamedArch, load_arch, load_name
from meliuscli.counting.analytic import count_spec
from meliuscli.errors import BadInputError
from meliuscli.exchange import larq
from meliuscli.exchange.importing import import_file
from meliuscli.exchange.larq_layers import as_larq, expected, take_layers
from meliuscli.exchange.tensors import Array, Taker
from meliuscli.nn.build import build
from meliuscli.training.trained import load_trained

ALEXNET = ["channels=8,12,16,16,8", "hidden=24", "input_size=96"]
RESIDUAL = ["num_blocks=1,2", "channels=8,16", "stem_channels=8"]
DENSE = ["growth_rate=8", "transition_channels=[16]"]
SMALL: dict[str, tuple[Callable[[Keras, Tensor], Tensor], list[str]]] = {
    "binaryalexnet": (binary_alexnet, ALEXNET),
    "xnornet-alexnet": (xnornet, ALEXNET),
    "dorefanet-alexnet": (dorefanet, ALEXNET),
    "birealnet18": (birealnet, RESIDUAL),
    "resnete18": (resnet_e, RESIDUAL),
    "real2binary": (real2binary, ["num_blocks=2,2", *RESIDUAL[1:]]),
    "quicknet": (quicknet, RESIDUAL[:2]),
    "binarydensenet28": (binary_densenet, ["num_blocks=2,2", "stem_channels=8", "dilation=1,2", *DENSE]),
    "meliusnet22": (meliusnet, ["num_blocks=1,2", "stem_channels=32", *DENSE]),
}
"""Narrow networks of every kind that larq-zoo has, by what they are narrowed from."""
ZOO = {
    "BinaryAlexNet": "binaryalexnet",
    "XNORNet": "xnornet-alexnet",
    "DoReFaNet": "dorefanet-alexnet",
    "BiRealNet": "birealnet18",
    "BinaryResNetE18": "resnete18",
    "RealToBinaryNet": "real2binary",
    "BinaryDenseNet28": "binarydensenet28",
    "BinaryDenseNet37": "binarydensenet37",
    "BinaryDenseNet37Dilated": "binarydensenet37-dilated",
    "BinaryDenseNet45": "binarydensenet45",
    "MeliusNet22": "meliusnet22",
    "QuickNetSmall": "quicknet-small",
    "QuickNet": "quicknet",
    "QuickNetLarge": "quicknet-large",
}
"""larq-zoo's names and ours."""


def small(name: str) -> ArchSpec:
    changes = ["num_classes=10", *([] if SMALL[name][1] is ALEXNET else ["input_size=64"]), *SMALL[name][1]]
    return as_larq(load_arch(name, changes).spec)


def written(name: str, path: Path, first: int = 0, above: str = "") -> tuple[Tensor, Tensor]:
    """A file of a narrow network: images, and the logits that it has for them."""
    pytest.importorskip("h5py", reason="h5py is not installed (extra larq)")
    layers, images = Keras(first), torch.randn(3, *small(name).input_shape, generator=torch.Generator().manual_seed(1))
    answers = SMALL[name][0](layers, images)
    layers.write(path, above)
    return images, answers


def imported(path: Path, spec: ArchSpec, images: Tensor) -> Tensor:
    run = import_file(path, NamedArch("asked", spec), None, path.parent)
    with torch.no_grad():
        return load_trained(run).network(images)  # type: ignore[no-any-return]


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours / theirs.std(), theirs / theirs.std(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_a_network_answers_as_its_layers_do(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    images, answers = written(name, path)
    assert_close(imported(path, small(name), images), answers)


@pytest.mark.parametrize("name", ["quicknet", "xnornet-alexnet"])
def test_a_model_and_layers_numbered_on_are_read_too(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    images, answers = written(name, path, first=17, above="model_weights/")
    assert_close(imported(path, small(name), images), answers)


def test_binary_alexnet_with_the_dense_layers_of_larq_zoo_1(tmp_path: Path) -> None:
    h5py, path = pytest.importorskip("h5py", reason="h5py is not installed (extra larq)"), tmp_path / "weights.h5"
    images, answers = written("binaryalexnet", path)
    with h5py.File(path, "a") as file:
        for index in (5, 6, 7):
            old, number = f"quant_conv2d_{index}", f"_{index - 5}" if index > 5 else ""
            kernel = file[f"{old}/{old}/kernel:0"][()][0, 0]
            file.create_dataset(f"quant_dense{number}/quant_dense{number}/kernel:0", data=kernel)
            del file[old]
    assert_close(imported(path, small("binaryalexnet"), images), answers)


# Which network a file is of


def shapes_alone(spec: ArchSpec) -> dict[str, Array]:
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in expected(spec).items()}


@pytest.mark.parametrize("name", larq.NETWORKS)
def test_a_file_says_which_network_it_is_of(name: str) -> None:
    spec = as_larq(load_name(name)).replace(num_classes=37)
    assert larq._nearest(Path(f"{name}_weights.h5"), shapes_alone(spec)) == (name, spec)


@pytest.mark.parametrize("name", larq.NETWORKS)
def test_larqs_borders_change_no_count(name: str) -> None:
    ours, theirs = load_name(name), as_larq(load_name(name))
    ours = ours.replace(input_norm=False) if name == "resnete18" else ours
    first, second = count_spec(ours).total, count_spec(theirs).total
    assert (first.macs, first.weights, first.size_bytes) == (second.macs, second.weights, second.size_bytes)
    assert theirs.archid != ours.archid or theirs == ours


# What does not fit


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("delete", "quant_conv2d 2/kernel is missing"),
        ("more", "dense 1/kernel 3x4 is left over"),
        ("shape", "quant_conv2d 2/kernel is 3x3x16x15, and the network needs 3x3x16x16"),
        ("nan", "quant_conv2d 2/kernel has values that are no finite numbers"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change: str, problem: str, tmp_path: Path) -> None:
    h5py, path = pytest.importorskip("h5py", reason="h5py is not installed (extra larq)"), tmp_path / "weights.h5"
    written("birealnet18", path)
    with h5py.File(path, "a") as file:
        place = "quant_conv2d_2/quant_conv2d_2/kernel:0"
        kernel = file[place][()]
        if change == "more":
            file.create_dataset("dense_1/dense_1/kernel:0", data=np.zeros((3, 4)))
        else:
            del file[place]
        if change in ("shape", "nan"):
            file.create_dataset(place, data=kernel[..., :-1] if change == "shape" else kernel * np.nan)
    with pytest.raises(BadInputError, match=problem):
        import_file(path, NamedArch("asked", small("birealnet18")), None, tmp_path)


def test_a_file_of_another_network_is_bad_input(cli: Cli, tmp_path: Path) -> None:
    """The narrow network is none of larq-zoo's, and nothing of it is recorded."""
    path = tmp_path / "weights.h5"
    written("birealnet18", path)
    result = cli("import", str(path), "--reports", str(tmp_path / "reports"))
    assert result.returncode == 2
    assert "does not fit the network: conv2d 0/kernel is 7x7x3x8, and the network needs 7x7x3x64" in " ".join(
        result.stderr.split()
    )
    assert not (tmp_path / "reports").exists()


def test_a_network_that_larq_zoo_has_otherwise_or_not_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    written("resnete18", path)
    for name, problem in {
        "resnete18": "resnete has padding=same, pad_value=0, input_norm=False",
        "bnext-t": "--arch is a bnext, which is none of larq-zoo's",
    }.items():
        with pytest.raises(BadInputError, match=problem):
            import_file(path, NamedArch(name, load_name(name)), None, tmp_path)


def test_a_file_with_links_or_damage_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed (extra larq)")
    path, other = tmp_path / "net.h5", tmp_path / "other.h5"
    written("quicknet", other)
    with h5py.File(path, "w") as file:
        file["quant_conv2d"] = h5py.ExternalLink(str(other), "quant_conv2d")
    with pytest.raises(BadInputError, match="is a link to elsewhere"):
        import_file(path, None, None, tmp_path)
    content = other.read_bytes()
    for length in (0, 100, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(BadInputError):
            import_file(path, None, None, tmp_path)


# larq-zoo itself


@pytest.fixture(scope="module")
def zoo_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files and logits of all of larq-zoo's networks, made by the interpreter that MELIUSCLI_LARQ names."""
    pytest.importorskip("h5py", reason="h5py is not installed (extra larq)")
    python = os.environ.get("MELIUSCLI_LARQ", sys.executable)
    if subprocess.run([python, "-c", "import larq_zoo"], capture_output=True).returncode:
        pytest.skip("no larq-zoo: MELIUSCLI_LARQ names a python with larq-zoo and tensorflow-cpu==2.15.*")
    directory = tmp_path_factory.mktemp("larq")
    subprocess.run([python, Path(__file__).parent / "larq_logits.py", directory, *ZOO], check=True, capture_output=True)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("theirs", ZOO)
def test_logits_are_larq_zoos_image_by_image(theirs: str, zoo_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, where no rounding turns a sign: in float32 a few of a million signs of an image lie that near to zero."""
    path, stored = zoo_files / f"{theirs}.h5", np.load(zoo_files / f"{theirs}.npz")
    tensors = larq._as_convolutions(larq._numbered(larq.read_keras(path)))
    name, spec = larq._nearest(path, tensors)
    assert name == ZOO[theirs]
    spec = spec.replace(input_size=stored["x"].shape[1])

    def put(taker: Taker, ours: str, values: Array) -> None:
        taker.state[ours] = torch.from_numpy(np.array(values, np.float64))

    monkeypatch.setattr(Taker, "put", put)
    taker = Taker(path, tensors)
    take_layers(taker, spec)
    network = build(spec).eval().double()
    network.load_state_dict(taker.finish())
    with torch.no_grad():
        ours = network(torch.from_numpy(stored["x"]).permute(0, 3, 1, 2)).numpy()
    worst = np.abs(ours - stored["y"]).max(1) / stored["y"].std()
    assert (worst < 1e-10).all(), f"largest difference of a logit in standard deviations, image by image: {worst}"
