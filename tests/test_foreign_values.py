"""What values say of bits where they could mislead: pruned, sparse, saturated, copied, packed and wrapped ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils._pytree import tree_map

from meliuscli.counting.foreign import Example, OwnCount, count_own

MACS = 8 * 8 * 9 * 256
"""Of a padded 3x3 convolution from eight channels to eight on 16x16 pixels; it has 576 weights."""


class Net(nn.Module):
    """A function of parameters and buffers, and of the input."""

    def __init__(self, function: Callable[..., Tensor], **tensors: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self, *inputs)


def sign(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def counted(module: nn.Module, *inputs: str) -> OwnCount:
    return count_own(module, Example.parse(inputs or ["8x16x16"]))


def macs_of(own: OwnCount) -> dict[str, int]:
    macs: dict[str, int] = {}
    for op, number in own.count.total.macs:
        macs[op.bits] = macs.get(op.bits, 0) + number
    return macs


# Few values by chance


@pytest.mark.parametrize("share", [0.9, 0.95, 0.97, 0.98, 0.99, 0.995])
def test_the_few_weights_that_pruning_leaves_are_floats(share: float) -> None:
    torch.manual_seed(0)
    for module, shape in ((nn.Conv2d(8, 8, 3, padding=1, bias=False), "8x16x16"), (nn.Linear(512, 64, False), "512")):
        prune.random_unstructured(module, "weight", share)
        own = counted(module, shape if "x" in shape else "float32:1x512")
        assert set(macs_of(own)) == {"32x32"}
        assert own.count.total.weights == ((32, module.weight.numel()),)


@pytest.mark.parametrize(
    "inputs",
    [
        lambda x: F.relu(x - 2.0),
        lambda x: F.relu(x - 2.7),
        lambda x: x * (x >= x.flatten().topk(20)[0][-1]),
        lambda x: (60 * x).clamp(-1, 1),
        lambda x: F.relu6(300 * x),
        lambda x: F.interpolate(x[..., :8, :8], scale_factor=2),
        lambda x: F.interpolate(x[..., :4, :4], scale_factor=4),
        lambda x: F.interpolate(x[..., :2, :2], scale_factor=8),
        lambda x: x.mean((2, 3), keepdim=True).expand_as(x),
        lambda x: x * 0,
    ],
)
def test_activations_that_are_sparse_saturated_or_copied_are_floats(inputs: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    own = counted(Net(lambda m, x: F.conv2d(inputs(x), sign(m.w), padding=1), w=weights(8, 8, 3, 3)))
    assert (macs_of(own), own.count.total.weights) == ({"1x32": MACS}, ((1, 576),))


def test_signs_of_a_larger_map_are_signs() -> None:
    own = counted(
        Net(
            lambda m, x: F.conv2d(F.interpolate(sign(x[..., :4, :4]), scale_factor=4), sign(m.w), padding=1),
            w=weights(8, 8, 3, 3),
        )
    )
    assert macs_of(own) == {"1x1": MACS}


def test_weights_of_signs_that_are_all_alike_take_the_dearer_reading_and_say_so() -> None:
    fresh = Net(lambda m, x: F.conv2d(sign(x), torch.sign(m.w), padding=1), w=nn.Parameter(torch.rand(8, 8, 3, 3) + 1))
    own = counted(fresh)
    assert (macs_of(own), own.count.total.weights) == ({"32x32": MACS}, ((32, 576),))
    (verdict,) = own.verdicts
    assert verdict.verdict.startswith("its weights are signs that are all alike (thin): they count as float, unless")
    ones = Net(lambda m, x: F.conv2d(x, m.w * (m.w > 0.5), padding=1), w=nn.Parameter(torch.ones(8, 8, 3, 3)))
    assert macs_of(counted(ones)) == {"32x32": MACS}


# A scale for each row, or for so many in a row

LEVELS = torch.tensor([-1, -0.7, -0.5, -0.4, -0.3, -0.2, -0.1, 0, 0.08, 0.16, 0.25, 0.34, 0.44, 0.56, 0.72, 1.0])
"""Uneven: a code of four bits."""


def thirds(w: Tensor) -> Tensor:
    limit = 0.7 * w.abs().mean((1, 2, 3), keepdim=True)
    scale = (w.abs() * (w.abs() > limit)).sum((1, 2, 3), keepdim=True)
    return scale * w.sign() * (w.abs() > limit)


def in_steps(w: Tensor, most: int) -> Tensor:
    scale = w.abs().amax((1, 2, 3), keepdim=True) / most
    return (w / scale).round() * scale


@pytest.mark.parametrize(
    ("quantizer", "bits"), [(thirds, 2), (lambda w: in_steps(w, 7), 4), (lambda w: in_steps(w, 127), 8)]
)
def test_depthwise_weights_with_a_scale_a_channel(quantizer: Callable[[Tensor], Tensor], bits: int) -> None:
    torch.manual_seed(0)
    own = counted(Net(lambda m, x: F.conv2d(x, quantizer(m.w), padding=1, groups=64), w=weights(64, 1, 3, 3)), "64x8x8")
    assert (macs_of(own), own.count.total.weights) == ({f"{bits}x32": 64 * 9 * 64}, ((bits, 576),))


@pytest.mark.parametrize("width", [64, 512])
def test_weights_by_an_uneven_code_with_a_scale_for_64_in_a_row(width: int) -> None:
    torch.manual_seed(0)

    def coded(w: Tensor) -> Tensor:
        groups = w.view(-1, 64)
        scale = groups.abs().amax(1, keepdim=True)
        return (LEVELS[((groups / scale)[..., None] - LEVELS).abs().argmin(-1)] * scale).view_as(w)

    own = counted(Net(lambda m, x: F.linear(x, coded(m.w)), w=weights(64, width)), f"float32:4x{width}")
    assert (macs_of(own), own.count.total.weights) == ({"4x32": 4 * 64 * width}, ((4, 64 * width),))


# Tensors of other kinds


class Wrapped(Tensor):
    """Integers of a byte with a scale a row, as torchao and quanto have them."""

    @staticmethod
    def __new__(cls, integers: Tensor, scale: Tensor) -> Wrapped:
        return Tensor._make_wrapper_subclass(cls, integers.shape, dtype=scale.dtype)  # type: ignore[attr-defined, no-any-return]

    def __init__(self, integers: Tensor, scale: Tensor) -> None:
        self.integers, self.scale = integers, scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["integers", "scale"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], _context: None, _size: object, _stride: object) -> Wrapped:
        return Wrapped(inner["integers"], inner["scale"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return Wrapped(args[0].integers, args[0].scale)
        plain = tree_map(lambda t: t.integers.float() * t.scale if isinstance(t, Wrapped) else t, args)
        if func in (torch.ops.aten.equal.default, torch.ops.aten.clone.default):
            raise NotImplementedError(func)
        return func(*plain, **(kwargs or {}))


def test_a_tensor_that_wraps_others_counts_as_these() -> None:
    linear = nn.Linear(64, 32, bias=False)
    integers = torch.randint(-127, 128, (32, 64), dtype=torch.int8)
    linear.weight = nn.Parameter(Wrapped(integers, torch.rand(32, 1) + 0.5), requires_grad=False)
    own = counted(nn.Sequential(linear), "float32:4x64")
    assert (macs_of(own), own.count.total.weights) == ({"8x32": 4 * 64 * 32}, ((8, 64 * 32), (32, 32)))
    assert own.verdicts == ()


@pytest.mark.filterwarnings("ignore")
def test_tensors_of_torchao() -> None:
    ao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    net = nn.Sequential(nn.Linear(512, 128, bias=False)).eval()
    ao.quantize_(net, ao.Int8DynamicActivationInt8WeightConfig())
    assert macs_of(counted(net, "float32:4x512")) == {"8x8": 4 * 512 * 128}


def test_wide_integers_are_looked_at() -> None:
    def integers(m: nn.Module, x: Tensor) -> Tensor:
        return ((20 * x).round().clamp(-128, 127).int() @ m.w.int().t()) * 0.1  # type: ignore[operator]

    own = counted(Net(integers, w=torch.randint(-127, 128, (32, 64), dtype=torch.int8)), "float32:32x64")
    assert (macs_of(own), own.count.total.weights) == ({"8x8": 32 * 64 * 32}, ((8, 64 * 32),))
    signs = Net(lambda m, x: torch.where(x > 0, 1, -1) @ torch.where(m.w > 0, 1, -1), w=weights(64, 32))
    assert macs_of(counted(signs, "float32:32x64")) == {"1x1": 32 * 64 * 32}


@pytest.mark.filterwarnings("ignore")
def test_an_exported_network_counts_in_the_mode_in_which_it_was_exported() -> None:
    net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.ReLU()).eval()
    exported = torch.export.export(net, (torch.randn(1, 8, 16, 16),)).module()
    assert macs_of(counted(exported)) == {"32x32": MACS}


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_part_counts() -> None:
    scripted = torch.jit.script(nn.Conv2d(8, 8, 3, padding=1, bias=False))
    assert macs_of(counted(nn.Sequential(nn.Identity(), scripted))) == {"32x32": MACS}
