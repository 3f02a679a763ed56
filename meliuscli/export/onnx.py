"""ONNX: a graph of standard operators in which binary weights are the constants -1 and +1.

ONNX has no binary convolution: signs stand as comparisons and every weight as a float32, so the file is a network for
other runtimes, not a small one.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.arch.spec import ArchSpec
from meliuscli.data.preprocessing import KEY, Preprocessing
from meliuscli.errors import MissingError
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.quantized import QuantConv2d, QuantLinear
from meliuscli.nn.quantizers import sign
from meliuscli.results import write_bytes

HINT = 'pip install "meliuscli[onnx]"'
IMAGES = 16
"""Random images on which the file is held against the network."""


class _FrozenBinaryConv(nn.Module):
    """``BinaryConv2d`` in evaluation: its signs as a constant."""

    def __init__(self, conv: BinaryConv2d) -> None:
        super().__init__()
        self.stride, self.dilation = conv.stride, conv.dilation
        self.weight = nn.Parameter(sign(conv.weight.detach()))
        self.offset = nn.Parameter((self.weight[0].numel() - self.weight.detach().sum((1, 2, 3))) / 2)

    def forward(self, x: Tensor) -> Tensor:
        bits = (x >= 0).to(x.dtype)
        return F.conv2d(bits, self.weight, self.offset, self.stride, self.dilation, self.dilation)


class _FrozenSignConv(nn.Module):
    """``QuantConv2d`` of one-bit weights in evaluation: its signs as a constant, and their magnitudes behind it."""

    def __init__(self, conv: QuantConv2d) -> None:
        super().__init__()
        self.conv = conv
        self.stride, self.padding = conv.stride, conv.padding  # which a block reads that scales its result
        quantized = conv.quantizer(conv.weight.detach())
        self.weight = nn.Parameter(sign(quantized))
        self.scale = nn.Parameter(quantized.abs().amax((1, 2, 3))[:, None, None])
        self.has_scale = bool((self.scale != 1).any())

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        x, padding = conv.bordered(conv.activation(x))
        x = F.conv2d(x, self.weight, None, conv.stride, padding, conv.dilation, conv.groups)
        x = x * self.scale if self.has_scale else x
        return x if conv.bias is None else x + conv.bias[:, None, None]


def _is_sign_conv(module: nn.Module) -> bool:
    """Has it one-bit weights with one magnitude a channel?"""
    if not isinstance(module, QuantConv2d) or module.weight_bits != 1:
        return False
    sizes = module.quantizer(module.weight).abs().flatten(1)
    return bool((sizes == sizes[:, :1]).all() and (sizes > 0).all())


@torch.no_grad()
def frozen(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose weights are quantized for good; it computes the same."""
    network = copy.deepcopy(network).eval()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BinaryConv2d):
                setattr(parent, name, _FrozenBinaryConv(child))
            elif _is_sign_conv(child):
                setattr(parent, name, _FrozenSignConv(child))  # type: ignore[arg-type]
            elif isinstance(child, QuantConv2d | QuantLinear):
                child.weight = nn.Parameter(child.quantizer(child.weight))
                child.quantizer = nn.Identity()
    return network


@dataclass(frozen=True, slots=True)
class Agreement:
    """onnxruntime against torch on random images: those of ``images`` on which torch gives one top-1, whether it takes
    them together or one by one. The others turn on a rounding. ``equal`` is of the file as it is, ``optimised`` with
    onnxruntime's own changes to it, which multiply batch norm into the signs and so break exact ties."""

    equal: int
    optimised: int
    images: int
    difference: float
    """The largest difference of a logit, in standard deviations of the logits."""


def write_onnx(
    network: nn.Module, spec: ArchSpec, path: Path, preprocessing: Preprocessing | None = None
) -> Agreement | None:
    """Write ``network`` (N, C, H, W) -> logits (N, classes), N free, and run the file; None without onnxruntime.

    Nothing is written where the export fails. Raises ``MissingError`` without onnx and onnxscript, or where the file
    cannot be written."""
    program = _export(frozen(network), spec)
    _tidy(program.model)
    program.model.metadata_props.update({"archid": spec.archid, "spec": spec.to_toml()})
    if preprocessing is not None:
        program.model.metadata_props[KEY] = preprocessing.to_json()
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory) / "network.onnx"
        program.save(made, include_initializers=True, external_data=False)
        content = made.read_bytes()
    agreement = compare_with_torch(network, spec, content)
    write_bytes(path, content)
    return agreement


def _export(network: nn.Module, spec: ArchSpec) -> Any:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingError(f"ONNX export needs the package {error.name!r}, which is not installed", HINT) from None
    chatter = logging.getLogger("torch.onnx")
    level = chatter.level
    chatter.setLevel(logging.ERROR)  # torch warns that torchvision's operators are not there
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                network,
                (torch.zeros(2, *spec.input_shape),),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
                optimize=False,  # it would multiply batch norm into the signs
            )
    finally:
        chatter.setLevel(level)


def _tidy(model: Any) -> None:
    """Constants computed, and what nobody reads left out: torch's optimiser without what it folds into weights."""
    from onnxscript import optimizer

    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)


@torch.no_grad()
def compare_with_torch(network: nn.Module, spec: ArchSpec, content: bytes) -> Agreement | None:
    """Top-1 of the file in onnxruntime and of the network in torch; None where onnxruntime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    images = torch.randn(IMAGES, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    ours = network.eval()(images)
    alone = torch.cat([network(image[None]) for image in images])
    sure = ours.argmax(1) == alone.argmax(1)

    def run(level: Any) -> Tensor:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    levels = onnxruntime.GraphOptimizationLevel
    plain, optimised = run(levels.ORT_DISABLE_ALL), run(levels.ORT_ENABLE_ALL)
    equal, with_changes = (int((y.argmax(1) == ours.argmax(1))[sure].sum()) for y in (plain, optimised))
    difference = float((plain - ours).abs().max() / ours.std().clamp_min(1e-12))
    return Agreement(equal, with_changes, int(sure.sum()), difference)
