"""The families in torch: they run and learn, their quantizers and activations are their formulas, their structure is
their papers'."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import at_size, specs
from hypothesis import given
from torch import Tensor, nn

from meliuscli.arch.families.abcnet import ABCNetSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import arch_names, load_arch, load_name
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.build import build
from meliuscli.nn.families.abcnet import MultiBaseConv2d, WeightBases, least_squares
from meliuscli.nn.families.bnext import BNextUnit
from meliuscli.nn.families.pokebnn import reshape_add
from meliuscli.nn.layers import SamePad
from meliuscli.nn.quantized import QuantConv2d, QuantLinear, sign_conv
from meliuscli.nn.quantizers import (
    ApproxSign,
    ChannelScaling,
    DoReFaActivation,
    DPReLU,
    LeakyClip,
    MagnitudeScaling,
    RPReLU,
    RSign,
    SteSign,
    SymmetricQuantizer,
    input_scale,
)

ONE_OF_EACH = (
    *("meliusnet-c", "binarydensenet28", "mobilenet-v1-0.25", "mobilenet-v2-0.35", "resnet18", "resnet50"),
    *("bnn-resnet18", "xnornet-resnet18", "resnete18", "birealnet18", "birealnet50", "reactnet18", "real2binary"),
    *("binaryalexnet", "xnornet-alexnet", "dorefanet-alexnet", "reactnet-a", "reactnet-b", "quicknet-small"),
    *("bnext-t", "pokebnn-0.5", "abcnet18", "bmxnet-resnet18", "tfc", "cnv", "vgg-small"),
)

WITH_A_SMALLER_ONE = (
    *("xnornet-alexnet", "binaryalexnet", "dorefanet-alexnet", "resnet50", "birealnet50"),
    *("reactnet-a", "reactnet-b"),
)
"""Whose learning is left to the slow tests."""


def run_both_ways(spec: ArchSpec) -> None:
    torch.manual_seed(0)
    network = build(spec)
    # Over two images of one pixel each, PokeBNN's batch norms make gradients of 1e35, and by chance of more than float32 has.
    num_images = 4 if spec.family == "pokebnn" else 2
    out = network(torch.randn(num_images, *spec.input_shape))
    assert out.shape == (num_images, spec.num_classes)
    assert out.isfinite().all()
    out.square().mean().backward()
    silent = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "name", [name if name in ONE_OF_EACH else pytest.param(name, marks=pytest.mark.slow) for name in arch_names()]
)
def test_every_network_runs_forward_and_backward_at_32_pixels(name: str) -> None:
    run_both_ways(at_size(name, 32, "num_classes=7"))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_family_runs_forward_and_backward_at_224_pixels(name: str) -> None:
    run_both_ways(load_name(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", arch_names())
def test_every_network_runs_forward_and_backward_at_224_pixels(name: str) -> None:
    run_both_ways(load_name(name))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in WITH_A_SMALLER_ONE else name for name in ONE_OF_EACH]
)
def test_every_family_learns_a_batch(name: str) -> None:
    torch.manual_seed(0)
    spec = at_size(name, 32, "num_classes=4")
    network = build(spec)
    x, y = torch.randn(8, *spec.input_shape), torch.arange(8) % 4
    optimizer = torch.optim.Adam(network.parameters(), lr=0.002)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.8 * losses[0]


@given(specs())
def test_random_networks_of_every_family_run(spec: ArchSpec) -> None:
    run_both_ways(spec)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_binary_layers_see_two_values_and_hold_two_values(name: str) -> None:
    """Whatever the plan calls binary works on signs: inputs of two values, and a filter's weights of one magnitude."""
    torch.manual_seed(0)
    spec = at_size(name, 64, "num_classes=3")
    network = build(spec).eval()
    seen = []

    def check(layer: QuantConv2d | QuantLinear, inputs: tuple[Tensor]) -> None:
        if layer.activation_bits == 1:
            assert set(layer.activation(inputs[0]).unique().tolist()) <= {-1.0, 1.0}
        if layer.weight_bits == 1:
            magnitudes = layer.quantizer(layer.weight).flatten(1).abs()
            torch.testing.assert_close(magnitudes, magnitudes[:, :1].expand_as(magnitudes))
        seen.append(layer)

    for module in network.modules():
        if isinstance(module, QuantConv2d | QuantLinear):
            module.register_forward_pre_hook(check)
    with torch.no_grad():
        network(torch.randn(1, *spec.input_shape))
    quantized = [m for m in network.modules() if isinstance(m, QuantConv2d | QuantLinear)]
    assert len(seen) == len(quantized)
    assert quantized or any(isinstance(m, BinaryConv2d) for m in network.modules()) or "net" in name


# Quantizers and activations


def gradient(module: nn.Module, x: Tensor) -> list[float]:
    x = x.clone().requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None
    return x.grad.tolist()


X = torch.tensor([-3.0, -1.25, -1.0, -0.5, 0.0, 0.5, 1.0, 1.25, 3.0])


def test_ste_sign() -> None:
    assert SteSign()(X).tolist() == [-1, -1, -1, -1, 1, 1, 1, 1, 1]
    assert gradient(SteSign(1.0), X) == [0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert gradient(SteSign(1.25), X) == [0, 1, 1, 1, 1, 1, 1, 1, 0]


def test_approx_sign_has_the_gradient_of_a_triangle() -> None:
    assert ApproxSign()(X).tolist() == SteSign()(X).tolist()
    assert gradient(ApproxSign(), X) == [0, 0, 0, 1, 2, 1, 0, 0, 0]


def test_rsign_shifts_first() -> None:
    rsign = RSign(2, ApproxSign())
    rsign.shift.data[:, 0, 0] = torch.tensor([0.6, -0.6])
    out = rsign(torch.full((1, 2, 1, 2), -0.5))
    assert out[0, :, 0, 0].tolist() == [1, -1]
    out.sum().backward()
    assert rsign.shift.grad is not None
    # Two positions each: 2 * (2 - 2 * 0.1) and outside the triangle.
    assert rsign.shift.grad.flatten().tolist() == pytest.approx([3.6, 0.0])


def test_dorefa_activations_have_two_to_the_k_levels() -> None:
    x = torch.linspace(-1, 2, 301)
    assert DoReFaActivation(2)(x).unique().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert gradient(DoReFaActivation(2), torch.tensor([-0.5, 0.4, 1.5])) == [0, 1, 0]


@pytest.mark.parametrize("num_bits", [4, 8])
def test_symmetric_quantizer_has_as_many_integers_as_bits_allow(num_bits: int) -> None:
    x = torch.linspace(-2.0, 1.7, 5000)
    out = SymmetricQuantizer(num_bits)(x)
    levels = (out * (2 ** (num_bits - 1) - 1) / 2.0).round()
    torch.testing.assert_close(out, levels * 2.0 / (2 ** (num_bits - 1) - 1))
    assert len(out.unique()) <= 2**num_bits - 1
    assert (out - x).abs().max() <= 2.0 / (2 ** (num_bits - 1) - 1) / 2 + 1e-6
    assert gradient(SymmetricQuantizer(num_bits), x[:9]) == [1] * 9


def test_integers_of_an_image_have_a_scale_of_their_own() -> None:
    x = torch.tensor([[1.0, 0.25], [4.0, 1.0]]).view(2, 2, 1, 1)
    alone = SymmetricQuantizer(4, per_image=True)
    torch.testing.assert_close(alone(x), torch.cat([alone(x[:1]), alone(x[1:])]))
    torch.testing.assert_close(alone(x), SymmetricQuantizer(4)(x[1:]) / torch.tensor([4.0, 1.0]).view(2, 1, 1, 1))


def test_magnitude_scaling_keeps_the_mean_magnitude_a_filter_or_in_all() -> None:
    weight = torch.tensor([[1.0, -3.0], [0.5, 0.5]])[:, :, None, None]
    assert MagnitudeScaling()(weight).flatten().tolist() == [2, -2, 0.5, 0.5]
    assert MagnitudeScaling(per_filter=False)(weight).flatten().tolist() == [1.25, -1.25, 1.25, 1.25]
    assert torch.tensor(gradient(MagnitudeScaling(), weight)).flatten().tolist() == [1, 0, 1, 1]
    assert torch.tensor(gradient(MagnitudeScaling(clip=None), weight)).flatten().tolist() == [1, 1, 1, 1]


def test_rprelu_and_dprelu_are_their_formulas() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    rprelu, dprelu = RPReLU(3), DPReLU(3)
    for parameter in (*rprelu.parameters(), *dprelu.parameters()):
        parameter.data.normal_()
    c = (3, 1, 1)
    inner = x - rprelu.gamma
    wanted = torch.where(inner > 0, inner, inner * rprelu.slope.view(c)) + rprelu.zeta
    torch.testing.assert_close(rprelu(x), wanted)
    inner = x - dprelu.alpha
    wanted = torch.where(inner > 0, dprelu.slope_above * inner, dprelu.slope_below * inner) - dprelu.beta
    torch.testing.assert_close(dprelu(x), wanted)
    assert sum(p.numel() for p in rprelu.parameters()) == 3 * 3
    assert sum(p.numel() for p in dprelu.parameters()) == 4 * 3


def test_leaky_clip() -> None:
    assert LeakyClip()(X).tolist() == pytest.approx([-1.2, -1.025, -1, -0.5, 0, 0.5, 1, 1.025, 1.2])


def test_channel_scaling_multiplies_by_a_number_between_0_and_1_a_channel() -> None:
    torch.manual_seed(0)
    scaling = ChannelScaling(16, 8, reduction=8)
    x, source = torch.randn(2, 8, 3, 3), torch.randn(2, 16, 6, 6)
    ratio = scaling(x, source) / x
    assert ((ratio > 0) & (ratio < 1)).all()
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))


def test_xnor_nets_input_scale_is_the_mean_magnitude_around_a_position() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 5, 6, 6)
    scale = input_scale(x, 3, 2, 1)
    assert scale.shape == (1, 1, 3, 3)
    # The window of output (1, 1): rows and columns 1 to 3.
    assert scale[0, 0, 1, 1].item() == pytest.approx(x[0, :, 1:4, 1:4].abs().mean().item())


@pytest.mark.parametrize("pad_value", [0.0, 1.0, -1.0])
def test_padding_values_of_quantized_convolutions(pad_value: float) -> None:
    conv = sign_conv(1, 1, pad_value=pad_value)
    conv.weight.data.fill_(1.0)
    with torch.no_grad():
        out = conv(torch.ones(1, 1, 3, 3))
    assert out[0, 0, 1, 1] == 9
    assert out[0, 0, 0, 0] == 4 + 5 * pad_value


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "wanted"), [(224, 11, 4, 56), (27, 3, 2, 14), (7, 3, 1, 7), (64, 11, 4, 16)]
)
def test_same_padding_gives_size_over_stride_rounded_up(size: int, kernel: int, stride: int, wanted: int) -> None:
    x = SamePad(kernel, stride)(torch.ones(1, 1, size, size))
    assert F.conv2d(x, torch.ones(1, 1, kernel, kernel), stride=stride).shape[-1] == wanted


# Structure


def test_reshape_add_averages_tiles_and_pads() -> None:
    x = torch.arange(4.0)[None, :, None, None].expand(1, 4, 2, 2)
    zero = torch.zeros
    assert reshape_add(zero(1, 2, 2, 2), x, tile=False)[0, :, 0, 0].tolist() == [0.5, 2.5]
    assert reshape_add(zero(1, 8, 2, 2), x, tile=True)[0, :, 0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert reshape_add(zero(1, 6, 2, 2), x, tile=False)[0, :, 0, 0].tolist() == [0, 1, 2, 3, 0, 0]
    assert reshape_add(zero(1, 4, 1, 1), x, tile=False)[0, :, 0, 0].tolist() == [0, 1, 2, 3]


def test_every_second_unit_of_a_bnext_has_attention_from_the_second_block_on() -> None:
    """As in the authors' code, whose block numbers start behind the stem."""
    network = build(load_arch("bnext-t", ["input_size=32"]).spec)
    units = {name: unit.attention for name, unit in network.named_modules() if isinstance(unit, BNextUnit)}
    assert all(not attention for name, attention in units.items() if "1x1" in name)
    blocks = [attention for name, attention in units.items() if "3x3" in name]
    assert blocks == [index % 2 == 1 for index in range(13)]


@pytest.mark.parametrize(
    ("name", "binary"),
    [
        ("resnete18", 16),
        ("abcnet18", 16),
        ("birealnet34", 32),
        ("birealnet50", 3 * 16 - 1),
        ("bnn-resnet18", 16 + 3),
        ("xnornet-resnet18", 16),
        ("reactnet-a", 13 + 8 + 2 * 5),
        ("reactnet-c", 13 + 8),
        ("quicknet-large", 32),
        ("pokebnn-1.0", 48),
        ("binaryalexnet", 7),
    ],
)
def test_numbers_of_binary_convolutions(name: str, binary: int) -> None:
    layers = load_name(name).layers()
    assert sum(layer.weight_bits == layer.activation_bits == 1 for layer in layers) == binary


def multi_base(num_weights: int, num_activations: int) -> MultiBaseConv2d:
    torch.manual_seed(0)
    spec = load_arch("abcnet18", [f"weight_bases={num_weights}", f"activation_bases={num_activations}"]).spec
    assert isinstance(spec, ABCNetSpec)
    conv = MultiBaseConv2d(6, 4, 2, spec)
    conv.sign.scale.data.uniform_(0.5, 1.5)
    return conv


@pytest.mark.parametrize(("num_weights", "num_activations"), [(1, 1), (2, 3), (5, 2)])
def test_a_convolution_of_abcnet_is_the_scaled_sum_of_all_products_of_its_bases(
    num_weights: int, num_activations: int
) -> None:
    conv, x = multi_base(num_weights, num_activations).eval(), torch.randn(2, 6, 9, 9)
    filters = conv.conv.quantizer(conv.conv.weight).chunk(num_weights)
    with torch.no_grad():
        wanted = sum(
            scale * F.conv2d(torch.where((x + shift).clamp(0, 1) >= 0.5, 1.0, -1.0), base, stride=2, padding=1)
            for scale, shift in zip(conv.sign.scale, conv.sign.shift, strict=True)
            for base in filters
        )
        torch.testing.assert_close(conv(x), wanted)
        torch.testing.assert_close(conv.train()(x), wanted)


def test_both_ways_through_a_convolution_of_abcnet_have_the_same_gradients() -> None:
    conv, x = multi_base(3, 2), torch.randn(2, 6, 8, 8)
    gradients = []
    for mode in (True, False):
        conv.train(mode).zero_grad()
        conv(x).square().sum().backward()
        gradients.append([p.grad for p in conv.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_more_bases_come_closer_to_the_weights_and_their_scales_are_those_of_least_squares() -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, 8, 3, 3)
    errors = []
    for num_bases in (1, 2, 3, 5):
        filters = WeightBases(num_bases)(weight).unflatten(0, (num_bases, -1))
        rest = weight - filters.sum(0)
        # Of least squares: what is left is orthogonal to every base.
        assert all(abs((rest * base).sum().item()) < 1e-2 for base in filters)
        errors.append(rest.square().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.15 < 0.3 < errors[0]


def test_equal_bases_share_their_scale() -> None:
    base = torch.tensor([1.0, -1.0, 1.0, 1.0])
    scales = least_squares([base, base.clone()], 3 * base)
    assert scales.tolist() == pytest.approx([1.5, 1.5])


def test_a_shortcut_goes_around_every_binary_convolution_of_bireal_net() -> None:
    """With all convolutions zero and batch norm shifting by nothing, the stem's map comes out pooled and projected only
    where the width changes."""
    network = build(load_arch("birealnet18", ["input_size=64"]).spec).eval()
    x = torch.randn(1, 64, 16, 16)
    stage = network.get_submodule("stage1")
    for block in stage.children():
        block.bn.weight.data.zero_()
        block.bn.bias.data.zero_()
    with torch.no_grad():
        assert torch.equal(stage(x), x)


def test_the_fixed_blur_of_quicknet_is_not_trained_and_keeps_a_constant() -> None:
    network = build(load_name("quicknet-small"))
    blur = network.get_submodule("transition1.blur")
    assert isinstance(blur, nn.Conv2d)
    assert not blur.weight.requires_grad
    assert blur(torch.ones(1, 32, 9, 9))[0, 0, 2, 2].item() == pytest.approx(1.0)
