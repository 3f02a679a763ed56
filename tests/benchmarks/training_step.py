"""One training step of MeliusNet22, in this process: what ``bench_training.py`` measures, a process a contestant.

    python tests/benchmarks/training_step.py CONTESTANT SIZE --threads 1

Runs a step for every line on standard input and answers with its wall and CPU seconds, and the process's peak memory
since the imports in MiB. Needs only what the contestant needs (for larq-zoo: TensorFlow, and not torch)."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import types
from collections.abc import Callable
from typing import Any

SIZES = {
    "32": ("meliusnet22 at 3x32x32, thumbnail stem", 3, 32, 64, 1),
    "64": ("meliusnet22 at 3x64x64, grouped stem", 3, 64, 64, 1),
    "search": ("meliusnet22 at 1x16x16, thumbnail stem, widths / 4", 1, 16, 128, 4),
    "224": ("meliusnet22 at 3x224x224, grouped stem", 3, 224, 32, 1),
}
"""Title, channels, height and width of the input, batch, divisor of the widths."""


def torch_step(contestant: str, size: str, threads: int, batch: int) -> Callable[[], None]:
    import torch
    import torch.nn.functional as F

    _, channels, side, _, _ = SIZES[size]
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    name, _, mode = contestant.partition("+")
    network = bitorch_network(size) if name == "bitorch" else own_network(name, size)
    network.train()
    flat = name in ("ours", "twin")
    layout = torch.channels_last if flat or "channels_last" in mode else torch.contiguous_format
    images = torch.randn(batch, channels, side, side).contiguous(memory_format=layout)
    labels = torch.randint(0, 10, (batch,))
    if flat:
        from meliuscli.training.loop import flatten_parameters

        optimizer = torch.optim.RAdam([flatten_parameters(network)], lr=0.01)
    else:
        network.to(memory_format=layout)
        optimizer = torch.optim.RAdam(network.parameters(), lr=0.01, foreach=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=not flat)
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in mode):
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def own_network(name: str, size: str) -> Any:
    """Our network, the plain one in torch's own operations, or the float twin: the signs removed, float 3x3
    convolutions of the same shape in place of the binary ones, everything else alike."""
    from torch import nn

    from meliuscli.arch.adapt import at_input
    from meliuscli.arch.families.dense import MeliusNetSpec
    from meliuscli.arch.zoo import load_name
    from meliuscli.nn.binary_conv import BinaryConv2d
    from meliuscli.nn.build import build

    _, channels, side, _, divisor = SIZES[size]
    spec = load_name("meliusnet22")
    assert isinstance(spec, MeliusNetSpec)
    if size in ("64", "224"):
        spec = spec.model_copy(update={"input_size": side, "num_classes": 10})
    else:
        spec = at_input(spec, 10, channels, side)
    network = build(spec.narrowed(divisor) if divisor > 1 else spec)
    for parent in list(network.modules()):
        for child_name, conv in list(parent.named_children()):
            if isinstance(conv, BinaryConv2d) and name == "plain":
                setattr(parent, child_name, plain_conv(conv))
            if isinstance(conv, BinaryConv2d) and name == "twin":
                outputs, inputs = conv.weight.shape[:2]
                setattr(parent, child_name, nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
    return network


def plain_conv(conv: Any) -> Any:
    """A node each for sign, padding, convolution and (y + K) / 2."""
    import torch
    import torch.nn.functional as F
    from torch import nn

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
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(conv.weight.detach().clone())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            signs = F.pad(PlainSign.apply(x, 1.3), (1, 1, 1, 1), value=-1.0)  # type: ignore[no-untyped-call]
            y = F.conv2d(signs, PlainSign.apply(self.weight, None))  # type: ignore[no-untyped-call]
            return (y + self.weight[0].numel()) / 2

    return PlainBinaryConv()


def bitorch_network(size: str) -> Any:
    """bitorch's MeliusNet22; 0.4 builds it without its ImprovementBlocks. It wants torchvision for downloads alone."""
    for name in ("torchvision", "torchvision.datasets", "torchvision.datasets.utils"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["torchvision.datasets.utils"].download_url = None  # type: ignore[attr-defined]
    from bitorch.models import MeliusNet22

    _, channels, side, batch, _ = SIZES[size]
    return MeliusNet22(input_shape=(batch, channels, side, side), num_classes=10)


def larq_step(size: str, threads: int, batch: int) -> Callable[[], None]:
    """larq-zoo's MeliusNet22 in TensorFlow's graph mode, Adam (TensorFlow has no RAdam of its own)."""
    import numpy as np
    import tensorflow as tf
    from larq_zoo.literature import MeliusNet22

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.random.set_seed(0)
    _, channels, side, _, _ = SIZES[size]
    network = MeliusNet22(input_shape=(side, side, channels), weights=None, num_classes=10)
    images = tf.constant(np.random.default_rng(0).normal(size=(batch, side, side, channels)).astype("float32"))
    labels = tf.constant(np.random.default_rng(1).integers(0, 10, batch))
    optimizer = tf.keras.optimizers.Adam(0.001)

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.keras.losses.sparse_categorical_crossentropy(labels, network(images, True)))
        variables = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))  # noqa: B905
        return loss

    return lambda: step().numpy()  # type: ignore[no-any-return]


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contestant")
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int)
    arguments = parser.parse_args()
    contestant, size, threads = arguments.contestant, arguments.size, arguments.threads
    batch = arguments.batch or SIZES[size][3]
    if contestant != "larq":
        import torch  # noqa: F401
    before = peak()
    step = larq_step(size, threads, batch) if contestant == "larq" else torch_step(contestant, size, threads, batch)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps({**times, "mib": peak() - before}), flush=True)


if __name__ == "__main__":
    main()
