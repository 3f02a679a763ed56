"""Packed MeliusNet22 against torch and, where it is installed, OpenVINO's binary convolution: medians of paired runs.

    python tests/benchmarks/bench_packed.py [--runs 15] [--no-compile] [--isa avx2] [--real-time]

One thread and batch 1, and two threads against one. The OpenVINO graph is made by hand: activations through FakeQuantize
with batch norm in its thresholds, weights u1, counts scaled in the next thresholds; it is an oracle, no dependency.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.plan import STEM
from meliuscli.arch.zoo import load_arch
from meliuscli.nn.binary_conv import integer_convolution
from meliuscli.packed.bench import random_network
from meliuscli.packed.dense import Tensors, shuffled
from meliuscli.packed.isa import choose_isa
from meliuscli.packed.layout import Window
from meliuscli.packed.opponents import compiled, int8, plain
from meliuscli.packed.runner import PackedDense, pack
from meliuscli.packed.selftest import check, require_exact
from meliuscli.packed.timing import in_turns
from meliuscli.packed.words import BinaryWeights


class OpenVinoGraph:
    """A MeliusNet or BinaryDenseNet of packed tensors as an OpenVINO model.

    Channels hold sums of dot products y, where the network has v = (y + K) / 2: ``lift`` is K, a channel (0 and scale
    1 for those that came into the stage), and thresholds and batch norms are moved accordingly."""

    def __init__(self, spec: DenseFamilySpec, tensors: Tensors) -> None:
        import openvino
        from openvino import opset1

        self._op: Any = opset1
        self._ov: Any = openvino
        self._tensors, self._spec, self._keep = tensors, spec, list[np.ndarray]()

    def compile(self, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        op, spec = self._op, self._spec
        image = op.parameter([1, *spec.input_shape], np.float32)
        x, channels = self._stem(image), spec.stem_channels
        for index, (num, growth) in enumerate(zip(spec.num_blocks, spec.growth_rate, strict=True)):
            lift, half = np.zeros(channels, np.float32), np.ones(channels, np.float32)
            for block in range(1, num + 1):
                name = f"stage{index + 1}.block{block}"
                new = self._conv(f"{name}.dense", x, lift, half)
                lift = np.concatenate([lift, np.full(growth, 9.0 * channels, np.float32)])
                half = np.concatenate([half, np.full(growth, 0.5, np.float32)])
                channels += growth
                if spec.improvement:
                    better = self._conv(f"{name}.improvement", op.concat([x, new], 1), lift, half)
                    new = op.add(new, better)
                    lift[-growth:] += 9.0 * channels
                x = op.concat([x, new], 1)
            name = f"transition{index + 1}"
            last = index == len(spec.num_blocks) - 1
            norm = "head.bn" if last else f"{name}.bn"
            scale, shift = self._tensors[f"{norm}.scale"], self._tensors[f"{norm}.shift"]
            x = self._affine(x, scale * half, shift + scale * half * lift)
            if last:
                x = op.reduce_mean(op.relu(x), np.array([2, 3]), keep_dims=False)
                break
            if spec.pools[index]:
                x = op.max_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], "floor", "explicit")
            x = op.relu(x)
            weight = self._tensors[f"{name}.conv.weight"]
            order = shuffled(channels) if spec.groups > 1 else np.arange(channels)
            dense = np.zeros((len(weight), channels), np.float32)
            for group, seen in enumerate(order.reshape(spec.groups, -1)):
                rows = slice(group * len(weight) // spec.groups, (group + 1) * len(weight) // spec.groups)
                dense[rows, seen] = weight[rows]
            x = self._float_conv(x, dense[:, :, None, None], 1, 0)
            channels = spec.transition_channels[index]
        logits = op.matmul(x, self._tensors["head.fc.weight"], False, True)
        model = self._ov.Model([op.add(logits, self._tensors["head.fc.bias"])], [image], "net")
        settings = {
            "INFERENCE_NUM_THREADS": str(threads),
            "NUM_STREAMS": "1",
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = self._ov.Core().compile_model(model, "CPU", settings).create_infer_request()

        def run(images: np.ndarray) -> np.ndarray:
            result: np.ndarray = request.infer([images], share_inputs=True)[0]
            return result

        return run

    def _affine(self, x: Any, scale: np.ndarray, shift: np.ndarray) -> Any:
        scaled = self._op.multiply(x, scale.astype(np.float32)[None, :, None, None])
        return self._op.add(scaled, shift.astype(np.float32)[None, :, None, None])

    def _float_conv(self, x: Any, weight: np.ndarray, stride: int, pad: int) -> Any:
        return self._op.convolution(x, weight, [stride] * 2, [pad] * 2, [pad] * 2, [1, 1])

    def _stem(self, x: Any) -> Any:
        op, spec = self._op, self._spec
        before = spec.input_channels
        for index, name in enumerate(
            layer.name for layer in spec.layers() if layer.kind == "conv" and layer.stage == STEM
        ):
            weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
            stride, pad = 2 if index == 0 else 1, weight.shape[2] // 2
            outputs, inputs, kernel, _ = weight.shape
            if before == inputs:
                x = self._float_conv(x, weight, stride, pad)
            else:
                groups = before // inputs
                shaped = weight.reshape(groups, outputs // groups, inputs, kernel, kernel)
                x = op.group_convolution(x, shaped, [stride] * 2, [pad] * 2, [pad] * 2, [1, 1])
            x = op.relu(op.add(x, bias[None, :, None, None]))
            before = outputs
        return op.max_pool(x, [2, 2], [1, 1], [1, 1], [3, 3], "floor", "explicit")

    def _conv(self, name: str, x: Any, lift: np.ndarray, half: np.ndarray) -> Any:
        op = self._op
        words, thresholds = self._tensors[f"{name}.conv.words"], self._tensors[f"{name}.conv.thresholds"]
        channels = len(thresholds)
        flips = np.unpackbits(self._tensors[f"{name}.conv.flips"].view(np.uint8), bitorder="little")[:channels]
        # v >= t where (y + lift) * half >= t; FakeQuantize asks for more than its limit.
        limits = np.nextafter((thresholds / half - lift).astype(np.float32), np.float32(-np.inf))
        shape = (1, channels, 1, 1)
        limits = np.where(np.isnan(limits), np.float32(3e38), limits).astype(np.float32).reshape(shape)
        low, high = flips.astype(np.float32).reshape(shape), (1 - flips).astype(np.float32).reshape(shape)
        bits = op.fake_quantize(x, limits, limits, low, high, 2)
        weights = BinaryWeights(words, channels, Window(3, padding=1)).signs().transpose(0, 3, 1, 2) > 0
        packed = np.packbits(weights.ravel(), bitorder="little")
        tensor = self._ov.Tensor(packed, list(weights.shape), self._ov.Type.u1)
        self._keep.append(packed)  # the constant only refers to it
        constant = self._ov.op.Constant(tensor)
        return op.binary_convolution(bits, constant, [1, 1], [1, 1], [1, 1], [1, 1], "xnor-popcount", -1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="meliusnet22")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--isa", default=None)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out (it takes minutes)")
    parser.add_argument(
        "--real-time", action="store_true", help="time before all other processes (root on Linux), on a busy machine"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = load_arch(arguments.arch).spec
    assert isinstance(spec, DenseFamilySpec)
    network, images = random_network(spec, 1, 0)
    started = time.perf_counter()
    packed = pack(network, spec, arguments.isa)
    packed(images)
    print(f"{arguments.arch}, {choose_isa(arguments.isa).name}: first use {time.perf_counter() - started:.2f} s")
    assert isinstance(packed, PackedDense)
    require_exact(check(packed, network, images))
    with torch.inference_mode():
        last, behind = plain(network), images.contiguous(memory_format=torch.channels_last)
        ways: dict[str, Callable[[], object]] = {
            "packed": lambda: packed(images),
            "eager": lambda: network(images),
            "eager, channels last": lambda: last(behind),
        }
        if integer_convolution():
            integers = int8(network)
            ways["binary convs in int8"] = lambda: integers(behind)
        try:
            openvino = OpenVinoGraph(spec, packed.tensors).compile(1)
        except ImportError:
            print("OpenVINO is not installed")
        else:
            array = images.numpy()
            close = np.corrcoef(openvino(array).ravel(), packed(images).numpy().ravel())[0, 1]
            print(f"OpenVINO's logits correlate with ours to {close:.5f}")
            ways["OpenVINO BinaryConvolution"] = lambda: openvino(array)
        if not arguments.no_compile:
            ways["compiled fp32"] = compiled(plain(network), images, torch.float32)
            ways["compiled bf16"] = compiled(plain(network), images, torch.bfloat16)
        if arguments.real_time:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        samples = in_turns(ways, arguments.runs)
        ours = samples["packed"]
        for name, taken in samples.items():
            print(
                f"{name:28s} {1e3 * taken.median:8.2f} ms wall  {1e3 * taken.cpu_median:8.2f} ms CPU"
                f"   packed is {taken.times(ours, 1):6.2f}x (CPU) {taken.times(ours, 2):6.2f}x (wall)"
            )
        two = pack(network, spec, arguments.isa, threads=2)
        both = in_turns({"one": lambda: packed(images), "two": lambda: two(images)}, 3 * arguments.runs)
        print(
            f"two threads: {1e3 * both['two'].median:.2f} ms against {1e3 * both['one'].median:.2f} ms:"
            f" {both['one'].times(both['two'], 2):.2f}x (wall)"
        )


if __name__ == "__main__":
    main()
