"""The networks in torch: an independent plain version gives the same, structure, gradients of the signs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import dense_specs
from hypothesis import given
from hypothesis import strategies as st
from plain import PlainNet, plain_binary_conv
from torch import Tensor, nn

from meliuscli.arch.families.dense import BinaryDenseNetSpec, DenseFamilySpec, MeliusNetSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import arch_names, load_arch, load_name
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.build import build
from meliuscli.nn.families.dense import DenseBlock, ImprovementBlock
from meliuscli.nn.layers import float_conv
from meliuscli.nn.quantizers import clipped_gradient, sign


@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 9),
    out_channels=st.integers(1, 5),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    dilation=st.sampled_from([1, 1, 2, 4]),
    channels_last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_binary_convolution_is_its_definition_gradients_included(
    batch: int, channels: int, out_channels: int, height: int, width: int, dilation: int, channels_last: bool, seed: int
) -> None:
    """Forward exactly (all values are halves of whole numbers), gradients to rounding, on both gradient paths."""
    torch.manual_seed(seed)
    conv = BinaryConv2d(channels, out_channels, dilation)
    x = torch.randn(batch, channels, height, width)
    x.view(-1)[0], x.view(-1)[-1] = -0.0, 1.3
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    ours, plain = conv(x), plain_binary_conv(x, conv.weight, dilation)
    assert torch.equal(ours, plain)
    with torch.no_grad():
        assert torch.equal(conv(x), plain)
    grad = torch.randn_like(plain)
    for mine, wanted in zip(
        torch.autograd.grad(ours, (x, conv.weight), grad),
        torch.autograd.grad(plain, (x, conv.weight), grad),
        strict=True,
    ):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-4)


def test_signs() -> None:
    x = torch.tensor([-2.0, -1e-30, -0.0, 0.0, 1e-30, 2.0])
    assert sign(x).tolist() == [-1, -1, 1, 1, 1, 1]


def test_the_straight_through_gradient_is_one_inside_the_clip_and_zero_outside() -> None:
    """The border itself passes: |x| <= 1.3."""
    above = torch.nextafter(torch.tensor(1.3), torch.tensor(2.0)).item()
    x = torch.tensor([-5.0, -above, -1.3, -1.0, 0.0, 0.7, 1.3, above, 5.0])
    grad = torch.arange(1.0, 10.0)
    assert clipped_gradient(grad, x, 1.3).tolist() == [0, 0, 3, 4, 5, 6, 7, 0, 0]


def test_padding_is_minus_one_not_zero() -> None:
    conv = BinaryConv2d(1, 1)
    conv.weight.data.fill_(1.0)
    with torch.no_grad():
        out = conv(torch.ones(1, 1, 3, 3))
    # Corner: 4 inside (+1) and 5 on the border (-1): y = -1, (y + 9) / 2 = 4, the number of matching bits.
    assert out[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


def assert_equals_plain(spec: DenseFamilySpec, batch: int = 2) -> None:
    torch.manual_seed(0)
    network = build(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            module.weight.data.normal_()
            module.bias.data.normal_()
    # In double, so that a rounding error does not flip a sign somewhere in the depth.
    network.double().eval()
    state = dict(network.named_parameters()) | dict(network.named_buffers())
    plain = PlainNet(spec, state)
    x = torch.randn(batch, *spec.input_shape, dtype=torch.float64)
    ours, wanted = network(x), plain(x)
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(ours.square().sum(), parameters)
    for mine, other in zip(gradients, torch.autograd.grad(wanted.square().sum(), parameters), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5 * (1 + other.abs().max().item()))


def test_meliusnet22_equals_a_plain_version() -> None:
    spec = load_arch("meliusnet22", ["input_size=64"]).spec
    assert isinstance(spec, DenseFamilySpec)
    assert_equals_plain(spec)


def test_the_grouped_and_dilated_networks_equal_a_plain_version() -> None:
    for name in ("meliusnet-c", "binarydensenet37-dilated"):
        spec = load_arch(name, ["input_size=32", "num_classes=7"]).spec
        assert isinstance(spec, DenseFamilySpec)
        assert_equals_plain(spec, batch=1)


@given(dense_specs())
def test_random_networks_equal_a_plain_version(spec: DenseFamilySpec) -> None:
    assert_equals_plain(spec, batch=1)


@pytest.mark.parametrize("name", [name for name in arch_names() if name.startswith("melius")])
def test_every_meliusnet_has_as_many_improvement_blocks_as_dense_blocks(name: str) -> None:
    """bitorch 0.4.1 lost all of them in a refactoring."""
    spec = load_name(name)
    assert isinstance(spec, MeliusNetSpec)
    modules = list(build(spec).modules())
    dense = sum(isinstance(module, DenseBlock) for module in modules)
    improvement = sum(isinstance(module, ImprovementBlock) for module in modules)
    assert dense == improvement == sum(spec.num_blocks)


def test_a_binarydensenet_has_none() -> None:
    spec = load_name("binarydensenet28")
    assert isinstance(spec, BinaryDenseNetSpec)
    assert not any(isinstance(module, ImprovementBlock) for module in build(spec).modules())


@given(dense_specs())
def test_an_improvement_block_changes_only_the_last_growth_rate_channels(spec: ArchSpec) -> None:
    network = build(spec).eval()
    seen = []

    def check(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(module, ImprovementBlock)
        (before,) = inputs
        growth = module.growth_rate
        assert torch.equal(output[:, :-growth], before[:, :-growth])
        # (y + K) / 2 is at least 0 and rarely all 0.
        assert (output[:, -growth:] != before[:, -growth:]).any()
        seen.append(growth)

    for module in network.modules():
        if isinstance(module, ImprovementBlock):
            module.register_forward_hook(check)
    with torch.no_grad():
        network(torch.randn(1, *spec.input_shape))
    if isinstance(spec, MeliusNetSpec):
        rates = zip(spec.num_blocks, spec.growth_rate, strict=True)
        assert seen == [growth for blocks, growth in rates for _ in range(blocks)]


@pytest.mark.parametrize("name", ["meliusnet-a", "binarydensenet28", "mobilenet-v1-0.25"])
def test_networks_learn_a_batch_by_heart(name: str) -> None:
    torch.manual_seed(0)
    network = build(load_arch(name, ["input_size=32", "num_classes=4"]).spec)
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8) % 4
    optimizer = torch.optim.RAdam(network.parameters(), lr=0.01, betas=(0.9, 0.9))
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_strided_pointwise_convolution_has_torchs_values_and_survives_its_gradient() -> None:
    torch.manual_seed(0)
    conv, x = float_conv(4, 8, 1, 2), torch.randn(50, 4, 16, 16, requires_grad=True)
    plain = nn.functional.conv2d(x, conv.weight, stride=2)
    (grad,) = torch.autograd.grad(plain.square().sum(), x)
    with torch.no_grad():  # as the optimiser's one long parameter has it
        conv.weight.set_(torch.randn(8 * 4).view(8, 1, 1, 4).permute(0, 3, 1, 2).copy_(conv.weight))
    out = conv(x)
    assert torch.allclose(out, plain, atol=1e-6)
    (ours,) = torch.autograd.grad(out.square().sum(), x)
    assert torch.allclose(ours, grad, atol=1e-5)
