"""Bit-packed kernels: equal to torch's arithmetic to the last bit, on every instruction set that this machine has."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import dense_specs, other_specs, residual_specs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

pytest.importorskip("llvmlite")

from meliuscli.arch.families.dense import MeliusNetSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import load_arch
from meliuscli.errors import BadInputError, FailedError
from meliuscli.nn.binary_conv import integer_convolution
from meliuscli.nn.build import build
from meliuscli.nn.quantized import QuantConv2d
from meliuscli.packed import convs, fold, steps
from meliuscli.packed.bench import random_network
from meliuscli.packed.contract import conv_kernel
from meliuscli.packed.convs import PackedConv2d
from meliuscli.packed.engine import optimised
from meliuscli.packed.isa import ISAS, choose_isa, host_isas
from meliuscli.packed.layout import Map, Window
from meliuscli.packed.opponents import Int8Conv2d
from meliuscli.packed.program import Crew, Program
from meliuscli.packed.runner import PackedDense, PackedModule, pack
from meliuscli.packed.selftest import check, float_parts, require_exact
from meliuscli.packed.words import BinaryWeights, pack_bits

EVERY_ISA = pytest.mark.parametrize("isa", host_isas())

# channels, outputs, map, kernel, stride, dilation, padding
SHAPES = [
    (32, 64, 56, 3, 1, 1, 1),
    (64, 64, 28, 3, 1, 1, 1),
    (72, 64, 14, 3, 1, 1, 1),
    (96, 64, 15, 3, 1, 1, 1),
    (100, 64, 13, 3, 1, 1, 1),
    (33, 64, 9, 3, 1, 1, 1),
    (31, 48, 8, 3, 1, 1, 1),
    (1, 1, 5, 3, 1, 1, 1),
    (160, 64, 14, 3, 1, 1, 1),
    (250, 64, 7, 3, 1, 1, 1),
    (320, 64, 7, 3, 1, 1, 1),
    (480, 64, 7, 3, 1, 1, 1),
    (512, 64, 7, 3, 1, 1, 1),
    (700, 64, 4, 3, 1, 1, 1),
    (992, 32, 4, 3, 1, 1, 1),  # 31 words
    (1024, 64, 3, 3, 1, 1, 1),
    (1500, 64, 2, 3, 1, 1, 1),
    (1984, 64, 2, 3, 1, 1, 1),
    (2000, 64, 2, 3, 1, 1, 1),
    (2000, 64, 1, 3, 1, 1, 1),
    (64, 64, 1, 3, 1, 1, 1),
    (64, 64, 2, 3, 1, 1, 1),
    (64, 64, 3, 3, 1, 1, 1),
    (64, 128, 14, 3, 2, 1, 1),
    (64, 96, 13, 3, 2, 1, 1),
    (128, 256, 7, 3, 2, 1, 1),
    (64, 64, 14, 3, 1, 2, 2),
    (64, 64, 13, 3, 1, 4, 4),
    (64, 64, 3, 3, 1, 4, 4),
    (256, 1024, 7, 1, 1, 1, 0),
    (100, 75, 14, 1, 1, 1, 0),
    (64, 128, 14, 1, 2, 1, 0),
    (96, 256, 13, 5, 1, 1, 2),
    (48, 32, 6, 6, 1, 1, 0),
    (4096, 1000, 1, 1, 1, 1, 0),
]
BIG_SHAPES = [(320, 64, 56, 3, 1, 1, 1), (1024, 64, 14, 3, 1, 1, 1), (2000, 64, 28, 3, 1, 1, 1)]


def signs(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).sign().add(0.5).sign()


def assert_exact(
    shape: tuple[int, ...], isa: str, pad_value: int, batch: int = 1, xnor: bool = False, threads: int = 1
) -> None:
    channels, outputs, size, kernel, stride, dilation, padding = shape
    x, weight = signs(batch, channels, size, size, seed=1), signs(outputs, channels, kernel, kernel, seed=2)
    words = pack_bits((weight > 0).permute(0, 2, 3, 1).numpy())
    window = Window(kernel, stride, dilation, padding)
    conv = PackedConv2d(BinaryWeights(words, channels, window, pad_value, xnor), choose_isa(isa), Crew(threads))
    around = F.pad(x, (padding,) * 4, value=float(pad_value))
    expected = F.conv2d(around, weight, stride=stride, dilation=dilation)
    if xnor:
        expected = (expected + weight[0].numel()) / 2
    assert torch.equal(conv(x), expected)


@EVERY_ISA
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
def test_convolutions_are_exact(isa: str, pad_value: int) -> None:
    for shape in SHAPES:
        assert_exact(shape, isa, pad_value)


@pytest.mark.slow
@EVERY_ISA
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("shape", BIG_SHAPES)
def test_big_convolutions_are_exact(isa: str, pad_value: int, shape: tuple[int, ...]) -> None:
    assert_exact(shape, isa, pad_value, batch=2)


@EVERY_ISA
def test_xnor_counts_batches_and_threads_are_exact(isa: str) -> None:
    for shape in SHAPES[5:12]:
        assert_exact(shape, isa, -1, batch=3, xnor=True, threads=2)


@given(
    st.integers(1, 150),
    st.integers(1, 140),
    st.integers(1, 12),
    st.sampled_from([(1, 0), (3, 1), (3, 0), (2, 1), (5, 2)]),
    st.integers(1, 2),
    st.sampled_from([-1, 0, 1]),
)
def test_any_convolution_is_exact(
    channels: int, outputs: int, size: int, window: tuple[int, int], stride: int, pad_value: int
) -> None:
    kernel, padding = window
    size = max(size, kernel)
    assert_exact((channels, outputs, size, kernel, stride, 1, padding), host_isas()[0], pad_value)


def test_input_of_any_layout_and_strides_gives_the_same() -> None:
    weights = BinaryWeights(pack_bits(signs(8, 3, 3, 40, seed=3).numpy() > 0), 40, Window(3, 1, 1, 1))
    conv = PackedConv2d(weights, choose_isa(), Crew(1))
    x = torch.randn(2, 40, 9, 9)
    expected = conv(x).clone()
    sliced = torch.zeros(2, 80, 10, 9)[:, ::2, 1:]
    sliced.copy_(x)
    misaligned = torch.zeros(x.numel() + 1)[1:].view_as(x).copy_(x)
    for other in (x.contiguous(memory_format=torch.channels_last), sliced, misaligned, x.double()):
        assert torch.equal(conv(other), expected)


@pytest.mark.parametrize("name", ISAS)
def test_kernels_of_every_instruction_set_pass_llvms_verifier(name: str) -> None:
    isa = ISAS[name]
    if name == "neon" or name in host_isas():
        assert "conv_binary" in str(optimised(isa, conv_kernel(isa, "binary", isa.vectors, isa.pixels)))


def test_a_broken_ir_is_an_error_not_a_crash() -> None:
    with pytest.raises(RuntimeError, match=r"parsing|invalid|error"):
        optimised(choose_isa(), "define void @broken() { %x = add i32 1, 2.5 ret void }")


# Batch norm as thresholds


@given(st.integers(0, 10**6))
def test_thresholds_sign_as_batch_norm_does_on_both_sides_of_every_threshold(seed: int) -> None:
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(40).eval()
    with torch.no_grad():
        norm.weight.normal_().mul_(10 ** torch.empty(40).uniform_(-4, 3))
        norm.bias.normal_()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_(0, 10)
        norm.running_var.uniform_(1e-6, 4)
        norm.weight[:4], norm.bias[:2] = 0, 0
        values, flips = fold.thresholds(norm, norm.num_features)
        known = np.clip(np.nan_to_num(values), np.float32(-1e38), np.float32(1e38))
        near = [known, np.nextafter(known, np.float32(np.inf)), np.nextafter(known, np.float32(-np.inf))]
        rows = [*near, np.zeros(40), np.full(40, 1e30), np.full(40, -1e30), *torch.randn(5, 40).mul(10).numpy()]
        x = torch.from_numpy(np.stack(rows).astype(np.float32))
        expected = norm(x.t()[None, :, None, :])[0, :, 0].t() >= 0
        assert torch.equal(torch.from_numpy((x.numpy() >= values) != flips), expected)


# Whole networks


@given(dense_specs(), st.integers(1, 2))
@settings(max_examples=12)
def test_meliusnets_are_exact_layer_by_layer(spec: ArchSpec, threads: int) -> None:
    network, images = random_network(spec, 2, 0)
    packed = pack(network, spec, threads=threads)
    assert isinstance(packed, PackedDense)
    require_exact(check(packed, network, images))


@given(st.one_of(residual_specs(), other_specs()))
@settings(max_examples=15)
def test_other_families_are_exact_layer_by_layer_or_refused(spec: ArchSpec) -> None:
    network, images = random_network(spec, 2, 0)
    if all(convs.binary_weights(module) is None for module in network.modules()):
        with pytest.raises(BadInputError, match="nothing of this"):
            pack(network, spec)
        return
    packed = pack(network, spec)
    assert isinstance(packed, PackedModule)
    require_exact(check(packed, network, images))
    assert packed(images).shape == (2, spec.num_classes)


SMALL = load_arch("meliusnet22", ["input_size=48", "num_classes=10"]).spec


def test_all_instruction_sets_with_fused_multiply_add_give_the_same_logits() -> None:
    network, images = random_network(SMALL, 2, 1)
    logits = [pack(network, SMALL, isa)(images) for isa in host_isas() if isa != "sse"]
    assert all(torch.equal(logits[0], other) for other in logits)


def test_threads_batches_and_repeated_calls_change_nothing() -> None:
    network, images = random_network(SMALL, 3, 2)
    packed = pack(network, SMALL)
    expected = packed(images)
    assert torch.equal(pack(network, SMALL, threads=2)(images), expected)
    assert torch.equal(torch.cat([packed(image[None]) for image in images]), expected)
    assert torch.equal(packed(images), expected)
    assert torch.equal(packed(images.contiguous(memory_format=torch.channels_last)), expected)
    assert torch.equal(packed(torch._neg_view(-images)), expected)
    assert torch.equal(packed(torch.zeros(3, 3, 48, 50)[..., 1:-1].copy_(images)), expected)


def test_logits_follow_torchs() -> None:
    # A one-ulp difference in the float stem may flip a sign: not equal, but never far.
    network, images = random_network(SMALL, 8, 3)
    with torch.inference_mode():
        expected = network(images)
    ours = pack(network, SMALL)(images)
    assert np.corrcoef(ours.flatten(), expected.flatten())[0, 1] > 0.9


def test_the_tensors_are_all_that_a_network_is() -> None:
    network, images = random_network(SMALL, 1, 4)
    packed = pack(network, SMALL)
    assert isinstance(packed, PackedDense)
    again = PackedDense(packed.spec, {name: value.copy() for name, value in packed.tensors.items()}, packed.isa)
    assert torch.equal(again(images), packed(images))
    stored = sum(value.nbytes for name, value in packed.tensors.items() if name.endswith(".words"))
    binary = sum(conv.weight.numel() for conv in network.modules() if isinstance(conv, convs.BinaryConv2d))
    assert stored == binary // 8


def test_the_self_test_finds_one_wrong_bit() -> None:
    network, images = random_network(SMALL, 1, 5)
    packed = pack(network, SMALL)
    assert isinstance(packed, PackedDense)
    packed.tensors["stage3.block2.dense.conv.words"][5, 1, 1, 0] ^= 1 << 7
    wrong = [layer for layer in check(packed, network, images) if layer.wrong]
    assert [(layer.layer, layer.kind) for layer in wrong] == [("stage3.block2.dense", "counts")]
    with pytest.raises(FailedError, match=r"self-test failed: stage3\.block2\.dense"):
        require_exact(wrong)


@pytest.mark.parametrize("what", ["bit", "scale", "float"])
def test_the_self_test_of_other_families_finds_what_is_wrong(what: str) -> None:
    spec = load_arch("real2binary", ["input_size=32", "num_classes=10"]).spec
    network, images = random_network(spec, 1, 5)
    require_exact(check(pack(network, spec), network, images))
    packed = pack(network, spec)
    assert isinstance(packed, PackedModule)
    name = packed.packed[3]
    if what == "float":
        name, part = list(float_parts(packed.module))[-1]
        with torch.no_grad():
            next(part.parameters())[0] += 0.1
    else:
        weights = packed.module.get_submodule(name).weights
        assert isinstance(weights, BinaryWeights)
        if what == "bit":
            weights.words[2, 1, 1, 0] ^= 1
        else:
            assert weights.scale is not None
            weights.scale[2] *= np.float32(1 + 1e-6)
    wrong = {layer.layer for layer in check(packed, network, images) if layer.wrong}
    assert wrong == {name}


@pytest.mark.parametrize(
    "name", ["birealnet18", "reactnet-a", "quicknet-small", "bnext-t", "binaryalexnet", "abcnet18"]
)
def test_the_self_test_sees_every_weight(name: str) -> None:
    """What is no packed convolution is in a part that is held against torch's."""
    spec = load_arch(name, ["input_size=64"]).spec
    packed = pack(random_network(spec, 1, 0)[0], spec)
    assert isinstance(packed, PackedModule)
    seen = {f"{part}.{key}" for part, module in float_parts(packed.module) for key in module.state_dict()}
    assert seen == set(packed.module.state_dict())


def test_the_convolutions_alone_do_the_networks_work() -> None:
    for spec in (SMALL, load_arch("birealnet18", ["input_size=32"]).spec):
        network, images = random_network(spec, 1, 0)
        packed = pack(network, spec)
        expected = packed(images)
        packed.convolutions()()
        assert torch.equal(packed(images), expected)


def test_packed_runs_after_a_fork() -> None:
    """A child has none of its parent's threads: it would wait for them for ever."""
    network, images = random_network(SMALL, 1, 6)
    packed = pack(network, SMALL, threads=2)
    expected = packed(images)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if torch.equal(packed(images), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(packed(images), expected)


@pytest.mark.parametrize(
    "name", ["meliusnet22", "resnete18", "reactnet18", "bnn-resnet18", "xnornet-resnet18", "quicknet"]
)
def test_int8_opponents_compute_the_same(name: str) -> None:
    """Layer by layer: every convolution in int8 is fed what torch's was fed."""
    if not integer_convolution():
        pytest.skip("torch has no fast int8 convolution here")
    spec = load_arch(name, ["input_size=32", "num_classes=10"]).spec
    network, images = random_network(spec, 2, 7)
    convolutions = [module for module in network.modules() if convs.binary_weights(module) is not None]
    outputs: list[tuple[Tensor, Tensor]] = []

    def compare(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, convs.BinaryConv2d | QuantConv2d)
        outputs.append((Int8Conv2d(module)(inputs[0]), output))

    for module in convolutions:
        module.register_forward_hook(compare)
    with torch.inference_mode():
        network(images)
    assert len(outputs) == len(convolutions) > 0
    for ours, torchs in outputs:
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-4)


# Refused before any kernel is called


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(1, 3, 48, 47), "shape"),
        (torch.zeros(1, 4, 48, 48), "shape"),
        (torch.zeros(3, 48, 48), "shape"),
        (torch.zeros(0, 3, 48, 48), "shape"),
        (torch.zeros(1, 3, 48, 48, dtype=torch.int64), "float"),
        (torch.full((1, 3, 48, 48), float("nan")), "finite"),
        (torch.full((1, 3, 48, 48), float("inf")), "finite"),
        (torch.zeros(1, 3, 48, 48, device="meta"), "CPU"),
        (torch.zeros(1, 3, 48, 48).to_sparse(), "dense tensor"),
        (torch.zeros(1, 3, 48, 48).to_mkldnn(), "dense tensor"),
        ([1.0], "float"),
    ],
)
def test_images_that_do_not_fit_are_refused(images: Tensor, says: str) -> None:
    network, _ = random_network(SMALL, 1, 0)
    with pytest.raises(BadInputError, match=says):
        pack(network, SMALL)(images)


def test_large_finite_images_are_taken() -> None:
    network, _ = random_network(SMALL, 1, 0)
    assert pack(network, SMALL)(torch.full((1, 3, 48, 48), 1e36)).shape == (1, 10)


def test_foreign_modules_are_refused() -> None:
    other = load_arch("meliusnet22", ["input_size=48", "num_classes=11"]).spec
    network, _ = random_network(SMALL, 1, 0)
    with pytest.raises(BadInputError, match="not a network of this spec"):
        pack(network, other)
    with pytest.raises(BadInputError, match="not a network of this spec"):
        pack(nn.Sequential(nn.Conv2d(3, 3, 3)).eval(), SMALL)
    with pytest.raises(BadInputError, match="training mode"):
        pack(build(SMALL), SMALL)


def test_networks_that_compute_something_else_are_refused() -> None:
    network, _ = random_network(SMALL, 1, 0)
    handle = network.get_submodule("stage1").register_forward_hook(lambda *_: None)
    with pytest.raises(BadInputError, match=r"hooks.*stage1"):
        pack(network, SMALL)
    handle.remove()
    pack(network, SMALL)
    norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    norm.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(BadInputError, match="a forward of its own"):
        pack(network, SMALL)
    del norm.forward
    kept = norm.weight.detach().clone()
    with torch.no_grad():
        norm.weight[0] = torch.nan
    with pytest.raises(BadInputError, match="not finite"):
        pack(network, SMALL)
    with torch.no_grad():
        norm.weight.copy_(kept)
    norm.eps = 1e-3
    with pytest.raises(BadInputError, match="not a network of this spec"):
        pack(network, SMALL)


def test_a_network_without_binary_convolutions_is_refused() -> None:
    spec = load_arch("mobilenet-v1", ["input_size=32"]).spec
    with pytest.raises(BadInputError, match="no binary convolution"):
        pack(build(spec).eval(), spec)


def test_convolutions_that_kernels_cannot_do_are_left_to_torch() -> None:
    grouped = QuantConv2d(8, 8, groups=2)
    biased = QuantConv2d(8, 8, bias=True)
    padded = QuantConv2d(8, 8, pad_value=0.5)
    clipped = QuantConv2d(8, 8, activation=nn.Hardtanh(0, 1))
    assert all(convs.binary_weights(conv) is None for conv in (grouped, biased, padded, clipped, nn.Conv2d(8, 8, 3)))


def test_unknown_and_impossible_instruction_sets_are_refused() -> None:
    with pytest.raises(BadInputError, match="instruction set"):
        choose_isa("avx9")
    for name in set(ISAS) - set(host_isas()):
        with pytest.raises(BadInputError, match="cannot run"):
            choose_isa(name)


def test_maps_beyond_32_bit_offsets_are_refused() -> None:
    with pytest.raises(BadInputError, match="2 GiB"):
        steps.offsets_of(np.array([2**31]))


def test_steps_that_do_the_same_work_have_the_same_key() -> None:
    spec = MeliusNetSpec(num_blocks=[2], stem="thumbnail", input_size=8, num_classes=10)
    network, _ = random_network(spec, 1, 0)
    packed = pack(network, spec)
    assert isinstance(packed, PackedDense)
    plan, program = packed.plan(1)
    keys = {(step.layer, step.kind): step.key for step in plan.steps}
    first, second = "stage1.block1.improvement", "stage1.block2.dense"
    assert keys[first, "pack"] == keys[second, "pack"]
    assert keys[first, "binary"] != keys[second, "binary"]  # it adds to what is there
    assert isinstance(program, Program)
    assert isinstance(plan.maps[first], Map)
