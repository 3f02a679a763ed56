"""Files of BMXNet-v2: Gluon's names for the layers of MeliusNet and BinaryDenseNet, and what its examples compute with them, written
down once more (hpi-xnor/BMXNet-v2-examples, ``binary_models/basenet_dense.py``, ``meliusnet.py`` and ``common_layers.py``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_import import write_params
from torch import Tensor

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.zoo import NamedArch, load_arch, load_name
from meliuscli.errors import BadInputError
from meliuscli.exchange.importing import import_file
from meliuscli.training.trained import load_trained


class Gluon:
    """Layers by their places, with random tensors."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.random = torch.Generator().manual_seed(0)

    def weight(self, name: str, *shape: int) -> Tensor:
        self.tensors[name] = torch.randn(shape, generator=self.random)
        return self.tensors[name]

    def norm(self, x: Tensor, place: str) -> Tensor:
        keys = ("running_mean", "running_var", "gamma", "beta")
        mean, var, gamma, beta = (self.weight(f"{place}.{key}", x.shape[1]) for key in keys)
        var.square_().add_(0.02)
        return F.batch_norm(x, mean, var, gamma, beta, eps=1e-5)

    def conv(self, x: Tensor, place: str, width: int, kernel: int, stride: int = 1, groups: int = 1) -> Tensor:
        weight = self.weight(f"{place}.weight", width, x.shape[1] // groups, kernel, kernel)
        return F.conv2d(x, weight, stride=stride, padding=kernel // 2, groups=groups)

    def activated_conv(self, x: Tensor, place: str, width: int, dilation: int) -> Tensor:
        weight = self.weight(f"{place}.qconv.weight", width, x.shape[1], 3, 3)
        signs, weight = (torch.where(value >= 0, 1.0, -1.0) for value in (x, weight))
        x = F.conv2d(F.pad(signs, (dilation,) * 4, value=-1), weight, dilation=dilation)
        return (x + weight[0].numel()) / 2

    def stem(self, x: Tensor, kind: str, width: int) -> Tensor:
        if kind == "thumbnail":
            return self.conv(x, "features.0", width, 3)
        if kind == "imagenet":
            x = self.conv(x, "features.0", width, 7, 2)
        else:
            x = F.relu(self.norm(self.conv(x, "features.0.0", width // 2, 3, 2), "features.0.1"))
            x = F.relu(self.norm(self.conv(x, "features.0.3", width // 2, 3, groups=4), "features.0.4"))
            x = self.conv(x, "features.0.6", width, 3, groups=8)
        return F.max_pool2d(F.relu(self.norm(x, "features.1")), 3, 2, 1)

    def transition(self, x: Tensor, place: str, width: int, groups: int, pools: bool) -> Tensor:
        x, at = self.norm(x, f"{place}.0"), 1
        if pools:
            x, at = F.max_pool2d(x, 2), 2
        x = F.relu(x)
        if groups > 1:
            x, at = F.channel_shuffle(x, 16), at + 1
        return self.conv(x, f"{place}.{at + 1}", width, 1, groups=groups)

    def dense(self, x: Tensor, place: str, growth: int, dilation: int) -> Tensor:
        new = self.activated_conv(self.norm(x, f"{place}.1.0"), f"{place}.1.1", growth, dilation)
        return torch.cat([x, new], 1)

    def improved(self, x: Tensor, place: str, growth: int, dilation: int) -> Tensor:
        better = self.activated_conv(self.norm(x, f"{place}.body.0"), f"{place}.body.1", growth, dilation)
        return torch.cat([x[:, :-growth], x[:, -growth:] + better], 1)

    def network(self, x: Tensor, stem: str, improves: bool, groups: int, dilations: tuple[int, ...]) -> Tensor:
        """Two blocks a stage of growth 16, transitions to 32."""
        x = self.stem(x, stem, 32)
        for stage, dilation in enumerate(dilations):
            if stage:
                x = self.transition(x, f"layer{stage}.0", 32, groups, dilation == 1)
            place = f"layer{stage}.{1 if stage else 0}"
            for unit in range(4 if improves else 2):
                block = self.improved if improves and unit % 2 else self.dense
                x = block(x, f"{place}.{unit}", 16, dilation)
        again = {name: value for name, value in self.tensors.items() if name.startswith(f"{place}.")}
        self.tensors |= {name.replace(place, "current_stage", 1): value for name, value in again.items()}
        x = F.relu(self.norm(x, "finalize.0")).mean((2, 3))
        return x @ self.weight("output.weight", 7, x.shape[1]).t() + self.weight("output.bias", 7)


NETWORKS: dict[str, dict[str, Any]] = {
    "meliusnet22": {"stem": "grouped", "improves": True, "groups": 1, "dilations": (1, 1)},
    "meliusnet-c": {"stem": "grouped", "improves": True, "groups": 4, "dilations": (1, 1, 1)},
    "binarydensenet28": {"stem": "imagenet", "improves": False, "groups": 1, "dilations": (1, 1)},
    "binarydensenet37-dilated": {"stem": "imagenet", "improves": False, "groups": 1, "dilations": (1, 1, 2, 4)},
    "meliusnet23": {"stem": "thumbnail", "improves": True, "groups": 2, "dilations": (1, 2)},
}


def written(name: str, path: Path) -> tuple[Gluon, Tensor, Tensor]:
    gluon, how = Gluon(), NETWORKS[name]
    size = 32 if how["stem"] == "thumbnail" else 224
    images = torch.randn(1, 3, size, size, generator=gluon.random)
    answers = gluon.network(images, **how)
    write_params(path, gluon.tensors, "v2")
    return gluon, images, answers


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_answers_as_its_layers_do(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.params"
    _, images, answers = written(name, path)
    trained = load_trained(import_file(path, None, None, tmp_path))
    spec, how = trained.spec, NETWORKS[name]
    assert isinstance(spec, DenseFamilySpec)
    assert (spec.improvement, spec.stem, spec.groups) == (how["improves"], how["stem"], how["groups"])
    assert spec.dilation == how["dilations"]
    with torch.no_grad():
        torch.testing.assert_close(trained.network(images), answers, rtol=1e-4, atol=1e-3 * float(answers.std()))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("delete", "layer1.1.1.body.1.qconv.weight is missing"),
        ("more", "layer7.0.weight 3 is left over"),
        ("again", "current_stage.0.1.0.gamma 32 is left over"),
        ("shape", "output.weight is 7x63, and the network needs 7x64"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "net.params"
    gluon, _, _ = written("meliusnet22", path)
    tensors = dict(gluon.tensors)
    if change == "delete":
        del tensors["layer1.1.1.body.1.qconv.weight"], tensors["current_stage.1.body.1.qconv.weight"]
    elif change == "more":
        tensors["layer7.0.weight"] = torch.zeros(3)
    elif change == "again":
        tensors["current_stage.0.1.0.gamma"] = torch.ones(32)
    else:
        tensors["output.weight"] = tensors["output.weight"][:, 1:]
    write_params(path, tensors, "v2")
    with pytest.raises(BadInputError, match=problem):
        import_file(path, None, None, tmp_path)


def test_other_networks_and_damage_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.params"
    written("meliusnet22", path)
    with pytest.raises(BadInputError, match="--arch is a bnext"):
        import_file(path, NamedArch("bnext-t", load_name("bnext-t")), None, tmp_path)
    other = load_arch("meliusnet22", ["pad_value=0"]).spec
    with pytest.raises(BadInputError, match=r"--arch is a meliusnet, .* pad_value=0"):
        import_file(path, NamedArch("other", other), "bmxnet-v2", tmp_path)
    content = path.read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(BadInputError):
            import_file(path, None, None, tmp_path)
    write_params(path, {"features.0.weight": torch.zeros(3)}, "v2")
    with pytest.raises(BadInputError, match="no network of BMXNet-v2 that is known here"):
        import_file(path, None, None, tmp_path)
