"""Networks of other programs: read whole, they answer as their own program's arithmetic does; damaged ones are refused. The
arithmetic is written down here once more, from tensors by their own names."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Cli
from torch import Tensor

from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import NamedArch, load_arch
from meliuscli.counting.analytic import count_spec
from meliuscli.errors import BadInputError
from meliuscli.exchange.importing import import_file
from meliuscli.exchange.mxnet import read_params
from meliuscli.training.trained import load_trained

REAL = Path(os.environ.get("MELIUSCLI_FOREIGN", Path(__file__).parents[2] / "shared" / "data"))
"""Where real files of other programs lie, if any."""
Tensors = Mapping[str, Tensor]


def real(name: str) -> Path:
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"{path} is not there: MELIUSCLI_FOREIGN names the directory of real files")
    return path


def logits(path: Path, images: Tensor, reports: Path, arch: ArchSpec | None = None) -> Tensor:
    """Of a file, imported."""
    run = import_file(path, None if arch is None else NamedArch("asked", arch), None, reports)
    with torch.no_grad():
        return load_trained(run).network(images)  # type: ignore[no-any-return]


def norm(x: Tensor, tensors: Tensors, name: str, eps: float = 1e-5) -> Tensor:
    mean, var = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps=eps)


def random_norm(tensors: dict[str, Tensor], name: str, channels: int) -> None:
    tensors[f"{name}.weight"], tensors[f"{name}.bias"] = torch.randn(channels), 0.3 * torch.randn(channels)
    tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"] = torch.randn(channels), torch.rand(channels) + 0.5
    tensors[f"{name}.num_batches_tracked"] = torch.tensor(7)


# MXNet


def write_params(path: Path, arrays: Mapping[str, Any], layout: str = "old") -> None:
    """As MXNet 0.9 ("old"), 0.11 ("v1") and 1.0 ("v2") write lists of arrays."""
    content = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for array in arrays.values():
        array = np.asarray(array)
        shape = struct.pack(f"<I{array.ndim}{'I' if layout == 'old' else 'q'}", array.ndim, *array.shape)
        magic = {"old": b"", "v1": struct.pack("<I", 0xF993FAC8), "v2": struct.pack("<Ii", 0xF993FAC9, 0)}[layout]
        kind = {np.float32: 0, np.float64: 1}[array.dtype.type]
        content += magic + shape + struct.pack("<iii", 1, 0, kind) + array.tobytes()
    content += struct.pack("<Q", len(arrays))
    for name in arrays:
        content += struct.pack("<Q", len(name)) + name.encode()
    path.write_bytes(content)


def bmxnet_arrays(channels: tuple[int, ...] = (64, 128)) -> dict[str, Any]:
    """A random ResNet of one block a stage, packed."""
    rng, arrays = np.random.default_rng(0), dict[str, Any]()

    def norm_of(name: str, width: int, mean: float = 0.0, scale: float = 1.0) -> None:
        arrays[f"arg:{name}_gamma"] = rng.normal(size=width).astype(np.float32)
        arrays[f"arg:{name}_beta"] = rng.normal(size=width).astype(np.float32)
        arrays[f"aux:{name}_moving_mean"] = (mean + scale * rng.normal(size=width)).astype(np.float32)
        arrays[f"aux:{name}_moving_var"] = (scale**2 * (0.1 + rng.random(width))).astype(np.float32)

    def packed(name: str, values: int) -> None:
        words = rng.integers(0, 2**63, values // 64, np.uint64) * 2 + rng.integers(0, 2, values // 64, np.uint64)
        arrays[f"arg:{name}_weight"] = words.view(np.float64)

    norm_of("bn_data", 3, 5.0, 60.0)
    arrays["arg:conv0_weight"] = rng.normal(size=(channels[0], 3, 3, 3)).astype(np.float32)
    before, total = channels[0], 0
    for stage, width in enumerate(channels, start=1):
        at = f"stage{stage}_unit1_"
        norm_of(f"{at}bn1", before, total / 2, 20.0 if stage > 1 else 2.0)
        norm_of(f"{at}bn2", width, 9 * before / 2, 20.0)
        packed(f"{at}conv1", 9 * before * width)
        packed(f"{at}conv2", 9 * width * width)
        packed(f"{at}sc", before * width)
        before, total = width, 9 * width + before
    norm_of("bn1", before, total / 2, 20.0)
    arrays["arg:fc1_weight"] = rng.normal(size=(10, before)).astype(np.float32)
    arrays["arg:fc1_bias"] = rng.normal(size=10).astype(np.float32)
    return arrays


def bmxnet_logits(arrays: Mapping[str, Any], x: Tensor) -> Tensor:
    """As BMXNet computes: the equal signs are counted, a border of zeros has the sign +1, epsilon 2e-5, bn_data's gamma 1."""
    floats = {name: torch.from_numpy(array.copy()) for name, array in arrays.items() if array.dtype == np.float32}

    def normed(x: Tensor, name: str, fixed: bool = False) -> Tensor:
        gamma = floats[f"arg:{name}_gamma"]
        mean, var = floats[f"aux:{name}_moving_mean"], floats[f"aux:{name}_moving_var"]
        return F.batch_norm(
            x, mean, var, torch.ones_like(gamma) if fixed else gamma, floats[f"arg:{name}_beta"], eps=2e-5
        )

    def counted(x: Tensor, name: str, width: int, kernel: int, stride: int) -> Tensor:
        words = arrays[f"arg:{name}_weight"].view(np.uint64)
        bits = np.array([[word >> np.uint64(j) & np.uint64(1) for j in range(64)] for word in words], np.float32)
        weight = torch.from_numpy(bits.reshape(width, -1, kernel, kernel))
        x = F.pad((x >= 0).float(), (kernel // 2,) * 4, value=1.0)
        return F.conv2d(x, weight, stride=stride) + F.conv2d(1 - x, 1 - weight, stride=stride)

    x = F.conv2d(normed(x, "bn_data", fixed=True), floats["arg:conv0_weight"], padding=1)
    stage = 1
    while f"arg:stage{stage}_unit1_bn2_gamma" in floats:
        unit = 1
        while (at := f"stage{stage}_unit{unit}_") and f"arg:{at}bn2_gamma" in floats:
            width, stride = len(floats[f"arg:{at}bn2_gamma"]), 2 if stage > 1 and unit == 1 else 1
            first = normed(x, f"{at}bn1")
            out = counted(first, f"{at}conv1", width, 3, stride)
            out = counted(normed(out, f"{at}bn2"), f"{at}conv2", width, 3, 1)
            x = out + (counted(first, f"{at}sc", width, 1, stride) if unit == 1 else x)
            unit += 1
        stage += 1
    pooled = F.relu(normed(x, "bn1")).mean((2, 3))
    return pooled @ floats["arg:fc1_weight"].t() + floats["arg:fc1_bias"]


def bytes_like(*shape: int) -> Tensor:
    """Pixels less BMXNet's mean colour."""
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).float() - 115


@pytest.mark.parametrize("layout", ["old", "v1", "v2"])
def test_a_bmxnet_file_answers_as_its_counts_of_equal_signs_do(tmp_path: Path, layout: str) -> None:
    arrays, path, images = bmxnet_arrays(), tmp_path / "net.params", bytes_like(4, 3, 32, 32)
    write_params(path, arrays, layout)
    torch.testing.assert_close(logits(path, images, tmp_path), bmxnet_logits(arrays, images), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_the_real_cifar10_network_of_bmxnet_answers_as_its_counts_do(tmp_path: Path) -> None:
    path, images = real("bmxnet/binarized_cifar10-resnet18-64bit-0000.params"), bytes_like(2, 3, 32, 32)
    expected = bmxnet_logits(read_params(path), images)
    torch.testing.assert_close(logits(path, images, tmp_path), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_the_real_imagenet_network_of_bmxnet_is_read_whole_and_counted_at_its_size(tmp_path: Path) -> None:
    path = real("bmxnet/binarized_imagenet-resnet18-64bit-0040.params")
    run = import_file(path, None, None, tmp_path)
    assert run.fields["archid"] == load_arch("bmxnet-resnet18").spec.archid
    network = load_trained(run)
    norms = sum(len(m.weight) for m in network.network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    # The file stores four values a channel of batch norm, and names.
    counted = run.fields["trained"]["size_bytes"] + 2 * 4 * norms
    assert counted == pytest.approx(path.stat().st_size, rel=0.003)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    arrays, path = bmxnet_arrays(), tmp_path / "net.params"
    del arrays["aux:stage2_unit1_bn1_moving_var"]
    arrays["arg:fc1_weight"] = np.zeros((10, 64), np.float32)
    arrays["arg:extra"] = np.zeros(3, np.float32)
    arrays["arg:stage1_unit1_bn1_beta"][0] = np.nan
    write_params(path, arrays)
    with pytest.raises(BadInputError) as caught:
        import_file(path, None, None, tmp_path)
    for part in (
        "aux:stage2_unit1_bn1_moving_var is missing",
        "arg:fc1_weight is 10x64, and the network needs 10x128",
        "arg:extra 3 is left over",
        "arg:stage1_unit1_bn1_beta has values that are no finite numbers",
    ):
        assert part in str(caught.value)
    assert not list(tmp_path.glob("run-*"))


def test_damaged_files_of_mxnet_are_refused(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.params", tmp_path / "net.params"
    write_params(whole, bmxnet_arrays((64,)))
    content = whole.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [content[: int(length)] for length in rng.integers(0, len(content), 20)]
    damaged += [content + b"x", b"", content[:16] + struct.pack("<Q", 2**63) + content[24:]]
    damaged += [content[:24] + struct.pack("<I", 16) + struct.pack("<16I", *[2**31] * 16) + content[92:]]
    for one in damaged:
        path.write_bytes(one)
        with pytest.raises(BadInputError):
            import_file(path, None, None, tmp_path)
    for at in rng.integers(0, len(content), 40):  # a flipped byte is refused, or a value that stays a number
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :])
        with contextlib.suppress(BadInputError):
            import_file(path, None, None, tmp_path)


# Torch's files


def shifted(x: Tensor, tensors: Tensors, name: str) -> Tensor:
    return x + tensors[f"{name}.bias"]


def scaled_conv(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """torch.sign on both sides, times the mean magnitude of a filter."""
    scale = weight.abs().mean((1, 2, 3))[:, None, None]
    return scale * F.conv2d(x.sign(), weight.sign(), stride=stride, padding=weight.shape[-1] // 2)


REACTNET = load_arch("reactnet-a", ["num_classes=7", "channels=32,64", "strides=1,2", "stem_channels=32"]).spec


def reactnet_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = {"feature.0.conv1.weight": torch.randn(32, 3, 3, 3)}
    random_norm(state, "feature.0.bn1", 32)
    for index, doubles in ((1, False), (2, True)):
        at, width = f"feature.{index}", 64 if doubles else 32
        for name, size in (("11", 32), ("12", 32), ("13", 32), ("21", 32), ("22", width), ("23", width)):
            state[f"{at}.move{name}.bias"] = 0.3 * torch.randn(1, size, 1, 1)
        for name, size in (("1", 32), ("2", width)):
            state[f"{at}.prelu{name}.weight"] = torch.rand(size)
        state[f"{at}.binary_3x3.weights"] = 0.1 * torch.randn(32 * 32 * 9, 1)
        random_norm(state, f"{at}.bn1", 32)
        halves = (("binary_pw_down1", "bn2_1"), ("binary_pw_down2", "bn2_2")) if doubles else (("binary_pw", "bn2"),)
        for conv, bn in halves:
            state[f"{at}.{conv}.weights"] = 0.1 * torch.randn(32 * 32, 1)
            random_norm(state, f"{at}.{bn}", 32)
    state["fc.weight"], state["fc.bias"] = torch.randn(7, 64), torch.randn(7)
    return state


def reactnet_logits(state: Tensors, x: Tensor) -> Tensor:
    x = norm(F.conv2d(x, state["feature.0.conv1.weight"], stride=2, padding=1), state, "feature.0.bn1")

    def rprelu(x: Tensor, at: str, number: str) -> Tensor:
        x = F.prelu(shifted(x, state, f"{at}.move{number}2"), state[f"{at}.prelu{number}.weight"])
        return shifted(x, state, f"{at}.move{number}3")

    for index, stride in ((1, 1), (2, 2)):
        at = f"feature.{index}"
        weight = state[f"{at}.binary_3x3.weights"].view(32, 32, 3, 3)
        out = norm(scaled_conv(shifted(x, state, f"{at}.move11"), weight, stride), state, f"{at}.bn1")
        middle = rprelu(out + (F.avg_pool2d(x, 2) if stride == 2 else x), at, "1")
        signs = shifted(middle, state, f"{at}.move21")
        halves = (
            (("binary_pw_down1", "bn2_1"), ("binary_pw_down2", "bn2_2")) if stride == 2 else (("binary_pw", "bn2"),)
        )
        outs = [
            norm(scaled_conv(signs, state[f"{at}.{conv}.weights"].view(32, 32, 1, 1)), state, f"{at}.{bn}") + middle
            for conv, bn in halves
        ]
        x = rprelu(torch.cat(outs, 1), at, "2")
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def test_a_reactnet_checkpoint_answers_as_its_own_code_does(tmp_path: Path) -> None:
    state, path, images = reactnet_state(), tmp_path / "model_best.pth.tar", torch.randn(4, 3, 224, 224)
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    torch.testing.assert_close(
        logits(path, images, tmp_path, REACTNET), reactnet_logits(state, images), rtol=1e-3, atol=1e-3
    )


def reactnet18_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = {"conv1.weight": torch.randn(64, 3, 7, 7)}
    random_norm(state, "bn1", 64)
    before = 64
    for layer, width in enumerate((64, 128, 256, 512), start=1):
        at = f"layer{layer}.0"
        state[f"{at}.move0.bias"] = 0.3 * torch.randn(1, before, 1, 1)
        state[f"{at}.binary_conv.weight"] = 0.1 * torch.randn(width, before, 3, 3)
        random_norm(state, f"{at}.bn1", width)
        for name in ("move1", "move2"):
            state[f"{at}.{name}.bias"] = 0.3 * torch.randn(1, width, 1, 1)
        state[f"{at}.prelu.weight"] = torch.rand(width)
        if layer > 1:
            state[f"{at}.downsample.1.weight"] = torch.randn(width, before, 1, 1)
            random_norm(state, f"{at}.downsample.2", width)
        before = width
    state["fc.weight"], state["fc.bias"] = torch.randn(5, 512), torch.randn(5)
    return state


def reactnet18_logits(state: Tensors, x: Tensor) -> Tensor:
    x = F.max_pool2d(norm(F.conv2d(x, state["conv1.weight"], stride=2, padding=3), state, "bn1"), 3, 2, 1)
    for layer in (1, 2, 3, 4):
        at, stride = f"layer{layer}.0", 2 if layer > 1 else 1
        weight = state[f"{at}.binary_conv.weight"]
        out = norm(scaled_conv(shifted(x, state, f"{at}.move0"), weight, stride), state, f"{at}.bn1")
        if layer > 1:
            down = F.conv2d(F.avg_pool2d(x, 2), state[f"{at}.downsample.1.weight"])
            x = norm(down, state, f"{at}.downsample.2")
        x = F.prelu(shifted(out + x, state, f"{at}.move1"), state[f"{at}.prelu.weight"])
        x = shifted(x, state, f"{at}.move2")
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def test_a_reactnet_on_resnet_answers_as_its_own_code_does(tmp_path: Path) -> None:
    state, path, images = reactnet18_state(), tmp_path / "model.pth", torch.randn(2, 3, 224, 224)
    torch.save(state, path)
    torch.testing.assert_close(logits(path, images, tmp_path), reactnet18_logits(state, images), rtol=1e-3, atol=1e-3)


def bnext_state(temperature: float = 1e-8) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = {"feature.0.conv1.weight": torch.randn(32, 3, 3, 3), "feature.0.prelu.weight": torch.full((32,), 32.0)}
    random_norm(state, "feature.0.bn1", 32)
    for index, doubles in ((1, False), (2, True)):
        for name in ("Attention", *(("FFN_1", "FFN_2") if doubles else ("FFN",))):
            at, kernel = f"feature.{index}.{name}", 3 if name == "Attention" else 1
            state[f"{at}.move.bias"] = 0.3 * torch.randn(1, 32, 1, 1)
            state[f"{at}.binary_conv.weight"] = torch.randn(32, 32, kernel, kernel)
            for part in ("binary_conv", "binary_activation"):
                state[f"{at}.{part}.temperature"] = torch.full((1,), temperature)
            for part in ("norm1", "norm2"):
                random_norm(state, f"{at}.{part}", 32)
            for part in ("activation1", "activation2"):
                state[f"{at}.{part}.weight"] = torch.rand(32)
            state[f"{at}.se.se.1.weight"], state[f"{at}.se.se.1.bias"] = torch.randn(4, 32, 1, 1), torch.randn(4)
            state[f"{at}.se.se.3.weight"], state[f"{at}.se.se.3.bias"] = torch.randn(32, 4, 1, 1), torch.randn(32)
            state[f"{at}.scale"] = torch.rand(1, 32, 1, 1)
    state["prelu.weight"] = torch.rand(64)
    state["fc.weight"], state["fc.bias"] = torch.randn(1000, 64), torch.randn(1000)
    return state


def bnext_unit(state: Tensors, at: str, x: Tensor, stride: int, attention: bool) -> Tensor:
    residual = F.prelu(x, state[f"{at}.activation1.weight"]) if attention else x
    weight = state[f"{at}.binary_conv.weight"]
    out = F.conv2d(shifted(x, state, f"{at}.move").sign(), weight.sign(), stride=stride, padding=weight.shape[-1] // 2)
    out = F.prelu(norm(out, state, f"{at}.norm1"), state[f"{at}.activation2.weight"])
    if stride == 2:
        residual, x = F.avg_pool2d(residual, 2), F.avg_pool2d(x, 2)
    mix = (state[f"{at}.scale"] * x + (1 - state[f"{at}.scale"]) * out).mean((2, 3), keepdim=True)
    squeezed = F.relu(F.conv2d(mix, state[f"{at}.se.se.1.weight"], state[f"{at}.se.se.1.bias"]))
    out = out * torch.sigmoid(F.conv2d(squeezed, state[f"{at}.se.se.3.weight"], state[f"{at}.se.se.3.bias"]))
    return norm(out * residual if attention else out, state, f"{at}.norm2") + residual


def bnext_logits(state: Tensors, x: Tensor) -> Tensor:
    x = norm(F.conv2d(x, state["feature.0.conv1.weight"], stride=2, padding=1), state, "feature.0.bn1")
    x = bnext_unit(state, "feature.1.FFN", bnext_unit(state, "feature.1.Attention", x, 1, False), 1, False)
    x = bnext_unit(state, "feature.2.Attention", x, 2, True)
    x = torch.cat([bnext_unit(state, f"feature.2.FFN_{n}", x, 1, False) for n in (1, 2)], 1)
    x = F.prelu(x, state["prelu.weight"]).mean((2, 3))
    return F.linear(x, state["fc.weight"], state["fc.bias"])


def test_a_bnext_checkpoint_answers_as_its_own_code_does(tmp_path: Path) -> None:
    state, path, images = bnext_state(), tmp_path / "checkpoint.pth", torch.randn(2, 3, 224, 224)
    torch.save({"state_dict": state}, path)
    torch.testing.assert_close(logits(path, images, tmp_path), bnext_logits(state, images), rtol=1e-3, atol=1e-3)


def test_a_bnext_whose_weights_are_not_binary_yet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(bnext_state(temperature=0.1), path)
    with pytest.raises(BadInputError, match=r"binary_conv\.weight is not binary yet: its temperature is 1\.0e-01"):
        import_file(path, None, None, tmp_path)


class Malicious:
    """Would write a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.marker}",)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, cli: Cli) -> None:
    marker = tmp_path / "marker"
    for name in ("zip.pth", "plain.pth.tar"):
        if name == "zip.pth":
            torch.save({"state_dict": Malicious(marker)}, tmp_path / name)
        else:
            (tmp_path / name).write_bytes(pickle.dumps(Malicious(marker)))
        result = cli("import", str(tmp_path / name), "--reports", str(tmp_path / "runs"))
        assert result.returncode == 2
        assert "refused" in result.stderr or "corrupt" in result.stderr
    assert not marker.exists()


def test_truncated_files_of_torch_are_refused(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "net.pth"
    torch.save(bnext_state(), whole)
    content = whole.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(BadInputError):
            import_file(path, None, None, tmp_path)


def test_the_command_writes_a_run_that_others_take(tmp_path: Path, cli: Cli) -> None:
    path, runs = tmp_path / "net.params", tmp_path / "runs"
    write_params(path, bmxnet_arrays((64,)))
    made = cli("import", str(path), "--reports", str(runs))
    assert made.returncode == 0, made.stderr
    run = made.stdout.partition(": ")[0]
    shown = cli("show", run, "--reports", str(runs))
    assert "imported from net.params (bmxnet," in shown.stdout
    assert "nothing is known of its accuracy here: meliuscli evaluate run:" in shown.stdout
    for word in ("seed 0", "n=1", "unknown", "test is scored once"):  # it was not trained here
        assert word not in shown.stdout + cli("list", "runs", "--reports", str(runs)).stdout
    listed = json.loads(cli("list", "runs", "--reports", str(runs), "--format", "json").stdout)["runs"]
    assert [one["state"] for one in listed] == ["imported"]
    assert cli("count", run, "--reports", str(runs), "--no-verify").returncode == 0


def test_a_file_that_is_not_there_or_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file"):
        import_file(tmp_path / "none.params", None, None, tmp_path)
    (tmp_path / "net.bin").write_bytes(b"x")
    with pytest.raises(BadInputError, match="its ending does not say"):
        import_file(tmp_path / "net.bin", None, None, tmp_path)
    with pytest.raises(BadInputError, match="is a directory"):
        import_file(tmp_path, None, None, tmp_path)


# QONNX


def write_qonnx(path: Path, conv: bool) -> dict[str, np.ndarray]:
    """A random network of FINN's layout, dense or convolutional, and the arrays in it."""
    onnx = pytest.importorskip("onnx")
    make, rng = onnx.helper, np.random.default_rng(0)
    nodes, arrays, at = [], dict[str, np.ndarray](), "images"

    def put(name: str, value: Any) -> str:
        arrays[name] = np.asarray(value, np.float32)
        return name

    def step(kind: str, *others: str, **attributes: Any) -> None:
        nonlocal at
        domain = "qonnx.custom_op.general" if "Quant" in kind else ""
        nodes.append(make.make_node(kind, [at, *others], [f"v{len(nodes)}"], domain=domain, **attributes))
        at = f"v{len(nodes) - 1}"

    def product(index: int, shape: tuple[int, ...]) -> None:
        nonlocal at
        inputs, name = at, f"w{index}"
        at = put(name, rng.normal(size=shape))
        step("BipolarQuant", put(f"scale{index}", [0.5]))
        if len(shape) == 2:
            step("Transpose", perm=[1, 0])
        weight, at = at, inputs
        step("Conv" if len(shape) == 4 else "MatMul", weight)

    def norm_of(index: int, width: int) -> None:
        names = [put(f"{key}{index}", rng.normal(size=width)) for key in ("gamma", "beta", "mean")]
        step("BatchNormalization", *names, put(f"var{index}", 1 + rng.random(width)), epsilon=1e-4)

    step("Mul", put("two", 2.0))
    step("Sub", put("one", [1.0]))
    widths = (8, 8, 8, 8, 16, 16) if conv else ()
    before = 3 if conv else 16
    for index, width in enumerate(widths):
        if index == 0:
            step("Quant", put("pixel", 2.0**-7), put("zero", 0.0), put("bits", 8.0), signed=1, narrow=0)
        product(index, (width, before, 3, 3))
        norm_of(index, width)
        step("BipolarQuant", put(f"sign{index}", [1.0]))
        if index in (1, 3):
            step("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        before = width
    step("Flatten")
    for index, width in enumerate((12, 10), start=10):
        if index == 10 and not conv:
            step("BipolarQuant", put("sign_in", [1.0]))
        product(index, (width, before))
        if index == 10:
            norm_of(index, width)
            step("BipolarQuant", put("sign_mid", [1.0]))
        before = width
    step("Sub", put("tensor_mean", [0.7]))
    step("Div", put("tensor_std", [1.5]))
    inputs = [make.make_tensor_value_info("images", 1, [1, 3, 32, 32] if conv else [1, 1, 4, 4])]
    outputs = [make.make_tensor_value_info(at, 1, [1, 10])]
    initial = [onnx.numpy_helper.from_array(value, name) for name, value in arrays.items()]
    onnx.save(make.make_model(make.make_graph(nodes, "net", inputs, outputs, initial)), str(path))
    return arrays


def qonnx_logits(arrays: Mapping[str, np.ndarray], pixels: Tensor, conv: bool) -> Tensor:
    """As qonnx's executor computes the nodes of ``write_qonnx``, in float64."""
    values = {name: torch.from_numpy(array).double() for name, array in arrays.items()}
    x = 2 * pixels.double() - 1

    def bipolar(x: Tensor, scale: float = 1.0) -> Tensor:
        return torch.where(x >= 0, scale, -scale).double()

    def normed(x: Tensor, index: int) -> Tensor:
        gamma, beta, mean, var = (values[f"{key}{index}"] for key in ("gamma", "beta", "mean", "var"))
        return F.batch_norm(x, mean, var, gamma, beta, eps=1e-4)

    for index in range(6 if conv else 0):
        x = torch.round(x.clamp(-1, 127 / 128) * 128) / 128 if index == 0 else x
        x = bipolar(normed(F.conv2d(x, bipolar(values[f"w{index}"], 0.5)), index))
        x = F.max_pool2d(x, 2) if index in (1, 3) else x
    x = x.flatten(1)
    x = bipolar(normed((x if conv else bipolar(x)) @ bipolar(values["w10"], 0.5).t(), 10))
    return (x @ bipolar(values["w11"], 0.5).t() - values["tensor_mean"]) / values["tensor_std"]


@pytest.mark.parametrize("conv", [False, True])
def test_a_qonnx_file_answers_as_its_nodes_do(tmp_path: Path, conv: bool) -> None:
    path = tmp_path / "net.onnx"
    arrays = write_qonnx(path, conv)
    run = import_file(path, None, None, tmp_path)
    trained = load_trained(run)
    pixels = torch.rand(8, *trained.spec.input_shape, generator=torch.Generator().manual_seed(0))
    assert trained.preprocessing is not None
    with torch.no_grad():
        ours = trained.network(trained.preprocessing.normalise(pixels))
    torch.testing.assert_close(ours.double(), qonnx_logits(arrays, pixels, conv), rtol=1e-4, atol=1e-4)


def test_the_real_tfc_is_counted_by_its_file_and_answers_as_its_nodes_do(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = real("qonnx/TFC_1W1A.onnx")
    trained = load_trained(import_file(path, None, None, tmp_path))
    assert trained.spec.archid == load_arch("tfc").spec.archid
    tensors = {
        t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in onnx.load(path).graph.initializer
    }
    macs = sum(tensors[name].numel() for name in ("38", "46", "54", "62"))
    total = count_spec(trained.spec).total
    assert (total.binary_macs, total.float_macs) == (macs, 0) == (59_008, 0)
    pixels = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert trained.preprocessing is not None
    with torch.no_grad():
        ours = trained.network(trained.preprocessing.normalise(pixels))
    x = pixels.flatten(1) * tensors["32"] - tensors["34"]
    for weight, name in (("38", "features.3"), ("46", "features.7"), ("54", "features.11")):
        x = norm(torch.where(x >= 0, 1.0, -1.0) @ tensors[weight].t(), tensors, name)
    x = torch.where(x >= 0, 1.0, -1.0) @ tensors["62"].t() - tensors["features.15.running_mean"]
    x = x / tensors["76"].sqrt() * tensors["features.15.weight"] + tensors["features.15.bias"]
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


def test_cnv_has_the_macs_that_qonnx_counts() -> None:
    """Of the same layers at 2 bits, CNV_2W2A: qonnx's tests/analysis/test_inference_cost.py says op_mac_SCALEDINT<8>_INT2,
    op_mac_INT2_INT2 and mem_w_INT2. And by hand from Brevitas' bnn_pynq/models/CNV.py: channels, pooling, dense layers."""
    total = count_spec(load_arch("cnv").spec).total
    macs = {(op.weight_bits, op.activation_bits): count for op, count in total.macs}
    assert macs == {(1, 8): 1_555_200, (1, 1): 57_906_176}
    assert total.binary_params == 1_542_848
    channels, size, products = 3, 32, []
    for width, pools in ((64, False), (64, True), (128, False), (128, True), (256, False), (256, False)):
        size -= 2
        products.append(9 * channels * width * size**2)
        channels, size = width, size // 2 if pools else size
    dense = [256 * 512, 512 * 512, 512 * 10]
    assert (size, products[0], sum(products[1:]) + sum(dense)) == (1, macs[1, 8], macs[1, 1])


def test_damaged_and_other_onnx_files_are_refused(tmp_path: Path) -> None:
    path, whole = tmp_path / "net.onnx", tmp_path / "whole.onnx"
    write_qonnx(whole, conv=False)
    content = whole.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(BadInputError):
            import_file(path, None, None, tmp_path)
    onnx = pytest.importorskip("onnx")
    model = onnx.load(whole)
    model.graph.node[-1].op_type = "Softmax"
    onnx.save(model, path)
    with pytest.raises(BadInputError, match="Softmax, which no network here computes"):
        import_file(path, None, None, tmp_path)
