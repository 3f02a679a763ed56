"""A training step is what the papers' description says: outputs, gradients and running statistics against a plain
version, with the compiled kernels and without, and how far bfloat16 is from that."""

from __future__ import annotations

import pytest
import torch
from conftest import dense_specs
from hypothesis import given
from plain import PlainNet, batch_statistics, plain_binary_conv
from torch import Tensor, nn

import meliuscli.nn.dense_stage as dense_stage
from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.zoo import load_arch
from meliuscli.nn import binary_conv, kernels, tiles
from meliuscli.nn.build import build
from meliuscli.nn.families.dense import DenseBlock, ImprovementBlock, Stage

NAMES = (
    "with kernels",
    "with tiles",
    "without a compiler",
    "without counting bits",
    "without integer convolutions",
    "without direct gradients",
)


@pytest.fixture(params=NAMES)
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every way in which a stage may run on some machine."""
    if request.param == "without a compiler":
        monkeypatch.setattr(dense_stage, "kernels", lambda: None)
    elif kernels.kernels() is None:
        pytest.skip("no C compiler here")
    if request.param == "with tiles":
        monkeypatch.setattr(tiles, "TILED_OUTPUTS", 1)
    if request.param in ("with tiles", "without direct gradients"):
        monkeypatch.setattr(kernels.kernels(), "vector_bytes", 0)
    if request.param.startswith(("without counting", "without integer")):
        monkeypatch.setattr(kernels.kernels(), "has_xnor", False)
    if request.param == "without integer convolutions":
        monkeypatch.setattr(binary_conv, "integer_convolution", lambda: False)
    return request.param


def randomised(network: nn.Module) -> nn.Module:
    """Batch norms as they may be after a training: scales of both signs, shifts, statistics."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.weight.data.normal_()
            module.bias.data.normal_(std=0.5)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2.0)
    return network


def assert_trains_as_plain(spec: DenseFamilySpec, batch: int) -> None:
    torch.manual_seed(0)
    # In double, so that a rounding error does not flip a sign somewhere in the depth.
    network = randomised(build(spec)).double().train()
    state = {name: buffer.clone() for name, buffer in network.named_buffers()}
    plain = PlainNet(spec, dict(network.named_parameters()) | state, training=True)
    x = torch.randn(batch, *spec.input_shape, dtype=torch.float64, requires_grad=True)
    ours, wanted = network(x), plain(x)
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)
    leaves = [x, *network.parameters()]
    weights = torch.randn_like(wanted)
    for mine, other in zip(
        torch.autograd.grad(ours, leaves, weights), torch.autograd.grad(wanted, leaves, weights), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5 * (1e-3 + other.abs().max().item()))
    for name, buffer in network.named_buffers():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(buffer, state[name], rtol=1e-5, atol=1e-5)
        else:
            assert buffer == 1


def test_meliusnet22_trains_as_a_plain_version(road: str) -> None:
    spec = load_arch("meliusnet22", ["input_size=56", "num_classes=10"]).spec
    assert isinstance(spec, DenseFamilySpec)
    assert_trains_as_plain(spec, batch=2)


@pytest.mark.parametrize("name", ["meliusnet-c", "binarydensenet37-dilated"])
def test_the_grouped_and_dilated_networks_train_as_a_plain_version(name: str) -> None:
    spec = load_arch(name, ["input_size=32", "num_classes=7"]).spec
    assert isinstance(spec, DenseFamilySpec)
    assert_trains_as_plain(spec, batch=2)


@given(dense_specs())
def test_random_networks_train_as_a_plain_version(spec: DenseFamilySpec) -> None:
    assert_trains_as_plain(spec, batch=2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dilation", [1, 2])
def test_blocks_are_their_definitions_in_float32(road: str, training: bool, dilation: int) -> None:
    torch.manual_seed(1)
    dense, improvement = DenseBlock(20, 6, dilation, 1.3), ImprovementBlock(26, 6, dilation, 1.3)
    stage = Stage(nn.Sequential(dense, improvement))
    randomised(stage).train(training)
    statistics = [x.clone() for bn in (dense.bn, improvement.bn) for x in (bn.running_mean, bn.running_var)]
    x = torch.randn(3, 20, 7, 9, requires_grad=True)

    def normed(x: Tensor, bn: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> Tensor:
        if training:
            mean, var = batch_statistics(x, mean, var)
        mean, var, gamma, beta = (v.view(1, -1, 1, 1) for v in (mean, var, bn.weight, bn.bias))
        return (x - mean) / torch.sqrt(var + 1e-5) * gamma + beta

    new = plain_binary_conv(normed(x, dense.bn, *statistics[:2]), dense.conv.weight, dilation)
    wide = torch.cat([x, new], 1)
    better = plain_binary_conv(normed(wide, improvement.bn, *statistics[2:]), improvement.conv.weight, dilation)
    wanted = torch.cat([x, new + better], 1)
    ours = stage(x)
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)
    leaves, weights = [x, *stage.parameters()], torch.randn_like(wanted)
    for mine, other in zip(
        torch.autograd.grad(ours, leaves, weights), torch.autograd.grad(wanted, leaves, weights), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5 * (1 + other.abs().max().item()))
    if training:
        found = [v for bn in (dense.bn, improvement.bn) for v in (bn.running_mean, bn.running_var)]
        for mine, other in zip(found, statistics, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_bfloat16_keeps_counts_exact_and_gradients_within_a_hundredth(road: str) -> None:
    """For a map that bfloat16 holds exactly, the forward pass is that of float32."""
    torch.manual_seed(2)
    stage = Stage(nn.Sequential(DenseBlock(32, 16, 1, 1.3), ImprovementBlock(48, 16, 1, 1.3))).train()
    x = torch.randn(8, 32, 8, 8).bfloat16().float().requires_grad_()
    outputs, gradients = [], []
    weights = torch.randn(8, 48, 8, 8)
    for lower in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            out = stage(x)
        outputs.append(out.float())
        gradients.append(torch.autograd.grad(out.float(), [x, *stage.parameters()], weights))
    if road != "without a compiler":
        assert torch.equal(*outputs)
    for whole, low in zip(*gradients, strict=True):
        assert low.dtype == whole.dtype
        assert (low - whole).norm() < 0.01 * whole.norm()


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(3)
    stage = Stage(nn.Sequential(DenseBlock(32, 16, 1, 1.3), ImprovementBlock(48, 16, 1, 1.3))).train()
    x, before = torch.randn(4, 32, 9, 9), torch.get_num_threads()
    outputs = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs.append(stage(x).detach())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(out, outputs[0]) for out in outputs[1:])


def test_what_stands_in_place_of_a_block_runs_in_training() -> None:
    """The fused stage never passes over a module, a hook, or a lost block."""
    stage = Stage(*(nn.Sequential(DenseBlock(8, 4, 1, 1.3), ImprovementBlock(12, 4, 1, 1.3)) for _ in range(1))).train()
    x, seen = torch.randn(2, 8, 6, 6), []
    stage[0][1].register_forward_hook(lambda *_: seen.append("hook"))
    stage(x)
    assert seen == ["hook"]

    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    stage[0][1] = Doubled()
    out = stage(x)
    torch.testing.assert_close(out[:, :8], 2 * x)


def test_maps_are_freed_by_the_backward_pass() -> None:
    """A training loop that holds on to its loss does not hold on to the maps."""
    stage = Stage(nn.Sequential(DenseBlock(8, 4, 1, 1.3), ImprovementBlock(12, 4, 1, 1.3))).train()
    loss = stage(torch.randn(2, 8, 5, 5)).square().mean()
    loss.backward(retain_graph=True)
    first = [p.grad.clone() for p in stage.parameters()]
    loss.backward()
    for parameter, once in zip(stage.parameters(), first, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * once)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_hooks_on_the_parts_of_a_stage_are_called_in_training() -> None:
    stage = Stage(nn.Sequential(DenseBlock(8, 4, 1, 1.3), ImprovementBlock(12, 4, 1, 1.3))).train()
    seen: list[int] = []
    stage[0][1].bn.register_forward_hook(lambda _, __, out: seen.append(out.shape[1]))
    stage(torch.randn(2, 8, 5, 5))
    assert seen == [12]
