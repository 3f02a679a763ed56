"""Images a second of one training step, binary against its float twin, in one run on this machine.

    python tests/benchmarks/bench_training.py [--threads 2] [--rounds 7]

The float twin is the same network with its signs removed: float 3x3 convolutions of the same shape in place of the
binary ones, everything else alike. "plain" is the binary network in torch's own operations, a node each for sign,
padding, convolution and (y + K) / 2, optimised by RAdam's foreach path. Rounds alternate between the networks;
medians of wall time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.arch.adapt import at_input
from meliuscli.arch.families.dense import MeliusNetSpec
from meliuscli.arch.zoo import load_name
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.build import build
from meliuscli.training.loop import flatten_parameters


class PlainSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, clip):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        ctx.clip = clip
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return (grad if ctx.clip is None else grad * (x.abs() <= ctx.clip)), None


class PlainBinaryConv(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        signs = F.pad(PlainSign.apply(x, 1.3), (1, 1, 1, 1), value=-1.0)
        return (F.conv2d(signs, PlainSign.apply(self.weight, None)) + self.weight[0].numel()) / 2


def with_convolutions(network: nn.Module, make: Callable[[BinaryConv2d], nn.Module]) -> nn.Module:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BinaryConv2d):
                setattr(parent, name, make(child))
    return network


def float_conv(conv: BinaryConv2d) -> nn.Module:
    out_channels, in_channels = conv.weight.shape[:2]
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)


def stepper(network: nn.Module, images: Tensor, labels: Tensor, flat: bool) -> Callable[[], None]:
    network.train()
    if flat:
        optimizer = torch.optim.RAdam([flatten_parameters(network)], lr=0.01)
    else:
        network.to(memory_format=torch.channels_last)
        optimizer = torch.optim.RAdam(network.parameters(), lr=0.01, foreach=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=not flat)
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def measure(title: str, spec: MeliusNetSpec, batch: int, rounds: int) -> None:
    images = torch.randn(batch, *spec.input_shape).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, spec.num_classes, (batch,))
    steps = {
        "binary": stepper(build(spec), images, labels, flat=True),
        "plain binary": stepper(
            with_convolutions(build(spec), lambda conv: PlainBinaryConv(conv.weight.detach().clone())),
            images,
            labels,
            flat=False,
        ),
        "float twin": stepper(with_convolutions(build(spec), float_conv), images, labels, flat=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if turn:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - started)
    print(f"{title}, batch {batch}, {torch.get_num_threads()} thread(s), median of {rounds}")
    for name, times in seconds.items():
        ratios = [ours / other for ours, other in zip(seconds["binary"], times, strict=True)]
        print(
            f"  {name:13s} {batch / statistics.median(times):8.1f} images/s"
            f"   binary is {1 / statistics.median(ratios):.2f}x as fast"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    spec = load_name("meliusnet22")
    assert isinstance(spec, MeliusNetSpec)
    measure("meliusnet22 at 3x32x32, thumbnail stem", at_input(spec, 10, 3, 32), 64, arguments.rounds)
    proxy = at_input(spec, 10, 1, 8).narrowed(8)
    measure("meliusnet22 as search trains it (1x8x8, widths / 8)", proxy, 50, 5 * arguments.rounds)


if __name__ == "__main__":
    main()
